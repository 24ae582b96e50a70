"""Builders of the variants that OpenVINO runs: weights from files, a network function, an engine around it.

Imports no torch.
"""

from pathlib import Path

from common import machine
from models import calibrate, calibration, checkpoint, files
from models.calibration import Calibration
from models.card import read_card
from models.engines import openvino, quantized
from models.engines.building import Order, Origin, Resident, describe
from models.engines.cpu import CpuEngine
from models.engines.function import ArrayFunction
from models.engines.network import FoldedLayer, fold
from models.engines.quantized import QuantizedLayer
from models.topology import Network


def fp32(order: Order) -> CpuEngine:
    """Build the network in FP32 on OpenVINO."""
    state, card = checkpoint.load(order.path, order.preparation)
    network = fold(state, card)
    function = openvino.fp32(network, order.threads)
    info = describe(order, network, Origin(card.sha256, card.bytes), resident(function), "openvino")
    return CpuEngine(order.variant, info, function)


def int8(order: Order) -> CpuEngine:
    """Build static INT8 on OpenVINO, from a checkpoint and a calibration or from an INT8 artifact."""
    is_artifact = order.path.name.endswith(files.ARTIFACT_SUFFIX)
    network, origin, notes = _from_artifact(order) if is_artifact else _from_checkpoint(order)
    if not machine.has_vnni():
        network = quantized.narrowed(network)
        notes = (*notes, "no VNNI on this CPU: weights of 7 bits, so that no sum saturates")
    function = openvino.int8(network, order.threads)
    info = describe(order, network, origin, resident(function), "openvino", *notes)
    return CpuEngine(order.variant, info, function)


Quantized = tuple[Network[QuantizedLayer], Origin, tuple[str, ...]]
"""The INT8 network, its origin, and notes for the info."""


def _from_artifact(order: Order) -> Quantized:
    read_card(order.path, order.preparation)  # raises where a flag contradicts the artifact
    network, about = quantized.deserialize(order.path)
    size = order.path.stat().st_size
    return network, Origin(about["checkpoint_sha256"], size, about["calibration_sha256"]), ()


def _from_checkpoint(order: Order) -> Quantized:
    state, card = checkpoint.load(order.path, order.preparation)
    folded = fold(state, card)
    ranges, notes = _calibration(order.path, card.sha256, folded, order.preparation.calibration_images)
    network = quantized.quantize(folded, ranges.ranges, quantized.FULL_LIMIT)
    size = len(quantized.serialize(network, card.sha256, ranges.sha256, card.classes))
    return network, Origin(card.sha256, size, ranges.sha256), notes


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
