"""The flags of `python -m loadtest`; their defaults are those of `Options`."""

import argparse
from pathlib import Path

from loadtest.images import KINDS
from loadtest.options import Options
from loadtest.plan import Workload

EXIT_CODES = """exit codes:
  0    measured, and the numbers hold
  2    nothing could be measured: wrong flags, no images, no service, no variant that is ready
  3    the report was written but marked INVALID; it says why
  130  stopped with Ctrl-C; the report was written from what was measured until then
"""
DEFAULT = Options(urls=())


def parse(argv: list[str] | None) -> tuple[Options, Path]:
    """What the command line asks for, and the folder for the report; exits with 2 and a reason when it is wrong."""
    flags = parser().parse_args(argv)
    fields = {name: value for name, value in vars(flags).items() if name in Options.__dataclass_fields__}
    workloads = tuple(Workload(concurrency=n) for n in flags.concurrency)
    return Options(urls=(("", flags.url.rstrip("/")),), workloads=workloads, **fields), flags.out


def parser() -> argparse.ArgumentParser:
    """What can be asked for, in the order that `--help` shows."""
    p = argparse.ArgumentParser(
        prog="python -m loadtest",
        description="Compare the variants of a running service under load: speed, memory and accuracy.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--url", required=True, help="where the service runs, such as http://127.0.0.1:8000")
    p.add_argument("--variants", type=names, default=(), help="comma-separated; without it, all that are ready")
    p.add_argument("--concurrency", type=counts, default=(1, 8), help="users without think time (default 1,8)")
    p.add_argument("--out", type=Path, default=Path("reports/latest"), help="folder for the report (%(default)s)")
    p.add_argument("--images", type=Path, help=".npz with images [N, 3, 32, 32] uint8 and labels (the bundled sample)")
    p.add_argument("--payload", choices=KINDS, default=DEFAULT.payload, help="how images are sent (%(default)s)")
    p.add_argument("--contended", action="store_true", help="load all variants at the same time, not one by one")
    for flag, kind, text in NUMBERS:
        default = getattr(DEFAULT, flag[2:].replace("-", "_"))
        p.add_argument(flag, type=kind, default=default, help=f"{text} (default %(default)g)")
    return p


def names(text: str) -> tuple[str, ...]:
    """`fp32,int8`"""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def counts(text: str) -> tuple[int, ...]:
    """`1,8`"""
    return tuple(dict.fromkeys(count(part) for part in text.split(",")))


def count(text: str) -> int:
    """A whole number from 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text}")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def from_zero(text: str) -> float:
    """A number from 0."""
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text}")
    return value


NUMBERS = (
    ("--duration", positive, "counted seconds per variant and workload"),
    ("--round", positive, "counted seconds of one round"),
    ("--settle", from_zero, "seconds at the start of a round that are not counted"),
    ("--warm-up", from_zero, "seconds per variant and workload before the first round, not counted"),
    ("--images-per-request", count, "images in one request"),
    ("--timeout", positive, "seconds until a request counts as failed"),
    ("--error-limit", from_zero, "share of failed requests above which a run is INVALID"),
    ("--seed", int, "orders the images and the rounds"),
)
