"""The card of a finished run."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from models.card import Card
from models.training.run import Run


def describe(run: Run, test_accuracy: float, test_images: int) -> Card:
    """Return the card of the run. Its command names every flag, so that later defaults do not change it."""
    recipe = asdict(run.recipe)
    return Card(
        command=command_of(recipe),
        recipe=recipe,
        seed=run.recipe.seed,
        epochs=run.recipe.epochs,
        hardware="; then ".join(run.machines),
        started_from=run.started_from,
        training_seconds=round(run.seconds),
        test_accuracy=test_accuracy,
        test_images=test_images,
        torch=torch.__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def command_of(recipe: Mapping[str, Any]) -> str:
    """Return the command that runs the recipe again."""
    given = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in recipe.items() if value != ""]
    return " ".join(["python -m models.train --data DIR --out DIR", *given])
