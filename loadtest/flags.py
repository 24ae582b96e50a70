"""The flags of `python -m loadtest`. Their defaults come from `Options`."""

import argparse
from pathlib import Path

from loadtest.client.folders import MOST_IMAGES
from loadtest.client.images import KINDS
from loadtest.conditions import GRAMMAR, Condition, condition
from loadtest.options import Options, Place
from loadtest.plan import Workload
from loadtest.slo.level import Slo
from loadtest.slo.level import parse as parse_slo
from loadtest.targets import add_flags, named, targets

EXIT_CODES = f"""{GRAMMAR}
With several services, each variant is judged against the same variant of the first service, or, if one of them is asked
over another protocol, against the one at the same place. With one service, it is judged against its reference.
The rounds take turns, so their intervals are paired.

If the service asks for an API key, give one in the environment variable LOADTEST_API_KEY.
If it has a certificate of your own authority, name the authority's file in SSL_CERT_FILE.

To send the load from other machines: python -m loadtest worker HOST:PORT (see --master)
To compare two reports: python -m loadtest diff a.json b.json (see its --help)
To make a report of a run that was killed: python -m loadtest report FOLDER

The first Ctrl-C ends the run after the current round; a second one, SIGTERM and SIGHUP drop that round. The report
of the rounds until then is marked partial. A third Ctrl-C ends the process without a report.

exit codes:
  0    measured, the numbers hold, and no condition failed
  1    a condition of --fail-on failed; it is named
  2    nothing could be measured: wrong flags, no images, no service, no variant that is ready
  3    the report was written, and it or a cell of it is INVALID, or a condition could not be judged; it says why
  129, 130, 143
       stopped by SIGHUP, Ctrl-C or SIGTERM; the report was written from the rounds until then, if there was one
"""
CONCURRENCY_HELP = "closed workloads: users that each wait for an answer before the next request (default 1,8)"
RATE_HELP = "open workloads: requests per second at random times (Poisson), timed from when they were due"
CONTINUOUS_HELP = (
    "play the rounds of --rate on end, in long blocks that wait for no answer: a stall of the service that is longer "
    "than a round then counts in full; with long stalls, raise --duration and --users"
)
IMAGES_HELP = (
    "a folder with one subfolder of PNG, JPEG and WebP files for each class; a folder that models.prepare wrote; or an "
    f".npz with images [N, 3, S, S] uint8 and labels. Of a folder at most {MOST_IMAGES} images are sent "
    "(default: the bundled sample of CIFAR-10)"
)
WORKERS_HELP = "send the load from N processes of this machine; one process uses one core at most"
MASTER_HELP = (
    "wait at this address for --workers N processes on other machines, each started there with "
    "`python -m loadtest worker HOST:PORT`"
)
SLO_HELP = (
    "afterwards, find the highest load per variant that keeps this service level, such as p99=20ms; "
    "a run of the search lasts 2 s or a --round at least"
)
PRICE_HELP = "price of the service's machine per hour, such as 0.20: the report states the price of a million images"
DEFAULT = Options(urls=())


def parse(argv: list[str] | None) -> tuple[Options, Path, tuple[Condition, ...]]:
    """Return the options that the command line states, the folder for the report, and the conditions to fail on.

    Exits with code 2 and a reason if the command line is wrong.
    """
    known = parser()
    flags = known.parse_args(argv)
    if flags.continuous and not flags.rate:
        known.error("--continuous needs --rate: users of a closed workload stop sending while the service stalls")
    if flags.continuous and flags.workers:
        known.error("--continuous plays in one process: leave out --workers")
    if flags.master and not flags.workers:
        known.error("--master needs --workers: the number of workers to wait for")
    try:
        services = targets(flags)
    except ValueError as error:
        known.error(str(error))
    fields = {name: value for name, value in vars(flags).items() if name in Options.__dataclass_fields__}
    closed = flags.concurrency or (() if flags.rate else (1, 8))
    workloads = [*(Workload(concurrency=n) for n in closed), *(Workload(rate=rate) for rate in flags.rate)]
    return Options(urls=services, workloads=tuple(workloads), **fields), flags.out, tuple(flags.fail_on)


