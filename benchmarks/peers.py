"""Other ways to run the same weights on torch, each from uint8 pixels to logits.

A builder gets the thread count and a folder for its files, and returns a function that prepares one batch size.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.rows import sample
from models import checkpoint
from models.engines.floating import eager
from models.engines.network import fold
from models.engines.tensors import mean_and_scale
from models.resnet import resnet

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""`[N, 3, S, S] uint8` to `[N, classes] float32`."""
ForBatch = Callable[[int], Run]
"""Batch size to the function that runs batches of that size."""


class Pixels(nn.Module):
    """torchvision's network with the weights of the checkpoint, from raw pixels."""

    def __init__(self) -> None:
        super().__init__()
        state, card = checkpoint.load()
        plan = card.plan({name: array.shape for name, array in state.items()})
        self.net = resnet(plan.architecture)
        self.net.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        for name, module in self.net.named_modules():
            if name.startswith("layer") and name.count(".") == 1:
                self.net.set_submodule(name, Block(module))
        mean, scale = mean_and_scale(plan.input)
        self.mean, self.scale = nn.Buffer(mean), nn.Buffer(scale)
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.net((pixels.float() - self.mean) * self.scale)
        return logits


class Block(nn.Module):
    """torchvision's block with a module for each ReLU: torchao's quantizer refuses a module that runs twice."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        count = sum(name.startswith("conv") for name, _ in block.named_children())
        layers = [(getattr(block, f"conv{index}"), getattr(block, f"bn{index}")) for index in range(1, count + 1)]
        first = [(*layer, nn.ReLU(inplace=True)) for layer in layers[:-1]]
        self.first = nn.Sequential(*(module for layer in first for module in layer))
        self.last = nn.Sequential(*layers[-1])
        self.downsample: nn.Module | None = block.downsample  # type: ignore[assignment]
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y: Tensor = self.relu(self.last(self.first(x)) + shortcut)
        return y


def example(batch_size: int) -> Tensor:
    """Return a batch of the bundled sample as the network takes it, repeated if it is larger."""
    images = sample()
    return torch.from_numpy(np.resize(images, (batch_size, *images.shape[1:])))


def calibrate(net: Callable[[Tensor], object]) -> None:
    """Run `net` on the bundled sample, so that its observers see the ranges."""
    with torch.inference_mode():
        for batch in example(300).split(50):
            net(batch)


def as_run(function: Callable[[Tensor], Tensor]) -> Run:
    """Return a function of tensors as one of arrays."""

    @torch.inference_mode()
    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        array: NDArray[np.float32] = function(torch.from_numpy(pixels)).numpy()
        return array

    return run


def plain(threads: int, _folder: Path) -> ForBatch:
    """Build eager torchvision."""
    torch.set_num_threads(threads)
    run = as_run(Pixels())
    return lambda _size: run


def folded(threads: int, _folder: Path) -> ForBatch:
    """Build eager torch with BatchNorm folded in, channels-last."""
    torch.set_num_threads(threads)
    run = as_run(eager(fold(checkpoint.load()[0]), torch.device("cpu"), torch.float32)[0])
    return lambda _size: run


def inductor(threads: int, _folder: Path) -> ForBatch:
    """Build torch.compile with frozen weights, once per batch size: dynamic sizes are slower at batch 1."""
    from torch._inductor import config

    torch.set_num_threads(threads)
    config.freezing = True
    net = Pixels().to(memory_format=torch.channels_last)

    def compiled(_size: int) -> Run:
        torch.compiler.reset()
        with torch.no_grad():
            function = torch.compile(net, dynamic=False)

        @torch.no_grad()  # freezing and inference mode exclude each other
        def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            array: NDArray[np.float32] = function(torch.from_numpy(pixels)).numpy()
            return array

        return run

    return compiled


def jit(threads: int, _folder: Path) -> ForBatch:
    """Build torch.jit.optimize_for_inference (deprecated): BatchNorm folded, weights packed for oneDNN."""
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.optimize_for_inference(torch.jit.trace(Pixels(), example(8)))
    run = as_run(traced)
    return lambda _size: run


def dynamic(threads: int, _folder: Path) -> ForBatch:
    """Build torch.ao's quantize_dynamic (deprecated)."""
    torch.set_num_threads(threads)
    torch.backends.quantized.engine = "onednn"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import quantize_dynamic

        run = as_run(quantize_dynamic(Pixels(), {nn.Linear}, dtype=torch.qint8))
        run(example(1).numpy())  # the first run warns
    return lambda _size: run


def fx(threads: int, _folder: Path, engine: str = "onednn") -> ForBatch:
    """Build torch.ao's FX mode (deprecated) on one of torch's engines."""
    torch.set_num_threads(threads)
    torch.backends.quantized.engine = engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        prepared = prepare_fx(Pixels(), get_default_qconfig_mapping(engine), (example(8),))
        calibrate(prepared)
        run = as_run(convert_fx(prepared))
        run(example(1).numpy())
    return lambda _size: run


def pt2e(threads: int, folder: Path) -> ForBatch:
    """Build torchao's PT2E with the x86 Inductor quantizer, packaged by AOTInductor once per batch size."""
    torch.set_num_threads(threads)

    def packaged(size: int) -> Run:
        package = folder / f"pt2e-{size}.pt2"
        if not package.exists():
            _package_pt2e(size, package)
        return as_run(torch._inductor.aoti_load_package(str(package)))

    return packaged


def _package_pt2e(size: int, package: Path) -> None:
    from torch._inductor import config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    config.freezing = True
    config.cpp.enable_kernel_profile = False
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    shown = example(size)
    with torch.no_grad():
        prepared = prepare_pt2e(torch.export.export(Pixels(), (shown,)).module(), quantizer)
        for batch in example(320).split(size) if size <= 320 else [shown]:
            if len(batch) == size:
                prepared(batch)
        exported = torch.export.export(convert_pt2e(prepared), (shown,))
        torch._inductor.aoti_compile_and_package(exported, package_path=str(package))
