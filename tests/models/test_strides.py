"""The memory layout and the dtype in which people save weights: the values count, not the strides."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import checkpoint, cifar10, loading, quantize
from models.card import Preparation
from models.files import CheckpointError
from models.resnet import resnet18

State = dict[str, Tensor]
PREPARATION = Preparation(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
FLAGS = ["--input-size", "32", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an empty folder as cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def state() -> State:
    """Return the contiguous weights of a network whose BatchNorm has seen images."""
    torch.manual_seed(5)
    net = resnet18("cifar")
    images = torch.from_numpy(cifar10.sample()[0][:50]).float() / 128 - 1
    with torch.no_grad():
        for _ in range(4):
            net(images)
    return net.state_dict()


def channels_last(tensor: Tensor) -> Tensor:
    """Return the tensor with the strides of `net.to(memory_format=torch.channels_last)`."""
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def transposed(tensor: Tensor) -> Tensor:
    """Return the tensor with its axes in reverse order in memory."""
    axes = tuple(reversed(range(tensor.ndim)))
    return tensor.permute(axes).contiguous().permute(axes)


def strided(tensor: Tensor) -> Tensor:
    """Return the tensor as every second value of a larger storage."""
    return torch.stack([tensor, tensor + 1], dim=-1)[..., 0]


def parameters(tensor: Tensor) -> Tensor:
    """Return a channels-last parameter, which requires gradients, of a floating-point tensor."""
    return torch.nn.Parameter(channels_last(tensor)) if tensor.is_floating_point() else tensor


LAYOUTS = (channels_last, transposed, strided, parameters)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_alike(state: State, layout: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    """Weights of any strides in a .pt are read as the contiguous ones, to the bit."""
    torch.save({name: layout(tensor) for name, tensor in state.items()}, tmp_path / "own.pt")
    found, _ = checkpoint.load(tmp_path / "own.pt")
    assert all(array.flags.c_contiguous for array in found.values())
    assert all(np.array_equal(found[name], tensor.numpy()) for name, tensor in state.items())


def test_a_channels_last_network_gives_the_same_answers(state: State, tmp_path: Path) -> None:
    """Its logits are those of the contiguous weights to the bit."""
    torch.save({name: channels_last(tensor) for name, tensor in state.items()}, tmp_path / "laid.pt")
    torch.save(state, tmp_path / "plain.pt")
    engines = [
        loading.load("fp32-cpu", threads=1, checkpoint=tmp_path / f"{name}.pt", preparation=PREPARATION)
        for name in ("laid", "plain")
    ]
    first, second = (engine.run(cifar10.sample()[0][:10]).logits for engine in engines)
    assert np.array_equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_keep_their_values(state: State, dtype: torch.dtype, tmp_path: Path) -> None:
    """Channels-last weights in another dtype are read as float32 with the values of that dtype, from both formats."""
    narrow = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    torch.save({name: channels_last(tensor) for name, tensor in narrow.items()}, tmp_path / "own.pt")
    save_file(narrow, tmp_path / "own.safetensors")
    for place in (tmp_path / "own.pt", tmp_path / "own.safetensors"):
        found, _ = checkpoint.load(place)
        for name, array in found.items():
            assert array.flags.c_contiguous
            assert array.dtype == (np.float32 if narrow[name].is_floating_point() else np.int64)
            assert np.array_equal(array, narrow[name].float().numpy())


def test_an_expanded_tensor_is_written_out(tmp_path: Path) -> None:
    """A tensor that repeats one value is read with memory of its own for each of them."""
    torch.save({"fc.bias": torch.ones(1).expand(10)}, tmp_path / "own.pt")
    array = checkpoint.load(tmp_path / "own.pt")[0]["fc.bias"]
    assert array.flags.c_contiguous
    assert array.tolist() == [1.0] * 10


def test_an_artifact_is_made_of_channels_last_weights(state: State, tmp_path: Path, pictures: Path) -> None:
    """`quantize --artifact` of them gives the artifact of the contiguous weights, except for the checkpoint's hash."""
    torch.save({name: channels_last(tensor) for name, tensor in state.items()}, tmp_path / "own.pt")
    torch.save(state, tmp_path / "plain.pt")
    for name in ("own", "plain"):
        artifact = ["--artifact", str(tmp_path / f"{name}.int8.safetensors"), "--out", str(tmp_path / "out")]
        images = ["--calibration-images", str(pictures)]
        quantize.main(["--checkpoint", str(tmp_path / f"{name}.pt"), *artifact, *images, *FLAGS])
    first, second = (load_file(tmp_path / f"{name}.int8.safetensors") for name in ("own", "plain"))
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(3).to_sparse(), torch.ones(3, dtype=torch.complex64), torch.empty(3, device="meta")],
    ids=["sparse", "complex", "meta"],
)
def test_a_tensor_without_plain_numbers_is_refused(tensor: Tensor, tmp_path: Path) -> None:
    """A sparse or complex tensor, or one without values, is an error that names it."""
    torch.save({"fc.bias": tensor}, tmp_path / "own.pt")
    with pytest.raises(CheckpointError, match=r"own.pt: fc.bias is no dense tensor of real numbers"):
        checkpoint.load(tmp_path / "own.pt")
