"""The study as a whole: training that resumes, the search for a bound, and the way from recipes to the page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from models import checkpoint, cifar10, files, quantize
from models.engines import quantized
from models.engines.network import fold
from models.evaluation import statistics
from models.reference import reference
from models.study import __main__ as study
from models.study import bound, bounding, building, page, qat, ranges, running, verdicts
from models.study.plots import Point, front, places
from models.study.recipes import QUICK, RECIPES

CPU = torch.device("cpu")


def test_recipes_are_rows() -> None:
    """Each row has its own name; a row that is built for 8 bits runs as a variant, one for 4 bits has no kernel."""
    assert all(name == row.name for name, row in RECIPES.items())
    built = [row for row in RECIPES.values() if not (row.variant or row.dtype or row.needs_gpu)]
    assert {row.weight_bits: row.runs_as for row in built} == {8: "int8", 4: ""}
    assert {bar.recipe for bar in verdicts.BARS} | set(QUICK) <= set(RECIPES)


@pytest.mark.slow
def test_a_resumed_training_ends_as_one_that_was_not_stopped(tiny_dataset: Path, tmp_path: Path) -> None:
    """A run that stopped after its first step, and resumed, ends with the weights and steps of a whole run."""
    state, card = checkpoint.load(files.BUNDLED)
    network, images = fold(state, card), ranges.images_for(tiny_dataset, 4)
    plan = qat.Plan("w4a4-distilled", card.sha256, steps=2, batch_size=2)
    whole = qat.train(plan, network, images, tiny_dataset, tmp_path / "whole", CPU)
    begun = qat.Training(plan, network, ranges.of_recipe(network, RECIPES[plan.recipe], images), CPU)
    pixels, labels = (torch.from_numpy(part.copy()) for part in cifar10.read(tiny_dataset, "train"))
    begun.train_step(pixels, labels)
    begun.save(qat.place_of(plan.recipe, tmp_path / "halves"))
    assert [qat.is_over(plan.recipe, tmp_path / name) for name in ("none", "halves", "whole")] == [False, False, True]
    resumed = qat.train(plan, network, images, tiny_dataset, tmp_path / "halves", CPU)
    over = qat.train(plan, network, images, tiny_dataset, tmp_path / "whole", CPU)  # its file has no optimiser any more
    assert (whole.step, resumed.step, over.step) == (2, 2, 2)
    expected = whole.net.state_dict()
    for weights in (resumed.net.state_dict(), over.net.state_dict()):
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    other = replace(plan, steps=3)
    with pytest.raises(files.CheckpointError, match="give the same flags, or delete it"):
        qat.train(other, network, images, tiny_dataset, tmp_path / "halves", CPU)


@dataclass(frozen=True)
class Fake:
    """A network of three layers, those not kept of which spoil the answers to images of some values."""

    kept: frozenset[str]

    def __iter__(self) -> Iterator[Any]:
        return iter(SimpleNamespace(spec=SimpleNamespace(name=name)) for name in SPOILS)

    def answer(self, images: np.ndarray) -> np.ndarray:
        spoilt = {value for name, values in SPOILS.items() if name not in self.kept for value in values}
        return np.eye(10, dtype=np.float32)[[int(value in spoilt) for value in images[:, 0, 0, 0]]]


SPOILS = {"harmless": range(0), "bad": range(20), "little": range(20, 21)}
"""Values of the images, which have 0 to 199, by layer."""


@pytest.mark.parametrize(("bound_", "kept"), [(0.03, ("bad",)), (0.008, ("bad", "little")), (0.5, ())])
def test_the_bound_keeps_the_layers_that_matter(
    monkeypatch: pytest.MonkeyPatch, bound_: float, kept: tuple[str, ...]
) -> None:
    """The search keeps the worst layers until the interval of the loss is within the bound."""
    monkeypatch.setattr(running, "forward", lambda network, _threads: network.answer)
    values = (np.arange(1000) % 200).astype(np.uint8)
    images, labels = np.broadcast_to(values[:, None, None, None], (1000, 3, 2, 2)), np.zeros(1000, np.int64)
    reference = Fake(frozenset(SPOILS)).answer(images)
    choose: Any = Fake
    found = bound.search(choose, reference, images, labels, bound_, threads=1)
    assert found.kept == kept
    assert found.is_met


def test_quantize_keeps_the_layers_of_the_bound(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artifact has the kept layers in FP32; a sentence says which, what they lose and what they cost."""
    state, card = checkpoint.load(files.BUNDLED)
    network = fold(state, card)
    shown = bounding.labelled(files.BUNDLED, card, network, tiny_dataset, 2)
    assert (shown.images.shape, shown.labels.tolist()) == ((2, 3, 32, 32), [0, 1])
    logits = np.eye(10)[[0, 1]]
    paired = statistics.compare(logits, logits, shown.labels, "fp32")
    fixed = bound.Bounded(("layer1.0.conv1",), (), paired, 0.001, 2, ())
    monkeypatch.setattr(bound, "search", lambda *_: fixed)
    monkeypatch.setattr(bounding, "CALLS", 1)
    integers = quantized.quantize(network, {layer.spec.name: (0.0, 5.0) for layer in network}, quantized.FULL_LIMIT)
    mixed, sentence = bounding.within(network, integers, shown, 0.001)
    assert [layer.spec.name for layer in mixed if layer.is_floating] == ["layer1.0.conv1"]
    assert re.search(r"kept in FP32: layer1.0.conv1; .+NOT within the bound of 0.1 points; .+ ms all in INT8", sentence)


