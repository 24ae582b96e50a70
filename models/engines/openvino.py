"""The network as OpenVINO graphs: in floating point, and in INT8, which the CPU plugin runs in integer convolutions.

A graph is built from the layers and compiled in memory when a variant is loaded, once for every batch size; this needs
no file, no converter and no C compiler. In INT8 the weights are s8 constants with a scale per channel, and each
activation passes a FakeQuantize with its calibrated scale and offset: the plugin runs the layers between two of them in
integers
(https://docs.openvino.ai/2026/documentation/openvino-extensibility/openvino-plugin-library/advanced-guides/low-precision-transformations.html).
"""

import gc
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # else it reports each import over the network
CONVERTER = "openvino.tools.ovc"
sys.modules.setdefault(CONVERTER, None)  # type: ignore[arg-type] # a converter of files, a third of the import's time

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as op

from common import machine
from models import measure
from models.engines import precision
from models.engines.constants import Constants
from models.engines.function import ArrayForward, ArrayFunction
from models.engines.network import FoldedLayer, assemble, mean_and_scale
from models.engines.quantized import LEVELS, Frame, QuantizedLayer, has_integer_head, head_kernel
from models.topology import Network, Spec

if sys.modules[CONVERTER] is None:
    del sys.modules[CONVERTER]  # others may import it

Node = Any
"""An `openvino.Node`: the output of an operation, `[N, C, H, W]`."""
Array = NDArray[Any]
LEAST_SLICE, SLICE_PER_THREAD = 16, 8
"""The most images that run at once: so many, or so many a thread if that is more. Larger batches run as such slices.

OpenVINO prepares each number of images by itself: for each it needs 2 MB, and a start must run each once. On two cores
batches of 16 and 32 take the same time per image."""


class Compiled:
    """A graph compiled for the CPU, and the one request that runs it.

    `hint` is the precision for the layers that are not quantized, one of `precision.HINTS`; the CPU may ignore it.
    """

    def __init__(self, pixels: Node, result: Node, threads: int, hint: str = "f32") -> None:
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": hint,  # never left out: some CPUs would run FP32 in bfloat16
            # Without pinning, two threads may share one of two cores for seconds. With it, processes that have fewer
            # threads than there are cores would all run on the first ones.
            "ENABLE_CPU_PINNING": threads >= machine.affinity(),
            # else a linear layer with INT8 weights gets rounded activations on a CPU with VNNI
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        model = openvino.Model([result], [pixels], "resnet")
        self.network = openvino.Core().compile_model(model, "CPU", hints)
        self.convolution_precision = precision.of_convolutions(self.network)
        self.slice = max(LEAST_SLICE, SLICE_PER_THREAD * threads)
        self._request = self.network.create_infer_request()
        self._given: NDArray[np.uint8] | None = None

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if pixels is not self._given:
            self._request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))
            self._given = pixels
        self._request.infer(share_outputs=True)
        array: NDArray[np.float32] = self._request.get_output_tensor().data.copy()
        return array

    @property
    def weight_bytes(self) -> int:
        """Resident bytes of weights and biases, as packed for oneDNN; the given ones are in a file (Constants)."""
        constants = [node for node in self.network.get_runtime_model().get_ops() if _kind(node) == "Const"]
        packed = precision.BYTES.get(self.convolution_precision)
        return sum(_nbytes(node, packed) for node in constants)

    def activation_peak(self, forward: Callable[[], object]) -> int:
        """Return the bytes by which a batch makes the process grow, after its scratch memory was released."""
        self.network.release_memory()
        return measure.growth(forward)


def _nbytes(node: Node, most: int | None = None) -> int:
    """Return the bytes of a constant, with at most `most` for a value."""
    size = int(node.get_element_type().size)
    return int(np.prod(node.get_output_shape(0))) * min(size, most or size)


def _kind(node: Node) -> str:
    return str(node.get_rt_info()["layerType"].value)


