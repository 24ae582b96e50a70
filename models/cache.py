"""Files that can be made again, kept across starts in `~/.cache/precision-service` (or under XDG_CACHE_HOME)."""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from models import checkpoint

logger = logging.getLogger(__name__)


def place(kind: str, suffix: str, **depends_on: Any) -> Path:
    """Where the file of that kind lies that was made from exactly this; what differs has another name."""
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:32]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "precision-service" / f"{kind}-{key}{suffix}"


def store(path: Path, data: bytes) -> None:
    """Keep a file where that is possible; where it is not, the next start makes it again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write(path, data)
    except OSError as error:
        logger.warning("%s cannot be kept (%s): it will be made again at every start", path, error)
