"""Builders of the variants that OpenVINO runs: weights from files, a network function, an engine around it.

Imports no torch.
"""

from pathlib import Path
from typing import Any

from common import machine
from models import calibrate, calibration, checkpoint, files
from models.calibration import Calibration
from models.card import names_of, read_card
from models.engines import openvino, precision, quantized
from models.engines.building import Order, Origin, Resident, describe
from models.engines.cpu import CpuEngine
from models.engines.function import ArrayFunction
from models.engines.network import FoldedLayer, fold
from models.engines.quantized import QuantizedLayer
from models.topology import Network


def floating_point(order: Order) -> CpuEngine:
    """Build the network on OpenVINO in the floating-point dtype of its row.

    Raises:
        VariantUnavailable: the CPU does not compute natively in the dtype, or OpenVINO runs another one.
    """
    precision.check_cpu(order.variant)
    state, card = checkpoint.load(order.path, order.preparation)
    network = fold(state, card)
    hint = precision.HINTS[order.variant.dtype]
    function = openvino.floating(network, order.threads, hint)
    size = card.bytes if hint == "f32" else checkpoint.half_precision_bytes(state)
    return _on_openvino(order, network, Origin(card, size), function)


def int8(order: Order) -> CpuEngine:
    """Build static INT8 on OpenVINO, from a checkpoint and a calibration or from an INT8 artifact."""
    is_artifact = order.path.name.endswith(files.ARTIFACT_SUFFIX)
    network, origin, notes = _from_artifact(order) if is_artifact else _from_checkpoint(order)
    if not quantized.has_integer_head(network.head):
        notes = (*notes, "the linear layer has INT8 weights and computes in float32")
    if not machine.has_vnni():
        notes = (*notes, "no VNNI on this CPU: weights of 7 bits, so that no sum saturates")
    if floating := [layer.spec.name for layer in network if layer.is_floating]:
        notes = (*notes, f"kept in FP32: {', '.join(floating)}")
    return _on_openvino(order, network, origin, openvino.int8(network, order.threads), *notes)


def _on_openvino(
    order: Order, network: Network[Any], origin: Origin, function: ArrayFunction, *notes: str
) -> CpuEngine:
    """Return the engine around a compiled graph.

    Raises:
        VariantUnavailable: OpenVINO does not run its convolutions in the precision of the row.
    """
    found = function.convolution_precision
    has_floating = any(isinstance(layer, QuantizedLayer) and layer.is_floating for layer in network)
    precision.check_convolutions(order.variant, found, frozenset({"f32"} if has_floating else ()))
    info = describe(order, network, origin, resident(function), "openvino", *notes, convolution_precision=found)
    return CpuEngine(order.variant, info, function)


Quantized = tuple[Network[QuantizedLayer], Origin, tuple[str, ...]]
"""The INT8 network, its origin, and notes for the info."""


def _from_artifact(order: Order) -> Quantized:
    card = read_card(order.path, order.preparation)  # raises where a flag contradicts the artifact
    network, about = quantized.deserialize(order.path)
    network = network if machine.has_vnni() else quantized.narrowed(network)
    size = order.path.stat().st_size
    return network, Origin(card, size, about["calibration_sha256"]), ()


def _from_checkpoint(order: Order) -> Quantized:
    state, card = checkpoint.load(order.path, order.preparation)
    folded = fold(state, card)
    ranges, notes = _calibration(order.path, card.sha256, folded, order.preparation.calibration_images)
    # straight from the real weights: integers of 8 bits that are then narrowed lose 3 dB more (signal-to-noise ratio)
    limit = quantized.FULL_LIMIT if machine.has_vnni() else quantized.SAFE_LIMIT
    network = quantized.quantize(folded, ranges.ranges, limit)
    classes = names_of(card, network.architecture.classes)
    size = len(quantized.serialize(network, card.sha256, ranges.sha256, classes))
    return network, Origin(card, size, ranges.sha256), notes


def _calibration(
    path: Path, sha256: str, network: Network[FoldedLayer], folder: Path | None
) -> tuple[Calibration, tuple[str, ...]]:
    """Return the calibration to use, and notes on it.

    The images in `folder` come first, then the calibration beside the checkpoint if it is for images of this size and
    normalisation, then the bundled images.
    """
    place = files.beside(path, calibration.SUFFIX)
    if folder is None and place.exists():
        found = calibration.load(place, sha256)
        if found.input == network.input:
            return found, ()
    found = calibrate.at_load(network, sha256, folder)
    return found, () if folder else (f"ranges of the {found.images} bundled images, which are of CIFAR-10's test set",)


def resident(function: ArrayFunction) -> Resident:
    """Return the bytes that the function holds."""
    return Resident(function.parameter_bytes, function.buffer_bytes)
