"""The phases of a request inside the service, in their order: the values of the label `phase` of its metrics."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """The label and the colour of a phase in the report's charts."""

    label: str
    colour: str


PHASES = {
    "receive": Phase("receive", "#7d5ba6"),
    "decode": Phase("decode", "#e69f00"),
    "queue": Phase("queue", "#f0d27a"),
    "copy_in": Phase("copy in", "#9ad0c2"),
    "inference": Phase("inference", "#0072b2"),
    "copy_out": Phase("copy out", "#56b4e9"),
    "deliver": Phase("way back", "#d55e00"),
    "encode": Phase("encode", "#cc79a7"),
    "other": Phase("rest of the service", "#8e99a6"),
}