def floating(network: Network[FoldedLayer], threads: int, hint: str = "f32") -> ArrayFunction:
    """Return `[N, 3, S, S] uint8` to `[N, classes] float32` logits. `hint` is the precision, see `Compiled`."""
    head = network.head

    def classify(averages: Node) -> Node:
        return op.add(op.matmul(averages, op.constant(head.weight), False, True), op.constant(head.bias))

    constants = Constants()

    def half(weight: Array) -> Node:
        return op.convert(constants.add(weight.astype(np.float16)), np.float32)

    # OpenVINO converts FP32 weights to FP16 in memory, where it then keeps them beside the packed ones
    constant = half if hint == "f16" else constants.add
    return _function(Compiled(*_floating(network, classify, constant), threads, hint), constants)


def features(network: Network[FoldedLayer], threads: int) -> ArrayFunction:
    """Return `[N, 3, S, S] uint8` to `[N, C] float32` features averaged over positions, in FP32."""
    constants = Constants()
    return _function(Compiled(*_floating(network, lambda averages: averages, constants.add), threads), constants)


def outputs(network: Network[FoldedLayer]) -> Callable[[NDArray[np.uint8]], dict[str, Array]]:
    """Return `[N, 3, S, S] uint8` to the output of each convolution by its name, in FP32, as calibration sees them."""
    nodes: dict[str, Node] = {}
    pixels, _ = _floating(network, lambda averages: averages, see=nodes.__setitem__)
    model = openvino.Model(list(nodes.values()), [pixels], "observed")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: dict(zip(nodes, compiled(batch).values(), strict=True))


def _unseen(name: str, node: Node) -> None:
    """Ignore an output."""


