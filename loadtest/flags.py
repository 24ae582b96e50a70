"""The flags of `python -m loadtest`; their defaults are those of `Options`."""

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from loadtest import slo
from loadtest.client.images import KINDS
from loadtest.options import Options
from loadtest.plan import Workload
from loadtest.slo import Slo

EXIT_CODES = """a service with API keys: give one in the environment variable LOADTEST_API_KEY

two reports are compared with: python -m loadtest diff a.json b.json (see its --help)

exit codes:
  0    measured, and the numbers hold
  2    nothing could be measured: wrong flags, no images, no service, no variant that is ready
  3    the report was written but marked INVALID; it says why
  130  stopped with Ctrl-C; the report was written from what was measured until then
"""
URL_HELP = (
    "where the service runs, such as http://127.0.0.1:8000; again, to compare several: --url old=URL --url new=URL"
)
CONCURRENCY_HELP = "closed workloads: users that send the next request when the last is answered (default 1,8)"
RATE_HELP = "open workloads: requests a second at random (Poisson), timed from when they were due"
SLO_HELP = "afterwards, find the highest load under which this holds, per variant: p99=20ms"
DEFAULT = Options(urls=())


def parse(argv: list[str] | None) -> tuple[Options, Path]:
    """What the command line asks for, and the folder for the report; exits with 2 and a reason when it is wrong."""
    flags = parser().parse_args(argv)
    fields = {name: value for name, value in vars(flags).items() if name in Options.__dataclass_fields__}
    closed = flags.concurrency or (() if flags.rate else (1, 8))
    workloads = [*(Workload(concurrency=n) for n in closed), *(Workload(rate=rate) for rate in flags.rate)]
    return Options(urls=labelled(flags.url), workloads=tuple(workloads), **fields), flags.out


def parser() -> argparse.ArgumentParser:
    """What can be asked for, in the order that `--help` shows."""
    p = argparse.ArgumentParser(
        prog="python -m loadtest",
        description="Compare the variants of a running service under load: speed, memory and accuracy.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--url", required=True, action="append", metavar="[LABEL=]URL", help=URL_HELP)
    p.add_argument("--variants", type=names, default=(), help="comma-separated; without it, all that are ready")
    p.add_argument("--concurrency", type=counts, default=(), metavar="N,...", help=CONCURRENCY_HELP)
    p.add_argument("--rate", type=rates, default=(), metavar="R,...", help=RATE_HELP)
    p.add_argument("--out", type=Path, default=Path("reports/latest"), help="folder for the report (%(default)s)")
    p.add_argument("--images", type=Path, help=".npz with images [N, 3, 32, 32] uint8 and labels (the bundled sample)")
    p.add_argument("--payload", choices=KINDS, default=DEFAULT.payload, help="how images are sent (%(default)s)")
    p.add_argument("--contended", action="store_true", help="load all variants at the same time, not one by one")
    p.add_argument("--slo", type=level, metavar="p99=20ms", help=SLO_HELP)
    p.add_argument(
        "--slo-load", choices=("rate", "concurrency"), default="rate", help="what --slo searches (%(default)s)"
    )
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


def rates(text: str) -> tuple[float, ...]:
    """`20,50`"""
    return tuple(dict.fromkeys(positive(part) for part in text.split(",")))


def level(text: str) -> Slo:
    """`p99=20ms`"""
    try:
        return slo.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def labelled(urls: list[str]) -> tuple[tuple[str, str], ...]:
    """`old=http://a` as label and URL; without a label it is the host when there are several, else empty."""
    split = [url.split("=", 1) if "=" in url.split("://")[0] else ["", url] for url in urls]
    several = len(urls) > 1
    return tuple((label or (urlsplit(url).netloc if several else ""), url.rstrip("/")) for label, url in split)


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
    (
        "--max-duration",
        from_zero,
        "counted seconds until rounds that are not stable yet are given up; 0: 1.5 x --duration",
    ),
    ("--tolerance", positive, "how far thirds of the rounds may lie from their mean to be stable (p99: twice that)"),
    ("--processes", count, "load generators, when one core cannot send enough"),
    ("--users", count, "most requests in flight in an open workload"),
    ("--seed", int, "orders the images and the rounds"),
)
