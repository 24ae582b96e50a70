"""Static INT8 on oneDNN's quantized operators: uint8 pixels in, uint8 between the layers, float32 logits out.

Every scale is folded into the weight scales and biases, so that the operators run with input and output scale 1 and
zero point 0. The operators (torch.ops.onednn.q*) are those that Inductor lowers to; torch promises nothing about them,
so tests/models pins what is relied on here.
"""

import torch
from torch import Tensor

from models.engines.network import Layer, ResidualLayer, assemble
from models.engines.quantized import QuantizedLayer, padding_pixels
from models.topology import Input, Network
from models.variants import VariantUnavailable

LARGEST_SUM = 2**31 - 1


def build(network: Network[QuantizedLayer]) -> tuple[Layer, list[Tensor], list[Tensor]]:
    """`[N, 3, H, W] uint8` to `[N, 10] float32`, the weights and biases it holds, and the constants."""
    held: list[Tensor] = []
    constants: list[Tensor] = []
    convolve = torch.ops.onednn.qconv2d_pointwise.default
    convolve_onto = torch.ops.onednn.qconv2d_pointwise.binary
    reads, adds = _inputs(network)

    def pack(layer: QuantizedLayer, lift: float) -> tuple[Tensor, Tensor, Tensor, Tensor, list[int], list[int]]:
        """`lift` is added to the bias, in units of the output."""
        spec = layer.spec
        stem = layer is network.stem
        stride, padding = [spec.stride] * 2, [0 if stem else layer.weight.shape[2] // 2] * 2
        side = spec.side + 2 * (layer.weight.shape[2] // 2) if stem else spec.side
        scale = layer.weight_scale * (reads[spec.name] / layer.output_scale)
        bias = layer.bias / layer.output_scale + lift
        zero = torch.zeros(len(scale), dtype=torch.int32)
        # Without the shape some CPUs lay the weights out anew at every call.
        shape = [1, layer.weight.shape[1], side, side]
        packed = torch.ops.onednn.qconv_prepack(layer.weight, scale, 1.0, 0, stride, padding, [1, 1], 1, shape)
        held.extend((packed, bias))
        constants.extend((scale, zero))
        return packed, scale, zero, bias, stride, padding

    def plain(layer: QuantizedLayer) -> Layer:
        weight, scale, zero, bias, stride, padding = pack(layer, layer.offset)
        after = "relu" if layer.spec.relu else "none"
        return lambda x: convolve(
            x, 1.0, 0, weight, scale, zero, bias, stride, padding, [1, 1], 1, 1.0, 0, torch.uint8, after, [], ""
        )

    def residual(layer: QuantizedLayer) -> ResidualLayer:
        added_scale, added_offset = adds[layer.spec.name]
        factor = added_scale / layer.output_scale
        weight, scale, zero, bias, stride, padding = pack(layer, -added_offset * factor)

        def add(x: Tensor, accumulator: Tensor) -> Tensor:
            convolve_onto(
                x, 1.0, 0, weight, scale, zero, accumulator, bias, stride, padding, [1, 1], 1, 1.0, 0, torch.uint8,
                factor, 0, "sum", 1.0, "relu", [], "",
            )  # fmt: skip
            return accumulator  # "sum" writes there, whatever it returns

        return add

    features = assemble(network, plain, residual)
    classify = _head(network.head, reads["fc"], held, constants)
    frame = Frame(network.input, network.stem.weight.shape[2] // 2)
    return lambda pixels: classify(features(frame(pixels))), held, constants


def _inputs(network: Network[QuantizedLayer]) -> tuple[dict[str, float], dict[str, tuple[float, int]]]:
    """By layer name: the scale of what it reads, and scale and offset of what a residual layer adds."""
    reads, adds = {network.stem.spec.name: 1.0}, {}
    x = network.stem
    for block in network.blocks:
        reads[block.first.spec.name] = x.output_scale
        reads[block.second.spec.name] = block.first.output_scale
        if block.shortcut:
            reads[block.shortcut.spec.name] = x.output_scale
        added = block.shortcut or x
        adds[block.second.spec.name] = (added.output_scale, added.offset)
        x = block.second
    reads[network.head.spec.name] = x.output_scale
    return reads, adds


def _head(head: QuantizedLayer, read: float, held: list[Tensor], constants: list[Tensor]) -> Layer:
    """Average and linear layer as one convolution: all positions have the same weights, at their share of the scale.

    As a linear layer the repeated weights would be padded to 64 outputs, 0.4 MB more than a convolution's 16.
    """
    classify = torch.ops.onednn.qconv2d_pointwise.default
    side = head.spec.side
    weights = head.weight.int()
    most = max(int(weights.clamp(min=0).sum(1).max()), int(-weights.clamp(max=0).sum(1).min()))
    if 255 * side**2 * most > LARGEST_SUM:
        raise VariantUnavailable(
            f"int8 could overflow on {side**2} positions before the linear layer; use a smaller input size"
        )
    scale = head.weight_scale * (read / side**2)
    zero, bias, ones, none = torch.zeros(len(scale), dtype=torch.int32), head.bias, [1, 1], [0, 0]
    kernel = head.weight[:, :, None, None].repeat(1, 1, side, side)
    weight = torch.ops.onednn.qconv_prepack(
        kernel, scale, 1.0, 0, ones, none, ones, 1, [1, kernel.shape[1], side, side]
    )
    held.extend((weight, bias))
    constants.extend((scale, zero))

    def apply(x: Tensor) -> Tensor:
        logits: Tensor = classify(
            x, 1.0, 0, weight, scale, zero, bias, ones, none, ones, 1, 1.0, 0, torch.float32, "none", [], ""
        )
        return logits.flatten(1)

    return apply


class Frame:
    """Pixels in a frame as wide as the stem reads beyond them, channels last, with QuantizedLayer's fourth channel.

    The buffer of the largest batch so far is kept; only its inside is written again.
    """

    def __init__(self, taken: Input, width: int) -> None:
        self._pad = torch.tensor([*padding_pixels(taken), 1], dtype=torch.uint8)
        self._inside = slice(width, width + taken.side)
        self._side = taken.side + 2 * width
        self._buffer = self._empty(1)

    def _empty(self, size: int) -> Tensor:
        frame = self._pad.repeat(size, self._side, self._side, 1)
        frame[:, self._inside, self._inside, 3] = 0
        return frame

    def __call__(self, pixels: Tensor) -> Tensor:
        if len(pixels) > len(self._buffer):
            self._buffer = self._empty(len(pixels))
        frame = self._buffer[: len(pixels)]
        frame[:, self._inside, self._inside, :3] = pixels.permute(0, 2, 3, 1)
        return frame.permute(0, 3, 1, 2)
