"""From a recipe to a quantized network."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models import cifar10
from models.engines import openvino
from models.engines.network import FoldedLayer
from models.engines.quantized import QuantizedLayer
from models.study import adaround, bound, correction, qat, ranges, rounding, running
from models.study.observers import Seen, watch
from models.study.recipes import RECIPES, Recipe
from models.topology import Network

MAX_DROP = 0.001
"""The bound of the mixed recipes, 0 to 1: 0.1 points."""
SEED = 0
ROUNDED = ("w4a8-adaround", "int8-adaround")
"""The recipes between whose layers the bound at 4 bits chooses: rounding to the nearest loses more than the bound."""


@dataclass
class Source:
    """The checkpoint and the images that recipes are built from; it keeps what several of them need."""

    network: Network[FoldedLayer]
    checkpoint_sha256: str
    calibration: cifar10.Images
    """Training images, without labels."""
    images: cifar10.Images
    """Test images. Only the search for a bound looks at them while it builds."""
    labels: cifar10.Labels
    data: Path
    trained: Path
    """The folder of training runs."""
    threads: int
    training_steps: int | None = None
    """Instead of each row's."""
    adaround_steps: int | None = None
    training_batch: int = qat.BATCH
    """Images of a training step."""
    made: Callable[[str], Network[QuantizedLayer] | None] = field(default=lambda _: None)
    """Returns the network of a recipe that was built before, by its name."""

    @cached_property
    def seen(self) -> dict[str, Seen]:
        """Return what calibration sees of the network."""
        return watch(self.network, self.calibration)

    @cached_property
    def reference(self) -> NDArray[np.float32]:
        """Return the FP32 logits of the test images."""
        return running.answers(openvino.floating(self.network, self.threads).forward, self.images, "fp32")

    def plan(self, recipe: Recipe) -> qat.Plan:
        """Return the plan of the run that lies there for this checkpoint, else the plan of a new one."""
        found = qat.plan_at(recipe.name, self.trained)
        if found and found.checkpoint_sha256 == self.checkpoint_sha256:
            return found
        return qat.Plan(recipe.name, self.checkpoint_sha256, self.steps(recipe), self.training_batch)

    def steps(self, recipe: Recipe) -> int:
        """Return the steps that the recipe takes here."""
        given = self.training_steps if recipe.is_trained else self.adaround_steps
        return given or recipe.steps


@dataclass(frozen=True)
class Built:
    """A quantized network."""

    network: Network[QuantizedLayer]
    seconds: float = 0.0
    """Of the whole work, earlier runs of a training included."""
    note: str = ""


def plain(recipe: Recipe, source: Source) -> Network[QuantizedLayer]:
    """Return the network with weights rounded to the nearest and calibrated ranges."""
    network = source.network
    integers = {layer.spec.name: rounding.nearest(layer, network, recipe) for layer in network}
    chosen = ranges.chosen(network, recipe, source.seen)
    return rounding.assembled(network, integers, chosen, recipe.activation_bits)


def build(recipe: Recipe, source: Source) -> Built:
    """Return the recipe's network. Equal sources give equal networks."""
    began = time.perf_counter()
    torch.manual_seed(SEED)
    built = METHODS[recipe.algorithm](recipe, source)
    network = built.network
    if recipe.corrected:
        exact = correction.equalized(source.network) if recipe.algorithm == "equalization" else source.network
        network = correction.corrected(exact, network, source.calibration)
    return replace(built, network=network, seconds=built.seconds or time.perf_counter() - began)


def _none(recipe: Recipe, source: Source) -> Built:
    return Built(plain(recipe, source))


def _equalized(recipe: Recipe, source: Source) -> Built:
    return Built(plain(recipe, replace(source, network=correction.equalized(source.network))))


def _adaround(recipe: Recipe, source: Source) -> Built:
    begun, most = plain(recipe, source), rounding.limit(recipe.weight_bits)
    network = adaround.adaround(source.network, begun, source.calibration, source.steps(recipe), most, SEED)
    return Built(network, note=f"{source.steps(recipe):,} steps a layer")


def _trained(recipe: Recipe, source: Source) -> Built:
    plan = source.plan(recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = qat.train(plan, source.network, source.calibration, source.data, source.trained, device)
    note = f"{run.step:,} steps of {plan.batch_size} images in {run.seconds / 60:.1f} min: {run.hardware}"
    return Built(run.net.network(), run.seconds, note)


def _bounded(recipe: Recipe, source: Source) -> Built:
    choose, kept_in = alternatives(recipe, source)
    found = bound.search(choose, source.reference, source.images, source.labels, MAX_DROP, source.threads)
    return Built(choose(frozenset(found.kept)), note=bound.said(found, kept_in))


def alternatives(recipe: Recipe, source: Source) -> tuple[bound.Choice, str]:
    """Return the choice of layers to keep: in FP32 for 8 bits, in 8 bits for 4; and the name of that precision."""
    if recipe.weight_bits < 8:
        low, high = (source.made(name) or build(RECIPES[name], source).network for name in ROUNDED)
        return bound.blend(low, high), "INT8"
    low = plain(recipe, source)
    everything = frozenset(layer.spec.name for layer in low)
    return bound.blend(low, rounding.kept_floating(low, source.network, everything)), "FP32"


METHODS: dict[str, Callable[[Recipe, Source], Built]] = {
    "none": _none,
    "equalization": _equalized,
    "adaround": _adaround,
    "qat": _trained,
    "distillation": _trained,
    "bound": _bounded,
}
"""By `Recipe.algorithm`."""