def test_the_bound_at_4_bits_chooses_between_adarounds_layers() -> None:
    """Kept layers come from the recipe of 8 bits, the others from that of 4, without building either again."""
    network = fold(checkpoint.load(files.BUNDLED)[0])
    integers = quantized.quantize(network, {layer.spec.name: (0.0, 5.0) for layer in network}, quantized.FULL_LIMIT)
    four, eight = (integers.map(partial(replace, offset=mark)) for mark in (4, 8))
    made = {"w4a8-adaround": four, "int8-adaround": eight}
    source = SimpleNamespace(made=made.get)
    choose, kept_in = building.alternatives(RECIPES["w4a8-bound"], source)  # type: ignore[arg-type]
    assert kept_in == "INT8"
    chosen = {layer.spec.name: layer.offset for layer in choose(frozenset({"conv1", "fc"}))}
    assert {name for name, mark in chosen.items() if mark == 8} == {"conv1", "fc"}
    assert set(chosen.values()) == {4, 8}


def test_a_bound_needs_an_artifact(capsys: pytest.CaptureFixture[str]) -> None:
    """--max-drop without --artifact is an error: the calibration alone keeps no layer."""
    with pytest.raises(SystemExit):
        quantize.main(["--max-drop", "0.1"])
    assert "expected a number above 0 and --artifact" in capsys.readouterr().err


def test_the_front_has_what_nothing_beats() -> None:
    """A point is on the Pareto front unless another one costs no more and is right no less often."""
    points = [Point(name, "", cost, top1, top1, top1) for name, cost, top1 in COSTS]
    assert [point.name for point in front(points)] == ["a", "b"]


def test_points_of_equal_cost_stand_side_by_side() -> None:
    """Equal costs are spread around their own place, the best top-1 first; another cost stays where it is."""
    found = places([Point(name, "", cost, top1, top1, top1) for name, cost, top1 in COSTS])
    assert found["a"] < 1 < found["d"]
    assert found["a"] * found["d"] == pytest.approx(1)
    assert (found["b"], found["c"]) == (2, 3)


COSTS = (("a", 1, 90), ("b", 2, 95), ("c", 3, 94), ("d", 1, 80))


@pytest.mark.slow
def test_the_study_goes_the_whole_way(tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--quick` builds its recipes, measures, and writes page and pictures; a second run measures nothing again."""
    target = tmp_path / "docs" / "quantization.md"
    flags = ["--quick", "--data", str(tiny_dataset), "--out", str(tmp_path / "out"), "--page", str(target)]
    flags += ["--checkpoint", str(files.BUNDLED), "--threads", "2"]
    study.main(flags)
    assert f"{len(QUICK)} of {len(RECIPES)} recipes" in capsys.readouterr().out
    text = target.read_text()
    assert all(f"| {name} " in text for name in QUICK)
    for heading in (
        "What to use when",
        "Bars",
        "Accuracy against speed and size",
        "Sensitivity",
        "Calibration",
        "Toolboxes",
        "The usual claims",
    ):
        assert f"## {heading}" in text
    assert "- `fp16-autocast`: needs a GPU" in text
    assert {path.name for path in (target.parent / page.PICTURES).iterdir()} == {"size.png", "speed.png"}
    artifact = tmp_path / "out" / "artifacts" / "w4a8-adaround.int8.safetensors"
    _, about = quantized.deserialize(artifact)
    assert reference(artifact, about["checkpoint_sha256"]).shape == (300, 10)
    made = study.prepared(study.parse(flags)).made
    assert made("w4a8-adaround") is not None
    assert made("int8-adaround") is None
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}
    study.main(flags)
    assert target.read_text() == text
    assert {path: path.stat().st_mtime_ns for path in written} == written
