"""INT8 on torch alone: the oneDNN operators that Inductor lowers to, called one by one, with uint8 between the layers.

A peer row of benchmarks.engines. torch promises nothing about these operators, so tests/test_bench_onednn.py checks the
logits. They run in torch's thread pool.
"""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.peers import ForBatch, as_run
from common import machine
from models import calibration, checkpoint, files
from models.engines.network import assemble, fold
from models.engines.quantized import FULL_LIMIT, Frame, QuantizedLayer, head_kernel, narrowed, quantize
from models.engines.tensors import Layer, ResidualLayer, TensorForward, max_pool
from models.topology import Network


def int8(threads: int, _folder: Path) -> ForBatch:
    """Build the row: the bundled checkpoint with its own calibration, weights of 7 bits on a CPU without VNNI."""
    torch.set_num_threads(threads)
    state, card = checkpoint.load()
    ranges = calibration.load(files.beside(files.default_path(), calibration.SUFFIX), card.sha256).ranges
    network = quantize(fold(state, card), ranges, FULL_LIMIT)
    run = as_run(forward_of(network if machine.has_vnni() else narrowed(network)))
    return lambda _size: run


class Packed(NamedTuple):
    """A convolution's constants as the operators take them."""

    weight: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor
    stride: list[int]
    padding: list[int]


def forward_of(network: Network[QuantizedLayer]) -> TensorForward:
    """Return the network as a function of pixels.

    Every scale is folded into the weight scales and biases, so that the operators run with input and output scale 1 and
    zero point 0.
    """
    convolve = torch.ops.onednn.qconv2d_pointwise.default
    convolve_onto = torch.ops.onednn.qconv2d_pointwise.binary
    reads, adds = _inputs(network)

    def pack(layer: QuantizedLayer, lift: float) -> Packed:
        """Pack a layer; `lift` is added to its bias, in units of the output."""
        is_stem, half, spec = layer is network.stem, layer.weight.shape[2] // 2, layer.spec
        stride, padding = [spec.stride] * 2, [0 if is_stem else half] * 2
        side = spec.side + 2 * half if is_stem else spec.side
        scale = torch.from_numpy(layer.weight_scale) * (reads[spec.name] / layer.output_scale)
        shape = [1, layer.weight.shape[1], side, side]  # without it some CPUs lay the weights out anew at every call
        weight = torch.ops.onednn.qconv_prepack(
            torch.from_numpy(layer.weight), scale, 1.0, 0, stride, padding, [1, 1], 1, shape
        )
        zero = torch.zeros(len(scale), dtype=torch.int32)
        bias = torch.from_numpy(layer.bias) / layer.output_scale + lift
        return Packed(weight, scale, zero, bias, stride, padding)

    def plain(layer: QuantizedLayer) -> Layer:
        p, after = pack(layer, layer.offset), "relu" if layer.spec.relu else "none"
        return lambda x: convolve(
            x, 1.0, 0, p.weight, p.scale, p.zero, p.bias, p.stride, p.padding, [1, 1], 1, 1.0, 0, torch.uint8, after,
            [], "",
        )  # fmt: skip

    def residual(layer: QuantizedLayer) -> ResidualLayer:
        added_scale, added_offset = adds[layer.spec.name]
        factor = added_scale / layer.output_scale
        p = pack(layer, -added_offset * factor)

        def add(x: Tensor, accumulator: Tensor) -> Tensor:
            convolve_onto(
                x, 1.0, 0, p.weight, p.scale, p.zero, accumulator, p.bias, p.stride, p.padding, [1, 1], 1, 1.0, 0,
                torch.uint8, factor, 0, "sum", 1.0, "relu", [], "",
            )  # fmt: skip
            return accumulator  # "sum" writes there, whatever it returns

        return add

    features = assemble(network, plain, residual, max_pool)
    classify, frame = _head(network.head, reads["fc"]), Frame(network.input, network.stem.weight.shape[2] // 2)
    return lambda pixels: classify(features(torch.from_numpy(frame(pixels.numpy())).permute(0, 3, 1, 2)))


def _inputs(network: Network[QuantizedLayer]) -> tuple[dict[str, float], dict[str, tuple[float, int]]]:
    """Return, by layer name, the scale of a layer's input, and scale and offset of the image a residual layer adds."""
    reads, adds = {network.stem.spec.name: 1.0}, {}
    x = network.stem
    for block in network.blocks:
        for before, layer in pairwise((x, *block.layers)):
            reads[layer.spec.name] = before.output_scale
        if block.shortcut:
            reads[block.shortcut.spec.name] = x.output_scale
        added = block.shortcut or x
        adds[block.layers[-1].spec.name] = (added.output_scale, added.offset)
        x = block.layers[-1]
    reads[network.head.spec.name] = x.output_scale
    return reads, adds


def _head(head: QuantizedLayer, read: float) -> Layer:
    """Return average and linear layer as one convolution, whose weights are the same at every position."""
    classify = torch.ops.onednn.qconv2d_pointwise.default
    kernel, side, ones, none = torch.from_numpy(head_kernel(head)), head.spec.side, [1, 1], [0, 0]
    scale, bias = torch.from_numpy(head.weight_scale) * (read / side**2), torch.from_numpy(head.bias)
    zero = torch.zeros(len(bias), dtype=torch.int32)
    shape = [1, kernel.shape[1], side, side]
    weight = torch.ops.onednn.qconv_prepack(kernel, scale, 1.0, 0, ones, none, ones, 1, shape)

    def apply(x: Tensor) -> Tensor:
        logits: Tensor = classify(
            x, 1.0, 0, weight, scale, zero, bias, ones, none, ones, 1, 1.0, 0, torch.float32, "none", [], ""
        )
        return logits.flatten(1)

    return apply