def parser() -> argparse.ArgumentParser:
    """Return the parser, with the flags in the order of `--help`."""
    p = argparse.ArgumentParser(
        prog="python -m loadtest",
        description="Compare the variants of a running service under load: speed, memory and accuracy.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(p)
    p.add_argument("--variants", type=named, default=(), help="comma-separated (default: all that are ready)")
    p.add_argument("--concurrency", type=counts, default=(), metavar="N,...", help=CONCURRENCY_HELP)
    p.add_argument("--rate", type=rates, default=(), metavar="R,...", help=RATE_HELP)
    p.add_argument(
        "--out", type=Path, default=Path("reports/latest"), help="folder for the report (default %(default)s)"
    )
    p.add_argument("--images", type=Path, metavar="FOLDER|FILE.npz", help=IMAGES_HELP)
    p.add_argument(
        "--payload",
        choices=KINDS,
        default=DEFAULT.payload,
        help="format of the images in a request (default %(default)s)",
    )
    p.add_argument("--contended", action="store_true", help="load all variants at the same time instead of one by one")
    p.add_argument("--continuous", action="store_true", help=CONTINUOUS_HELP)
    p.add_argument("--workers", type=count, default=DEFAULT.workers, metavar="N", help=WORKERS_HELP)
    p.add_argument("--master", type=place, metavar="HOST:PORT", help=MASTER_HELP)
    p.add_argument("--slo", type=level, metavar="p99=20ms", help=SLO_HELP)
    p.add_argument(
        "--slo-load",
        choices=("rate", "concurrency"),
        default="rate",
        help="kind of load that --slo varies (default %(default)s)",
    )
    p.add_argument("--price-per-hour", type=positive, metavar="PRICE", help=PRICE_HELP)
    p.add_argument(
        "--fail-on", type=condition, action="append", default=[], metavar="CONDITION", help="may be repeated; see below"
    )
    for flag, kind, text in NUMBERS:
        default = getattr(DEFAULT, flag[2:].replace("-", "_"))
        p.add_argument(flag, type=kind, default=default, help=f"{text} (default %(default)g)")
    return p


def counts(text: str) -> tuple[int, ...]:
    """Return the counts in a text such as `1,8`."""
    return tuple(dict.fromkeys(count(part) for part in text.split(",")))


def rates(text: str) -> tuple[float, ...]:
    """Return the rates in a text such as `20,50`."""
    return tuple(dict.fromkeys(positive(part) for part in text.split(",")))


def level(text: str) -> Slo:
    """Return the service level in a text such as `p99=20ms`."""
    try:
        return parse_slo(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    """Return the whole number from 1 in a text."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text}")
    return value


def place(text: str) -> Place:
    """Return the host and the port in a text such as `0.0.0.0:5557`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT such as 0.0.0.0:5557, got {text}")
    return Place(host, int(port))


def positive(text: str) -> float:
    """Return the number above 0 in a text."""
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def from_zero(text: str) -> float:
    """Return the number from 0 in a text."""
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text}")
    return value


NUMBERS = (
    ("--duration", positive, "counted seconds per variant and workload"),
    ("--round", positive, "counted seconds of one round"),
    ("--settle", from_zero, "seconds at the start of a round that do not count"),
    ("--warm-up", from_zero, "seconds per variant and workload before the first round that do not count"),
    ("--images-per-request", count, "images in one request"),
    ("--timeout", positive, "seconds after which a request counts as failed"),
    ("--error-limit", from_zero, "share of failed requests above which a cell is INVALID"),
    (
        "--max-duration",
        from_zero,
        "counted seconds per variant and workload after which rounds that drift are given up; 0 for 1.5 x --duration",
    ),
    ("--users", count, "requests in flight at most in an open workload"),
    ("--seed", int, "seed of the order of images and rounds"),
)
"""The flags with one number each: name, type and help."""
