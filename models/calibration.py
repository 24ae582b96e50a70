"""Calibrated activation ranges, from which `int8` takes its scales; kept beside the checkpoint. Imports no torch."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from models import files
from models.files import CheckpointError
from models.topology import Input

SUFFIX = ".int8.json"
"""The end of a calibration's name, see `models.files.beside`."""


@dataclass(frozen=True)
class Calibration:
    """The activation ranges of one checkpoint, and how they were found."""

    checkpoint_sha256: str
    method: str
    images: int
    seed: int
    ranges: dict[str, tuple[float, float]]
    """By convolution: `(low, high)` of its output, after its ReLU and residual addition if it has them."""
    input: Input = field(default_factory=Input)

    @property
    def sha256(self) -> str:
        """The hash of the whole calibration. INT8 weights depend on it and on the checkpoint."""
        return files.sha256(self.to_json())

    def to_json(self) -> bytes:
        """Return the content of its file."""
        return (json.dumps(asdict(self) | {"input": self.input.as_json()}, indent=2) + "\n").encode()


def save(calibration: Calibration, path: Path) -> None:
    """Write the calibration to `path`."""
    files.write(path, calibration.to_json())


def load(path: Path, checkpoint_sha256: str) -> Calibration:
    """Return the calibration at `path`, which must belong to the checkpoint with this SHA-256.

    Raises:
        CheckpointError: the file is missing, unreadable, or of another checkpoint.
    """
    again = "run `python -m models.quantize --checkpoint FILE` to calibrate this checkpoint"
    if not path.exists():
        raise CheckpointError(f"{path} is missing: int8 needs calibrated activation ranges; {again}")
    try:
        content = json.loads(files.read(path))
        content["ranges"] = {name: (float(low), float(high)) for name, (low, high) in content["ranges"].items()}
        if "input" in content:
            content["input"] = Input.of(content["input"])
        calibration = Calibration(**content)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a calibration ({error}); {again}") from error
    if calibration.checkpoint_sha256 != checkpoint_sha256:
        raise CheckpointError(
            f"{path} belongs to the checkpoint {calibration.checkpoint_sha256[:12]}, "
            f"not to {checkpoint_sha256[:12]}; {again}"
        )
    return calibration
