"""The services under test, as the command line names them: their URLs, and how each of them is asked."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PREDICT, V2 = "predict", "v2"
PROTOCOLS = (PREDICT, V2)
"""`predict` is the API of this project's service, `v2` the Open Inference Protocol over REST."""
ENCODINGS = ("binary", "json")
"""Tensors as bytes after the JSON (Triton's extension of the protocol), or as JSON."""
PIXEL_TYPES = ("UINT8", "FP16", "FP32")
"""The types of tensors that can hold pixels."""
DATATYPES = ("BYTES", *PIXEL_TYPES)
"""The types of inputs that can hold images. BYTES is encoded images."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model: its name, type and shape in the words of the protocol. -1 stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """A service to test, and how it is asked. All but `label` and `url` belong to the protocol `v2`."""

    label: str
    """Tells several services apart; empty if there is only one."""
    url: str
    """The base URL, without a slash at its end."""
    protocol: str = PREDICT
    models: tuple[str, ...] = ()
    """The models to measure, the reference first."""
    input: Tensor | None = None
    """The input to send; None for the one in the model's metadata."""
    encoding: str = ""
    """How tensors travel: one of ENCODINGS; empty for the first of them that the server answers."""
    output: str = ""
    """The output that holds the classes; empty for the first one."""
    classes: tuple[str, ...] = ()
    """The names of the classes in the order of their indices, for an output of texts."""
    mean: tuple[float, ...] = ()
    """Normalisation of FP32 and FP16 inputs: what is subtracted from pixels from 0 to 1, one number or one a channel.
    Without `mean` and `std` the pixels are numbers from 0 to 255."""
    std: tuple[float, ...] = ()
    """The numbers that the pixels are divided by afterwards."""


@dataclass(frozen=True)
class Flag:
    """A flag about one service, or about all of them: `--model theirs=resnet` or `--model resnet`."""

    name: str
    field: str
    """The field of `Target` that it sets."""
    kind: Callable[[str], Any]
    metavar: str
    text: str

    def argument(self, text: str) -> tuple[str, Any]:
        """Return the label, empty for all services, and the value that a command line states."""
        label, value = text.split("=", 1) if "=" in text else ("", text)
        return label, self.kind(value)


def named(text: str) -> tuple[str, ...]:
    """Return the names in a text such as `fp32,int8`."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Return the function that returns a text if it is one of the names."""

    def checked(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text}")
        return text

    return checked


def tensor(text: str) -> Tensor:
    """Return the input that a text such as `images:UINT8:-1,3,32,32` states."""
    name, datatype, shape = (*text.rsplit(":", 2), "", "")[:3]
    try:
        made = Tensor(name, datatype, tuple(int(size) for size in shape.split(",")))
    except ValueError:
        made = Tensor("", "", ())
    if not made.name or datatype not in DATATYPES:
        form = f"NAME:DATATYPE:SHAPE such as images:UINT8:-1,3,32,32 with one of {', '.join(DATATYPES)}"
        raise argparse.ArgumentTypeError(f"expected {form}, got {text}")
    return made


def channels(text: str) -> tuple[float, ...]:
    """Return one number for all channels, or three, from a text such as `0.485,0.456,0.406`."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError(f"expected one number or three, got {text}")
    return numbers


def lines(text: str) -> tuple[str, ...]:
    """Return the lines of the file that a text names."""
    try:
        return tuple(line.strip() for line in Path(text).read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read ({error})") from None


FLAGS = (
    Flag(
        "--protocol",
        "protocol",
        one_of(PROTOCOLS),
        "v2",
        "v2: the Open Inference Protocol over REST",
    ),
    Flag("--model", "models", named, "NAME,...", "v2: the models to measure; the first one is the reference"),
    Flag("--input", "input", tensor, "NAME:TYPE:SHAPE", "v2: the input, where the metadata states none or another one"),
    Flag(
        "--encoding", "encoding", one_of(ENCODINGS), "json", "v2: binary or json (default: binary, if the server can)"
    ),
    Flag("--output", "output", str, "NAME", "v2: the output with the classes, if it is not the first one"),
    Flag("--classes", "classes", lines, "FILE", "v2: names of the classes, one a line, for an output of texts"),
    Flag("--mean", "mean", channels, "M,...", "v2: mean of FP32 inputs, for pixels from 0 to 1 (default: 0 to 255)"),
    Flag("--std", "std", channels, "S,...", "v2: standard deviation of FP32 inputs, for pixels from 0 to 1"),
)
"""The flags about how a service is asked."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name services and say how they are asked."""
    parser.add_argument("--url", required=True, type=target, action="append", metavar="[LABEL=]URL", help=URL_HELP)
    for flag in FLAGS:
        metavar = f"[LABEL=]{flag.metavar}"
        parser.add_argument(flag.name, type=flag.argument, action="append", default=[], metavar=metavar, help=flag.text)


def targets(flags: argparse.Namespace) -> tuple[Target, ...]:
    """Return the services that the flags name.

    Raises:
        ValueError: a flag names an unknown service, or the protocol of a service does not fit its other flags.
    """
    return tuple(_complete(one, flags, flags.url) for one in labelled(flags.url))


def _complete(one: Target, flags: argparse.Namespace, given: Sequence[Target]) -> Target:
    known = [each.label for each in labelled(given)]
    fields = {}
    for flag in FLAGS:
        stated = dict(getattr(flags, flag.name[2:]))
        if unknown := [label for label in stated if label and label not in known]:
            raise ValueError(
                f"{flag.name} names the service {unknown[0]}; --url names {', '.join(known) or 'no label'}"
            )
        if (value := stated.get(one.label, stated.get(""))) is not None:
            fields[flag.field] = value
    made = Target(one.label, one.url, **fields)
    return _checked(made, stated_for=[flag.name for flag in FLAGS if one.label in dict(getattr(flags, flag.name[2:]))])


def _checked(made: Target, stated_for: Sequence[str]) -> Target:
    """Return the target, if its flags fit together."""
    place = f" for {made.label}" if made.label else ""
    if made.protocol == V2 and not made.models:
        raise ValueError(f"--protocol v2 needs --model{place}: it does not list the variants of a service")
    if made.protocol == V2:
        if bool(made.mean) != bool(made.std) or 0 in made.std:
            raise ValueError(f"--mean and --std belong together{place}, and no --std is 0")
        return made
    if wrong := [name for name in stated_for if name != "--protocol"]:
        raise ValueError(f"{wrong[0]} needs --protocol v2{place}; --variants names the variants of this service")
    return Target(made.label, made.url)


def target(text: str) -> Target:
    """Return the label and the URL in a text such as `old=http://host:8000`; the label may be missing."""
    label, url = text.split("=", 1) if "=" in text.split("://", maxsplit=1)[0] else ("", text)
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise argparse.ArgumentTypeError(f"expected a URL such as http://127.0.0.1:8000, got {url}")
    return Target(label, url.rstrip("/"))


def labelled(given: Sequence[Target]) -> tuple[Target, ...]:
    """Return the targets; if there are several, each has a label, which is the host if the user gave none."""
    if len(given) == 1:
        return tuple(given)
    return tuple(Target(each.label or urlsplit(each.url).netloc, each.url) for each in given)


URL_HELP = (
    "base URL of the service, such as http://127.0.0.1:8000; to compare several services: --url old=URL --url new=URL. "
    "The flags marked v2 say how it is asked; LABEL=VALUE sets them for one service"
)
