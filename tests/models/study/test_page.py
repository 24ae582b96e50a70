"""The page of the study, from results that are made up."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.cifar10 import CLASSES
from models.evaluation import statistics
from models.study import page, results, tables, verdicts
from models.study.found import Found, Toolbox, read
from models.study.recipes import RECIPES, Recipe
from models.study.results import Outcome
from models.study.sensitivity import Cost, LayerCost, Sensitivity
from models.study.speed import Speed, Speeds
from models.study.sweep import Sweep, Trial

LABELS = np.arange(1000) % 10
EXACT = np.eye(10, dtype=np.float32)[LABELS]


def outcome(name: str, wrong: int, megabytes: float = 11.0) -> Outcome:
    """Return a result with so many wrong answers of 1,000, where fp32 is always right."""
    logits = EXACT.copy()
    logits[:wrong] = np.roll(logits[:wrong], 1, 1)
    paired = None if name == "fp32" else statistics.compare(logits, EXACT, LABELS, "fp32")
    score = statistics.score(logits, LABELS, CLASSES)
    return Outcome(
        name, "i", score, paired, int(megabytes * 1e6), "", 12.0, "a CPU, 2 threads", "2026-01-01T00:00:00+00:00"
    )


OUTCOMES = {
    "fp32": outcome("fp32", 0, 44.7),
    "int8-least-squares": outcome("int8-least-squares", 1),
    "int8-minmax-tensor": outcome("int8-minmax-tensor", 40),
    "w4a8-adaround": outcome("w4a8-adaround", 9, 5.6),
}
SPEEDS = Speeds(
    "i",
    (
        Speed("fp32-cpu", "", {1: (5.0, 5.5, 6.0), 32: (150, 151, 152)}, 200_000_000),
        Speed("int8", "", {1: (1.4, 1.5, 1.6), 32: (37, 38, 39)}, 150_000_000),
        Speed("bf16-cpu", "this CPU has no bfloat16", {}, 0),
    ),
)
COST = Cost(0.9, 40.0)
SENSITIVITY = Sensitivity(
    "i",
    1000,
    0.95,
    tuple(
        LayerCost(name, bits, replace(COST, logit_sqnr_db=db), COST, 1 / db)
        for bits in (8, 4)
        for name, db in (("conv1", 30.0), ("fc", 50.0))
    ),
)
SWEEP = Sweep("i", 1000, tuple(Trial("minmax", count, seed, 0.95, 30 + seed) for count in (16, 64) for seed in (0, 1)))


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """Return the results after their way through the disk."""
    eight, four = (replace(SENSITIVITY, rows=tuple(SENSITIVITY.of(bits))) for bits in (8, 4))
    first, second = (replace(SWEEP, trials=tuple(t for t in SWEEP.trials if t.seed == seed)) for seed in (0, 1))
    parts = {"speed": SPEEDS, "sensitivity-4": four, "sensitivity-8": eight, "sweep-0": first, "sweep-1": second}
    for name, part in parts.items():
        results.save(tmp_path / f"{name}.json", part)
    results.save(tmp_path / "sweep-2.json", replace(first, identity="of other settings"))
    results.save(tmp_path / "toolboxes" / "a.json", Toolbox("A", "it is not installed", None))
    results.save(tmp_path / "toolboxes" / "b.json", Toolbox("B", "", outcome("B", 3)))
    for name, one in OUTCOMES.items():
        results.save(tmp_path / "recipes" / f"{name}.json", one)

    def outcome_of(recipe: Recipe) -> Outcome | None:
        return results.load(tmp_path / "recipes" / f"{recipe.name}.json", Outcome, "i")

    return read(tmp_path, "python -m models.study", outcome_of, lambda _name: "i")


def test_results_come_back_equal(found: Found) -> None:
    """What a result's file holds is what was written; a file of another identity counts as none."""
    assert found.outcomes == OUTCOMES
    assert found.sensitivity
    assert found.sweep
    assert set(found.sensitivity.rows) == set(SENSITIVITY.rows)
    assert sorted(found.sweep.trials, key=SWEEP.trials.index) == list(SWEEP.trials)
    assert [one.outcome for one in found.toolboxes] == [None, outcome("B", 3)]


def test_another_identity_is_no_result(tmp_path: Path) -> None:
    """A result of other settings is measured again, and a damaged one, too."""
    results.save(tmp_path / "a.json", OUTCOMES["fp32"])
    assert results.load(tmp_path / "a.json", Outcome, "other") is None
    (tmp_path / "a.json").write_text("{")
    assert results.load(tmp_path / "a.json", Outcome) is None


