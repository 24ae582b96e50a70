"""Calibrated activation ranges, which `int8` needs to load: found by `models.quantize`, kept beside the checkpoint.

Imports no torch.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from models import files
from models.files import CheckpointError
from models.topology import Input


@dataclass(frozen=True)
class Calibration:
    """Ranges of the activations of one checkpoint."""

    checkpoint_sha256: str
    method: str
    images: int
    seed: int
    ranges: dict[str, tuple[float, float]]
    """By convolution, `(low, high)` of its output, after ReLU and residual addition where they follow."""
    input: Input = field(default_factory=Input)

    @property
    def sha256(self) -> str:
        """Of all of it: what the INT8 weights depend on besides the checkpoint."""
        return files.sha256(self.to_json())

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2) + "\n").encode()


def save(calibration: Calibration, path: Path) -> None:
    files.write(path, calibration.to_json())


def load(path: Path, checkpoint_sha256: str) -> Calibration:
    """The calibration at `path`, which must be that of the checkpoint with this SHA-256.

    Raises:
        CheckpointError: it is missing, unreadable, or of another checkpoint.
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
