"""Compare two variants or artifacts layer by layer: `python -m models.study.layers fp32 int8`.

Prints a table and draws a picture: for each layer how far its weights and its outputs are from the first one's, and how
many of its outputs are clipped. Each output is also computed from the first one's exact inputs: the layer at fault is
the one whose own error is large, not the one that inherits it.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import Tensor

from models import calibrate, calibration, checkpoint, cifar10, files, flags, preprocess
from models.command import one_sentence
from models.engines import quantized
from models.engines.network import FoldedLayer, assemble, fold, mean_and_scale
from models.engines.quantized import QuantizedLayer
from models.files import ARTIFACT_SUFFIX, CheckpointError
from models.study import flows
from models.study.flows import AnyLayer, Flow
from models.study.results import MOST_DB
from models.topology import Input, Network

IMAGES = 64
PRECISIONS = ("fp32", "int8")
"""Variants that can be named; everything else is a path."""


@dataclass(frozen=True)
class LayerReport:
    """One layer of the second network against the same layer of the first."""

    layer: str
    weight_sqnr_db: float
    sqnr_db: float
    """Of the rounded output, errors of earlier layers included."""
    own_sqnr_db: float
    """Of the rounded output that the second's layer makes of the first one's inputs."""
    cosine: float
    """Of the outputs, over all values."""
    largest_error: float
    """In real units."""
    clipped: float
    """Share of the outputs (0 to 1) that lie above or below the range, zeros of a ReLU aside."""
    range: tuple[float, float]
    """That the second can represent; (0, 0) where it does not round."""
    seen: tuple[float, float]
    """Least and largest output of the first."""


class Step(tuple[Flow, Flow, Flow]):
    """Outputs of the first network, of the second, and of the second's layer on the first one's inputs."""


def compare(first: Network[Any], second: Network[Any], images: cifar10.Images) -> tuple[LayerReport, ...]:
    """Return a report for each layer, in the order in which they run, over `[N, 3, S, S] uint8` images."""
    others = {layer.spec.name: layer for layer in second}
    found: list[LayerReport] = []

    def run(layer: AnyLayer, x: Step, added: Step | None = None) -> Step:
        ours, mine = layer, others[layer.spec.name]
        y = flows.finished(ours, flows.convolved(ours, x[0]), added and added[0])
        z = flows.finished(mine, flows.convolved(mine, x[1]), added and added[1])
        own = flows.finished(mine, flows.convolved(mine, x[2]), added and added[2])
        found.append(report(layer, mine, first.input, y.rounded, z, own.rounded))
        return Step((y, z, _as_read(mine, y)))

    def plain(layer: AnyLayer) -> Callable[[Step], Step]:
        return lambda x: run(layer, x)

    def residual(layer: AnyLayer) -> Callable[[Step, Step], Step]:
        return lambda x, added: run(layer, x, added)

    with torch.inference_mode():
        begin = flows.start(first, images), flows.start(second, images)
        x = assemble(first, plain, residual, lambda x: Step(map(flows.pooled, x)))(Step((*begin, begin[1])))
        y, z = flows.logits(first, x[0]), flows.logits(second, x[1])
        own = flows.logits(second, x[2])
        found.append(report(first.head, second.head, first.input, y, Flow(z, z), own))
    return tuple(found)


def _as_read(layer: AnyLayer, y: Flow) -> Flow:
    """Return the first network's output as it is for the second: rounded by the second's layer."""
    return Flow(y.exact, flows.rounded(layer, y.exact) if isinstance(layer, QuantizedLayer) else y.exact)


def report(first: AnyLayer, second: AnyLayer, inputs: Input, exact: Tensor, found: Flow, own: Tensor) -> LayerReport:
    """Return the report of one layer from its outputs, for a network of these images."""
    weights = [_weight(layer, inputs) for layer in (first, second)]
    low = high = 0.0
    if isinstance(second, QuantizedLayer) and second.output_scale:
        low = -second.offset * second.output_scale
        high = low + (second.levels - 1) * second.output_scale
    is_clipped = (found.exact > high) | (found.exact < low) if high > low else torch.zeros(1)
    return LayerReport(
        layer=first.spec.name,
        weight_sqnr_db=ratio(*weights),
        sqnr_db=ratio(exact, found.rounded),
        own_sqnr_db=ratio(exact, own),
        cosine=float(F.cosine_similarity(exact.flatten().double(), found.rounded.flatten().double(), dim=0)),
        largest_error=float((exact - found.rounded).abs().max()),
        clipped=float(is_clipped.double().mean()),
        range=(low, high),
        seen=(float(exact.min()), float(exact.max())),
    )


def _weight(layer: AnyLayer, inputs: Input) -> Tensor:
    """Return the weight in real units; of a stem, for raw pixels and without its fourth channel."""
    weight = flows.weight_of(layer)[:, : layer.spec.shape[1]].double()
    if isinstance(layer, FoldedLayer) and layer.spec.shape[1] == 3:
        return weight * torch.from_numpy(mean_and_scale(inputs)[1]).double()
    return weight


def ratio(exact: Tensor, found: Tensor) -> float:
    """Return the signal-to-quantization-noise ratio in dB, MOST_DB if there is no noise."""
    signal, noise = float(exact.double().pow(2).sum()), float((exact.double() - found.double()).pow(2).sum())
    return min(MOST_DB, 10 * float(np.log10(max(signal, 1e-300) / noise))) if noise else MOST_DB


def at_fault(reports: tuple[LayerReport, ...]) -> LayerReport:
    """Return the layer whose own error is the largest."""
    return min(reports, key=lambda one: one.own_sqnr_db)


def table(reports: tuple[LayerReport, ...]) -> str:
    """Return the reports as Markdown."""
    header = ("layer", "weights, dB", "output, dB", "own, dB", "cosine", "largest error", "clipped, %", "range", "seen")
    rows = [
        (
            one.layer, f"{one.weight_sqnr_db:.1f}", f"{one.sqnr_db:.1f}", f"{one.own_sqnr_db:.1f}",
            f"{one.cosine:.5f}", f"{one.largest_error:.3f}", f"{100 * one.clipped:.3f}",
            f"{one.range[0]:.2f} to {one.range[1]:.2f}", f"{one.seen[0]:.2f} to {one.seen[1]:.2f}",
        )
        for one in reports
    ]  # fmt: skip
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def draw(reports: tuple[LayerReport, ...], title: str, path: Path) -> None:
    """Draw SQNR and clipping by layer."""
    names = [one.layer for one in reports]
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(names, [one.sqnr_db for one in reports], "o-", label="output, with inherited errors")
    above.plot(names, [one.own_sqnr_db for one in reports], "s--", label="output, own error")
    above.plot(names, [min(one.weight_sqnr_db, 80) for one in reports], "^:", label="weights")
    above.set_ylabel("SQNR, dB")
    above.set_title(title)
    above.margins(y=0.25)
    above.legend(ncols=3, loc="upper center", fontsize=8)
    below.bar(names, [100 * one.clipped for one in reports], color="tab:red")
    below.set_ylabel("clipped outputs, %")
    below.tick_params(axis="x", rotation=70)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def network_of(said: str, path: Path) -> Network[Any]:
    """Return the network that a name of PRECISIONS or the path of a checkpoint or an artifact means."""
    place = path if said in PRECISIONS else Path(said)
    if place.name.endswith(ARTIFACT_SUFFIX):
        return quantized.deserialize(place)[0]
    state, card = checkpoint.load(place)
    network = fold(state, card)
    if said != "int8":
        return network
    beside = files.beside(place, calibration.SUFFIX)
    found = calibration.load(beside, card.sha256) if beside.exists() else calibrate.at_load(network, card.sha256, None)
    return quantized.quantize(network, found.ranges, quantized.FULL_LIMIT)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m models.study.layers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("first", help="fp32, int8, a checkpoint or an INT8 artifact")
    add("second", help="the one that is judged")
    add("--checkpoint", type=Path, default=files.default_path(), help="of fp32 and int8 (%(default)s)")
    add("--images", type=flags.positive, default=IMAGES, help="of the bundled sample (%(default)s)")
    add("--out", type=Path, default=Path("runs/study/layers.png"), help="the picture (%(default)s)")
    args = parser.parse_args(argv)
    with one_sentence():
        first, second = (network_of(said, args.checkpoint) for said in (args.first, args.second))
        if first.architecture != second.architecture or first.input != second.input:
            raise CheckpointError("the two are different networks, or take different images")
        images = preprocess.resized(cifar10.sample()[0][: args.images], first.input.side)
        reports = compare(first, second, images)
        draw(reports, f"{args.second} against {args.first}, {len(images)} images", args.out)
    worst = at_fault(reports)
    print(table(reports))
    print(f"{worst.layer} has the largest error of its own: {worst.own_sqnr_db:.1f} dB, {worst.clipped:.3%} clipped")
    print(f"{args.out}: the picture")


if __name__ == "__main__":
    main()
