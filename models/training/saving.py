"""The state of a run on disk, from which a stopped run continues."""

import io
from dataclasses import asdict
from pathlib import Path

import torch

from models import files
from models.files import CheckpointError
from models.pickled import NOT_TORCHS
from models.training.run import Run


def save(run: Run, path: Path) -> None:
    """Write the state of the run, atomically."""
    content = io.BytesIO()
    torch.save(run.state(), content)
    files.write(path, content.getvalue())


def resume(run: Run, path: Path) -> None:
    """Let the run continue from a file of `save`.

    Raises:
        CheckpointError: the file is damaged, or of another recipe.
    """
    try:
        state = torch.load(path, map_location=run.device, weights_only=True)
        recipe, _ = state["recipe"], state["machines"]
    except NOT_TORCHS as error:
        raise CheckpointError(
            f"{path} is damaged or of another version ({type(error).__name__}); delete it to begin anew"
        ) from error
    if recipe != asdict(run.recipe):
        raise CheckpointError(f"{path} was started with {recipe}; give the same flags, or another --out")
    run.resume(state)
