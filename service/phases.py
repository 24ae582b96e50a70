"""The parts of a prediction's duration. Metrics, logs, traces, the header and the JSON answer take their names here."""

from collections.abc import Mapping
from typing import Annotated, NamedTuple, get_type_hints

Seconds = float | None
"""None: the prediction did not get to this phase."""


class Phases(NamedTuple):
    """Seconds of each phase of one prediction, in the order in which they happen."""

    receive: Annotated[Seconds, "from the request's headers until the whole body was there"] = None
    decode: Annotated[Seconds, "body to pixels of the size that the network reads"] = None
    queue: Annotated[Seconds, "from queued to the start of the batch, the way to the worker included"] = None
    copy_in: Annotated[Seconds, "pixels to the device"] = None
    inference: Annotated[Seconds, "the forward pass of the batch, device-synchronised"] = None
    copy_out: Annotated[Seconds, "logits to the host"] = None
    deliver: Annotated[Seconds, "logits from the worker back to this request: the way, the event loop"] = None
    encode: Annotated[Seconds, "the answer as JSON or bytes"] = None
    other: Annotated[Seconds, "the rest of the request's duration, which no phase explains"] = None

    def reached(self) -> dict[str, float]:
        """Return name -> seconds of the phases that the prediction got to."""
        return {name: seconds for name, seconds in zip(self._fields, self, strict=True) if seconds is not None}

    def ended(self, encode: float, duration: float) -> "Phases":
        """Return all phases of an answered prediction: `other` is what is left of its `duration` in seconds."""
        known = self._replace(encode=encode)
        return known._replace(other=max(0.0, duration - sum([seconds for seconds in known if seconds is not None])))


def server_timing(seconds: Mapping[str, float]) -> str:
    """Return the Server-Timing header for name -> seconds. A browser's network panel shows it."""
    return ", ".join([f"{name};dur={value * 1000:.3f}" for name, value in seconds.items()])


_HINTS = get_type_hints(Phases, include_extras=True)
DESCRIPTIONS: dict[str, str] = {name: _HINTS[name].__metadata__[0] for name in Phases._fields}
"""Name -> what the phase measures."""
UNTOLD = ("encode", "other")
"""Phases that end after the JSON answer is written, so only the Server-Timing header can tell them."""
