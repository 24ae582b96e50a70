"""The layers of a GPU's engine, on the CPU: torch's switches, and which backend builds them. test_gpu has the rest."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import checkpoint
from models.engines import floating, gpu_layers, graphs
from models.engines.network import fold
from models.engines.tensors import TensorFunction
from models.variants import GPU_BACKENDS


@pytest.mark.parametrize("tf32", [True, False])
def test_the_switches_agree_with_each_other(tf32: bool) -> None:
    """torch's two switches for TF32 in convolutions agree, as it demands, and matrix products never use TF32."""
    graphs.set_convolutions(tf32, search=True)
    assert torch.backends.cudnn.allow_tf32 == tf32
    assert torch.backends.cudnn.conv.fp32_precision == ("tf32" if tf32 else "ieee")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.benchmark
    graphs.set_convolutions(False, search=False)
    assert not torch.backends.cudnn.benchmark


def test_every_backend_has_a_builder() -> None:
    """The names of the setting `gpu_backend` are the rows of the table of builders."""
    assert tuple(gpu_layers.BUILDERS) == GPU_BACKENDS


def test_another_backend_is_refused(checkpoint_path: Path) -> None:
    """An unknown backend is an error that names the known ones."""
    network = fold(checkpoint.load(checkpoint_path)[0])
    with pytest.raises(ValueError, match="must be one of auto, cudnn, cudnn-fused, inductor, not 'tensorrt'"):
        gpu_layers.build("tensorrt", network, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("dtype", "exists", "name"),
    [
        (torch.float16, True, "cudnn-fused"),
        (torch.bfloat16, True, "cudnn-fused"),
        (torch.float16, False, "cudnn"),
        (torch.float32, True, "cudnn"),
    ],
)
def test_the_fastest_backend_that_runs_is_chosen(
    dtype: torch.dtype, exists: bool, name: str, checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision takes the fused kernels, unless cuDNN has none for the GPU; FP32 never does."""
    network = fold(checkpoint.load(checkpoint_path)[0])

    def fused(*given: Any) -> TensorFunction:
        def missing(_: Tensor) -> Tensor:
            raise RuntimeError("GET was unable to find an engine to execute this computation")

        function = floating.eager(*given)
        return function if exists else function._replace(forward=missing)

    monkeypatch.setitem(gpu_layers.BUILDERS, "cudnn-fused", fused)
    found, (forward, _) = gpu_layers.build("auto", network, torch.device("cpu"), dtype)
    assert found == name
    with torch.inference_mode():
        assert forward(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 10)


def test_torch_compile_traces_the_network_whole(
    checkpoint_path: Path, images: np.ndarray, golden: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.compile traces twelve batch sizes, more than its default, without a graph break, to the right logits."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    network = fold(checkpoint.load(checkpoint_path)[0])
    _, (forward, _) = gpu_layers.build("inductor", network, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        for size in range(1, 13):
            found = forward(torch.from_numpy(images[:size])).numpy()
            assert np.abs(found - golden[:size]).max() < 1e-4