def test_the_page_is_whole(found: Found, tmp_path: Path) -> None:
    """The page has a row per result, says what was not run and why, and gives no speed to what has no kernel."""
    place = tmp_path / "docs" / "quantization.md"
    page.write(found, place)
    lines = [line for line in place.read_text().splitlines() if line.startswith("| ")]
    columns_of_toolboxes, columns_of_recipes = 5, 10
    wanted = (columns_of_toolboxes + 1, columns_of_recipes + 1)
    rows = {line.split("|")[1].strip(): line for line in lines if line.count("|") in wanted}
    assert "no kernel" in rows["w4a8-adaround"]
    assert " 1.5 / 38 " in rows["int8-least-squares"]
    assert " 12 s " in rows["int8-minmax-tensor"]
    assert "not run: it is not installed" in rows["A"]
    text = place.read_text()
    assert "- `w4a4-distilled`: not trained yet: `python -m models.study.qat w4a4-distilled`" in text
    assert "**On this CPU**: `int8-least-squares` (11.0 MB, 3.7 x as fast as fp32" in text
    assert {path.name for path in (place.parent / page.PICTURES).iterdir()} == {"size.png", "speed.png"}


@pytest.mark.parametrize(
    ("name", "wrong", "expected"),
    [
        ("int8-least-squares", 1, "met"),
        ("int8-least-squares", 40, "missed by"),
        ("w4a8-adaround", 7, "met"),
        ("w4a8-adaround", 9, "missed by 0.20 points"),
        ("w4a4-distilled", 5, "met"),
        ("w4a4-distilled", 70, "missed by 6.00 points, top-1 by 1.20 points"),
    ],
)
def test_bars_say_by_how_much(name: str, wrong: int, expected: str) -> None:
    """A bar is met, or missed by so many points."""
    bar = next(bar for bar in verdicts.BARS if bar.recipe == name)
    assert verdicts.verdict(bar, outcome(name, wrong)).startswith(expected)


def test_claims_stand_beside_measurements(found: Found) -> None:
    """The claim of INT8 has the measured size, speed and loss beside it."""
    row = next(line for line in tables.claims(found).splitlines() if "int8-least-squares" in line)
    assert all(cell in row for cell in (" 75 % ", " 75.4 % ", " 2 to 4 x ", " 3.67 x ", " 1 to 5 % ", " -0.10 ["))


def test_every_row_has_a_family() -> None:
    """Rows of one family follow each other, so that the page has one table for each."""
    families = [row.family for row in RECIPES.values()]
    assert [family for family, _ in itertools.groupby(families)] == list(dict.fromkeys(families))


def test_a_rival_is_compared_with_the_served_recipe_image_by_image() -> None:
    """Wins and losses follow from the comparison of each with fp32, which is wrong on some images, too."""

    def wrong_on(*images: int) -> np.ndarray:
        logits = EXACT.copy()
        logits[list(images)] = np.roll(logits[list(images)], 1, 1)
        return logits

    reference = wrong_on(30, 31)
    ours, other = (
        statistics.compare(logits, reference, LABELS, "fp32")
        for logits in (wrong_on(*range(10), 31), wrong_on(0, 1, 20, 30))
    )
    found = verdicts.rival("other", other, ours)
    assert (found.wins, found.losses) == (len({2, 3, 4, 5, 6, 7, 8, 9, 31}), len({20, 30}))
    assert found.p == pytest.approx(2 * (1 + 11 + 55) / 2**11)


def test_the_page_says_which_recipe_stands_out_beside_the_served_one(found: Found) -> None:
    """The best of several recipes is judged by a p that is corrected for their number."""
    several = OUTCOMES | {"int8-least-squares": outcome("int8-least-squares", 12), "int8-average": outcome("", 2)}
    (line,) = verdicts.served(replace(found, outcomes=several))
    assert "Of 2 recipes with its kernels `int8-average` stands out most: 10 images that only it gets right, 0 " in line
    assert "p is 0.002, and 0.0039 corrected for 2 comparisons (Bonferroni), so it is shown to be better" in line


def test_a_machine_stands_once_with_its_numbers_of_threads() -> None:
    """Results of one machine with other threads are no other machine."""
    said = ["B (amx), 16 threads", "A (avx2), 2 threads", "B (amx), 2 threads", "A (avx2), 2 threads"]
    assert page.machines(said) == "A (avx2), 2 threads; B (amx), 2 or 16 threads"
