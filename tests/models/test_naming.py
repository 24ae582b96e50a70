"""Checkpoints as people save them: every one gives the engine of the same weights, and no pickled code runs."""

import argparse
import json
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet

from models import checkpoint, loading, naming
from models.card import Preparation
from models.engines import openvino
from models.engines.network import fold
from models.files import CheckpointError
from models.resnet import resnet, resnet18
from models.topology import Architecture

State = dict[str, torch.Tensor]
NAMES = ("cat", "dog", "owl")
PREPARATION = Preparation(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an empty folder as cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def net() -> ResNet:
    """Return an untrained network for three classes whose BatchNorms all change their input."""
    torch.manual_seed(3)
    net = resnet18(classes=3).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    return net


@pytest.fixture(scope="module")
def expected(net: ResNet) -> np.ndarray:
    """Return torchvision's logits of PIXELS."""
    with torch.inference_mode():
        return net((torch.from_numpy(PIXELS) / 255 - 0.5) / 0.25).numpy()


def prefixed(prefix: str, state: State) -> State:
    """Return the tensors with a prefix."""
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def spoilt(state: State) -> State:
    """Return other weights of the same network."""
    return {name: tensor + 1 for name, tensor in state.items()}


def hugging_face(state: State) -> State:
    """Return the tensors with the names of transformers' ResNetForImageClassification."""
    kinds = {"conv": "convolution", "bn": "normalization"}
    found = {}
    for name, tensor in state.items():
        place, _, part = name.rpartition(".")
        if place == "fc":
            found[f"classifier.1.{part}"] = tensor
            continue
        *block, layer = place.split(".")
        if not block:
            found[f"resnet.embedder.embedder.{kinds[layer[:-1]]}.{part}"] = tensor
            continue
        stage = f"resnet.encoder.stages.{int(block[0][5:]) - 1}.layers.{block[1]}"
        if "downsample" in place:
            found[f"{stage}.shortcut.{('convolution', 'normalization')[int(layer)]}.{part}"] = tensor
        else:
            found[f"{stage}.layer.{int(layer[-1]) - 1}.{kinds[layer[:-1]]}.{part}"] = tensor
    return found


def pytorch_cifar(state: State) -> State:
    """Return the tensors with the names of https://github.com/kuangliu/pytorch-cifar."""
    return {name.replace("downsample", "shortcut").replace("fc.", "linear."): t for name, t in state.items()}


def split(state: State) -> State:
    """Return a backbone with its linear layer beside it."""
    head = {f"classifier.{name[3:]}": tensor for name, tensor in state.items() if name.startswith("fc.")}
    return prefixed("backbone.", {name: t for name, t in state.items() if not name.startswith("fc.")}) | head


def converted(state: State, dtype: torch.dtype) -> State:
    """Return channels-last tensors in another dtype."""
    return {
        name: tensor.to(dtype).to(memory_format=torch.channels_last if tensor.ndim == 4 else torch.contiguous_format)
        for name, tensor in state.items()
        if tensor.is_floating_point()
    }


ARGS = argparse.Namespace(lr=0.1, data=pathlib.Path("/data"), sampler=np.float64(0.5))


@dataclass(frozen=True)
class Saved:
    """A way to save a network."""

    name: str
    content: Callable[[State], Any]
    taken_from: str | None = None
    classes: tuple[str, ...] = ("class 0", "class 1", "class 2")
    tolerance: float = 1e-4


SAVED = (
    Saved("parallel.pth", lambda s: {"epoch": 3, "state_dict": prefixed("module.", s)}, "`state_dict`, beside epoch"),
    Saved("compiled.pt", lambda s: prefixed("module._orig_mod.", s)),
    Saved(
        "lightning.ckpt",
        lambda s: {
            "state_dict": prefixed("net.", s) | {"loss.weight": torch.ones(3)},
            "hyper_parameters": {"args": ARGS, "class_names": list(NAMES)},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2, 2)}}}],
        },
        "`state_dict.net`, beside hyper_parameters, optimizer_states",
        NAMES,
    ),
    Saved("backbone.bin", split, "`backbone`"),
    Saved("nested.safetensors", lambda s: prefixed("model.encoder.", s), "`model.encoder`"),
    Saved(
        "timm.pth.tar",
        lambda s: {"arch": "resnet18", "state_dict": spoilt(s), "state_dict_ema": s, "args": ARGS},
        "averaged weights `state_dict_ema`, beside arch, state_dict, args",
    ),
    Saved(
        "torchvision.pth",
        lambda s: {
            "model": spoilt(s), "args": ARGS,
            "model_ema": prefixed("module.", s) | {"n_averaged": torch.tensor(5)},
        },
        "averaged weights `model_ema`, beside model, args",
    ),
    Saved("hugging-face.safetensors", hugging_face),
    Saved("bfloat16.pt", lambda s: converted(s, torch.bfloat16), tolerance=0.05),
    Saved(
        "cifar.t7",
        lambda s: {
            "net": prefixed("module.", pytorch_cifar(s)), "acc": 93.1,
            "class_to_idx": {"owl": 2, "cat": 0, "dog": 1},
        },
        "`net`, beside acc, class_to_idx",
        NAMES,
    ),
    Saved(
        "double.pt",
        lambda s: {"model_state_dict": converted(s, torch.float64), "id2label": {"0": "cat", "1": "dog", "2": "owl"}},
        "`model_state_dict`, beside id2label",
        NAMES,
    ),
    Saved("half.bin", lambda s: {"model": converted(hugging_face(s), torch.float16)}, "`model`", tolerance=0.01),
    Saved("dropout.pt", lambda s: {name.replace("fc.", "fc.1."): tensor for name, tensor in s.items()}),
)  # fmt: skip


