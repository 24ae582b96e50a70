"""This service's int8 beside other servers, in turns: `python -m benchmarks.beside`. Needs `wrk`.

All run at once and take turns in short rounds, with 1, 8 and 32 clients and one PNG of 32x32 a request. Each is idle
while another is measured. MLServer has this project's engine, and gets the PNG in base64 in JSON, as its protocol asks;
the others have OpenVINO's own INT8 network. `make bench-serving` makes the environments and the networks.
"""

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

from benchmarks.against_mlserver import MODEL, encoded
from benchmarks.starting import Body, Server, started
from benchmarks.startup_servers import INT8, NETWORKS, bare, bentoml, mlserver_with, ray, service
from benchmarks.wrk import (
    CLIENTS,
    PACKAGES,
    Contender,
    Rounds,
    interleave,
    median,
    png,
    ratio,
    require_wrk,
    written,
)
from common import machine

OURS = "this service"
PNG = Body(png(), "image/png")
SERVERS: dict[str, tuple[Server, bool]] = {
    OURS: (service(OURS, INT8), True),
    "LitServe": (bare("LitServe", "litserve"), True),
    "FastAPI in one process": (bare("FastAPI", "openvino"), True),
    "MLServer": (mlserver_with("MLServer", MODEL, encoded, NETWORKS / "mlserver-pictures"), False),
    "BentoML": (bentoml("BentoML"), True),
    "Ray Serve": (ray("Ray Serve"), True),
}
"""Name -> how it starts, and whether it takes a PNG as it is."""


def pictured() -> Body:
    """Return the PNG as MLServer takes it."""
    with tempfile.TemporaryFile() as file:
        file.write(png())
        pixels = np.asarray(Image.open(file), np.uint8)
    return encoded(pixels.transpose(2, 0, 1)[np.newaxis])


def measured(rounds: int, seconds: int, folder: Path) -> Rounds:
    """Return the rounds of all servers."""
    with ExitStack() as stack:
        contenders: list[Contender] = []
        for name, (server, takes_png) in SERVERS.items():
            running, _ = stack.enter_context(started(server, folder / f"{len(contenders)}.log"))
            body = PNG if takes_png else pictured()
            url = f"http://127.0.0.1:{running.port}{server.paths[0]}"
            contenders.append(Contender(name, url, body.data, body.content_type))
        return interleave(contenders, CLIENTS, rounds, seconds, folder)


def table(rounds: Rounds) -> str:
    """Return requests a second, and p50 in milliseconds, of each server; and this service's ratio to each."""
    headers = ("int8, PNG, requests/s (p50 ms)", *(f"{count} client{'s' * (count > 1)}" for count in CLIENTS))
    cells = {key: f"{m.rate:,.0f} ({m.p50:.1f})" for key, m in ((key, median(found)) for key, found in rounds.items())}
    rows = [(name, *(cells[name, count] for count in CLIENTS)) for name in SERVERS]
    rows += [
        (f"{OURS} / {name}", *(written(ratio(rounds[OURS, count], rounds[name, count])) for count in CLIENTS))
        for name in SERVERS
        if name != OURS
    ]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def main(argv: list[str] | None = None) -> None:
    """Print the machine and the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.beside", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (%(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="length of each round (%(default)s)")
    args = parser.parse_args(argv)
    require_wrk()
    print(json.dumps(machine.describe(*PACKAGES) | {"rounds": args.rounds, "seconds": args.seconds}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(table(measured(args.rounds, args.seconds, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
