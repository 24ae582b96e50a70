"""The network on torch's own oneDNN operators, called as they are: FP32 with weights packed once and bias, ReLU and
residual addition inside the convolution; INT8 with uint8 between the layers.

The operators are those that Inductor lowers to; torch promises nothing about them, so tests/models pins what is relied
on here. They run in torch's thread pool.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.engines.built import Built, Forward
from models.engines.network import FoldedLayer, Layer, ResidualLayer, assemble, max_pool, mean_and_scale
from models.engines.quantized import Frame, QuantizedLayer, head_kernel
from models.topology import Network


def features(network: Network[FoldedLayer], _threads: int) -> Built:
    """`[N, 3, H, W] uint8` to `[N, 512] float32`, averaged over positions."""
    return Built.of(*_features(network))


def fp32(network: Network[FoldedLayer], _threads: int) -> Built:
    """`[N, 3, H, W] uint8` to `[N, 10] float32`."""
    averages, held = _features(network)
    weight, bias = network.head.weight, network.head.bias
    return Built.of(lambda pixels: F.linear(averages(pixels), weight, bias), [*held, weight, bias])


def _features(network: Network[FoldedLayer]) -> tuple[Forward, list[Tensor]]:
    """By the operators that Inductor calls: weights packed once, bias, ReLU and addition inside the convolution."""
    mean, scale = mean_and_scale(network.input)
    held: list[Tensor] = []
    convolve = torch.ops.mkldnn._convolution_pointwise.default
    convolve_onto = torch.ops.mkldnn._convolution_pointwise_.binary

    def pack(layer: FoldedLayer) -> tuple[Tensor, Tensor, list[int], list[int]]:
        spec, stride, padding = layer.spec, [layer.spec.stride] * 2, [layer.weight.shape[2] // 2] * 2
        # The scale of the normalisation goes into the first weights; its mean cannot, because of the zero padding.
        weight = layer.weight * scale if layer is network.stem else layer.weight
        shape = (1, weight.shape[1], spec.side, spec.side)
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, [1, 1], 1, shape)
        held.extend((packed, layer.bias))
        return packed, layer.bias, padding, stride

    def plain(layer: FoldedLayer) -> Layer:
        weight, bias, padding, stride = pack(layer)
        after = "relu" if layer.spec.relu else "none"
        return lambda x: convolve(x, weight, bias, padding, stride, [1, 1], 1, after, [], "")

    def residual(layer: FoldedLayer) -> ResidualLayer:
        weight, bias, padding, stride = pack(layer)
        return lambda x, accumulator: convolve_onto(
            accumulator, x, weight, bias, padding, stride, [1, 1], 1, "add", None, "relu", [], ""
        )

    convolved = assemble(network, plain, residual, max_pool)

    def forward(pixels: Tensor) -> Tensor:
        x = torch.sub(pixels.contiguous(memory_format=torch.channels_last), mean)
        return convolved(x).mean((2, 3))

    return forward, held


def int8(network: Network[QuantizedLayer], _threads: int) -> Built:
    """`[N, 3, H, W] uint8` to `[N, 10] float32`. Every scale is folded into the weight scales and biases, so that the
    operators run with input and output scale 1 and zero point 0."""
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

    features = assemble(network, plain, residual, max_pool)
    classify = _head(network.head, reads["fc"], held, constants)
    frame = Frame(network.input, network.stem.weight.shape[2] // 2)

    def forward(pixels: Tensor) -> Tensor:
        return classify(features(torch.from_numpy(frame(pixels.numpy())).permute(0, 3, 1, 2)))

    return Built.of(forward, held, constants).with_input(lambda: frame.nbytes)


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
    scale = head.weight_scale * (read / side**2)
    zero, bias, ones, none = torch.zeros(len(scale), dtype=torch.int32), head.bias, [1, 1], [0, 0]
    kernel = head_kernel(head)
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