def _floating(
    network: Network[FoldedLayer],
    classify: Callable[[Node], Node],
    constant: Callable[[Array], Node] = op.constant,
    see: Callable[[str, Node], None] = _unseen,
) -> tuple[Node, Node]:
    """Return the ends of the FP32 graph: pixels `[N, 3, S, S] uint8`, and what `classify` makes of the averages.

    `constant` makes the nodes of the weights; `see` gets the output of each convolution with its name.
    """
    mean, scale = mean_and_scale(network.input)

    def convolve(x: Node, layer: FoldedLayer) -> Node:
        # The first weights take in the scale of the normalisation. They cannot take in its mean: the padding is zero.
        weight = layer.weight * scale if layer is network.stem else layer.weight
        return _convolution(x, constant(weight), layer.bias, layer.spec, layer.weight.shape[2] // 2)

    def seen(layer: FoldedLayer, y: Node) -> Node:
        see(layer.spec.name, y)
        return y

    def plain(layer: FoldedLayer) -> Callable[[Node], Node]:
        return lambda x: seen(layer, op.relu(convolve(x, layer)) if layer.spec.relu else convolve(x, layer))

    def residual(layer: FoldedLayer) -> Callable[[Node, Node], Node]:
        return lambda x, added: seen(layer, op.relu(op.add(convolve(x, layer), added)))

    side = network.input.side
    pixels = op.parameter([-1, 3, side, side], np.uint8)
    normalised = op.subtract(op.convert(pixels, np.float32), op.constant(mean[None]))
    last = assemble(network, plain, residual, _max_pool)(normalised)
    return pixels, classify(op.reduce_mean(last, op.constant(np.array([2, 3])), False))


class Activation(NamedTuple):
    """An output, as layers in floating point read it and as integer layers read it."""

    exact: Node
    rounded: Node


def int8(network: Network[QuantizedLayer], threads: int, *, simulated: bool = False) -> ArrayFunction:
    """Return `[N, 3, S, S] uint8` to `[N, classes] float32` logits, with every convolution in integers.

    The head runs in integers, too, unless the network is large: see `quantized.has_integer_head`. Layers that stay in
    floating point run in FP32. `simulated` runs all layers in FP32 on the rounded values.
    """
    frame = Frame(network.input, network.stem.weight.shape[2] // 2)
    constants = Constants()
    compiled = Compiled(*int8_graph(network, frame.side, constants.add, simulated=simulated), threads)
    return _function(compiled, constants, lambda pixels: compiled(frame(pixels))).with_input(lambda: frame.nbytes)


def int8_graph(
    network: Network[QuantizedLayer],
    side: int,
    constant: Callable[[Array], Node] = op.constant,
    *,
    simulated: bool = False,
) -> tuple[Node, Node]:
    """Return the ends of the INT8 graph: its input, framed pixels `[N, side, side, 4] uint8`, and its logits.

    `constant` makes the nodes of the weights. See `int8` for `simulated`.
    """

    def convolve(x: Node, layer: QuantizedLayer, weight: Array, scale: Array, padding: int) -> Node:
        shaped = scale.reshape(-1, 1, 1, 1)
        if simulated or layer.is_floating:
            return _convolution(x, constant(weight * shaped), layer.bias, layer.spec, padding)
        real = op.multiply(op.convert(constant(weight), np.float32), op.constant(shaped))
        return _convolution(x, real, layer.bias, layer.spec, padding)

    def of(x: Activation, layer: QuantizedLayer) -> Node:
        padding = 0 if layer is network.stem else layer.weight.shape[2] // 2
        return convolve(_read(x, layer), layer, layer.weight, layer.weight_scale, padding)

    def plain(layer: QuantizedLayer) -> Callable[[Activation], Activation]:
        after = op.relu if layer.spec.relu else _unchanged
        return lambda x: _requantized(after(of(x, layer)), layer)

    def residual(layer: QuantizedLayer) -> Callable[[Activation, Activation], Activation]:
        return lambda x, added: _requantized(op.relu(op.add(of(x, layer), _read(added, layer))), layer)

    def pool(x: Activation) -> Activation:
        return Activation(_max_pool(x.exact), _max_pool(x.rounded))

    pixels = op.parameter([-1, side, side, 4], np.uint8)
    framed = op.convert(op.transpose(pixels, op.constant(np.array([0, 3, 1, 2]))), np.float32)
    exact = _fake_quantize(framed, 0.0, 255.0)  # changes no pixel; tells the plugin that they are integers
    last = assemble(network, plain, residual, pool)(Activation(framed, exact))
    head = network.head
    if not has_integer_head(head):
        return pixels, _float_head(_read(last, head), head, constant)
    logits = convolve(last.rounded, head, head_kernel(head), head.weight_scale / head.spec.side**2, 0)
    return pixels, op.reshape(logits, op.constant(np.array([0, -1])), True)


def _read(x: Activation, layer: QuantizedLayer) -> Node:
    """Return the output as the layer reads it."""
    return x.exact if layer.is_floating else x.rounded


def _unchanged(x: Node) -> Node:
    return x


def _float_head(x: Node, head: QuantizedLayer, constant: Callable[[Array], Node]) -> Node:
    """Return average and linear layer in floating point; their weights may be integers."""
    averages = op.reduce_mean(x, op.constant(np.array([2, 3])), False)
    weight = op.multiply(op.convert(constant(head.weight), np.float32), op.constant(head.weight_scale.reshape(-1, 1)))
    return op.add(op.matmul(averages, weight, False, True), op.constant(head.bias))


def _function(compiled: Compiled, constants: Constants, run: ArrayForward | None = None) -> ArrayFunction:
    gc.collect()  # the source graph refers to itself and keeps the weights alive
    forward = in_slices(run or compiled, compiled.slice)
    return ArrayFunction(
        forward,
        compiled.weight_bytes,
        compiled.activation_peak,
        constants.release,
        convolution_precision=compiled.convolution_precision,
        slice=compiled.slice,
    )


def in_slices(run: ArrayForward, most: int) -> ArrayForward:
    """Return `run` on at most so many images at once."""

    def forward(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(pixels) <= most:
            return run(pixels)
        return np.concatenate([run(pixels[first : first + most]) for first in range(0, len(pixels), most)])

    return forward


def _convolution(x: Node, weight: Node, bias: Array, spec: Spec, padding: int) -> Node:
    border = [padding, padding]
    y = op.convolution(x, weight, [spec.stride] * 2, border, border, [1, 1])
    return op.add(y, op.constant(bias.reshape(1, -1, 1, 1)))


def _requantized(x: Node, layer: QuantizedLayer) -> Activation:
    low = -layer.offset * layer.output_scale
    return Activation(x, _fake_quantize(x, low, low + (layer.levels - 1) * layer.output_scale, layer.levels))


def _fake_quantize(x: Node, low: float, high: float, levels: int = LEVELS) -> Node:
    bounds = [op.constant(np.float32(bound)) for bound in (low, high)]
    return op.fake_quantize(x, *bounds, *bounds, levels)


def _max_pool(x: Node) -> Node:
    return op.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