@pytest.mark.parametrize("saved", SAVED, ids=lambda saved: saved.name)
def test_it_is_served_as_it_was_saved(saved: Saved, net: ResNet, expected: np.ndarray, tmp_path: pathlib.Path) -> None:
    """The network gives torchvision's logits and has the checkpoint's classes; the card says what was taken."""
    path, content = tmp_path / saved.name, saved.content(net.state_dict())
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    state, card = checkpoint.load(path, PREPARATION)
    network = fold(state, card)
    logits = openvino.floating(network, 1).forward(PIXELS)
    assert np.abs(logits - expected).max() < saved.tolerance * np.abs(expected).max()
    assert (card.completed(network).labels, card.taken_from) == (saved.classes, saved.taken_from)


@pytest.mark.parametrize(
    ("names", "expected"),
    [(NAMES, NAMES), (NAMES[:2], ("class 0", "class 1", "class 2"))],
    ids=["three names", "two names"],
)
def test_the_config_beside_names_the_classes(
    names: tuple[str, ...], expected: tuple[str, ...], net: ResNet, tmp_path: pathlib.Path
) -> None:
    """Hugging Face's `config.json` beside the weights names the classes, if it has a name for each."""
    save_file(hugging_face(net.state_dict()), tmp_path / "model.safetensors")
    config = {"architectures": ["ResNetForImageClassification"], "id2label": dict(enumerate(names))}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert checkpoint.inspect(tmp_path / "model.safetensors", PREPARATION).labels == expected
    state, card = checkpoint.load(tmp_path / "model.safetensors", PREPARATION)
    assert card.completed(fold(state, card)).labels == expected


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickled_module_is_read_without_its_code(
    is_zip: bool, net: ResNet, expected: np.ndarray, tmp_path: pathlib.Path
) -> None:
    """The weights of a whole module are read, in torch's current and in its older format."""
    torch.save({"model": net}, tmp_path / "own.pt", _use_new_zipfile_serialization=is_zip)
    engine = loading.load("fp32-cpu", threads=1, checkpoint=tmp_path / "own.pt", preparation=PREPARATION)
    assert np.abs(engine.run(PIXELS).logits - expected).max() < 1e-4 * np.abs(expected).max()


def shapes(depth: int = 18, **changes: tuple[int, ...]) -> State:
    """Return tensors without values, named and shaped as a network's."""
    with torch.device("meta"):
        return resnet(Architecture(depth, "plain", True, 3)).state_dict()


def without(state: State, *parts: str) -> State:
    """Return the tensors whose names have none of these parts."""
    return {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (without(shapes(), "fc."), "a backbone without its linear layer"),
        (without(shapes(), "running_"), "only parameters were saved"),
        (shapes() | {"layer1.0.se.fc.weight": torch.ones(2, 2)}, "squeeze-and-excitation"),
        ({"blocks.0.attn.qkv.weight": torch.ones(2, 2)}, "vision transformer"),
        (without(shapes(50), "conv1.") | {"conv1.0.weight": torch.ones(2, 2)}, "ResNet-C or -D"),
        (without(shapes(), "fc.") | {f"fc.{i}.weight": torch.ones(2, 2) for i in (0, 2)}, "more than one"),
    ],
)  # fmt: skip
def test_the_most_likely_cause_is_named(state: State, sentence: str) -> None:
    """Names of another network, or of a part of one, tell what was probably saved."""
    assert sentence in naming.cause(naming.find(state).tensors)


def test_a_refusal_shows_what_was_found(tmp_path: pathlib.Path) -> None:
    """The error has names and shapes, the keys of the container and the cause, in plain text."""
    state = without(resnet18(classes=3).state_dict(), "fc.") | {"head.weight": torch.ones(3, 3, 1, 1)}
    torch.save({"epoch": 3, "weights": state, "args": ARGS}, tmp_path / "own.pth")
    with pytest.raises(CheckpointError) as refused:
        checkpoint.inspect(tmp_path / "own.pth", PREPARATION)
    sentence = str(refused.value)
    assert "fc.weight is missing, expected (2, 512); head.weight is (3, 3, 1, 1), expected none" in sentence
    assert "the weights are `weights`, beside epoch, args; most likely it is a backbone" in sentence
    assert "\x1b" not in sentence


def test_a_file_without_tensors_is_refused(tmp_path: pathlib.Path) -> None:
    """The error lists the keys of the file."""
    torch.save({"epoch": 3, "args": ARGS}, tmp_path / "own.pt")
    with pytest.raises(CheckpointError, match=r"own.pt is no state dict \(it holds no tensors but epoch, args\)"):
        checkpoint.inspect(tmp_path / "own.pt", PREPARATION)
