"""The service on a GPU against the engine alone: `python -m benchmarks.gpu_served --out FILE`.

It measures images per second of raw pixels over HTTP, many images per request, and of the engine in a loop, in turns.
"""

import argparse
import http.client
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.hop import bare
from benchmarks.wrk import Contender, free_port, process, wait_until_it_answers

IMAGES = 256
"""Images in a request, and in a batch."""
CLIENTS = 4
"""Clients that send requests at the same time."""
RAW = "application/octet-stream"


@dataclass(frozen=True)
class Served:
    """The images per second of every round, served and by the engine alone."""

    variant: str
    images_a_request: int
    clients: int
    seconds: float
    served: list[float]
    bare: list[float]

    @property
    def share(self) -> float:
        """Return the served rate over the engine's, both medians."""
        return statistics.median(self.served) / statistics.median(self.bare)


def images_per_second(contender: Contender, clients: int, seconds: float) -> float:
    """Return the images per second of `clients` that each send one request after the other.

    Raises:
        RuntimeError: an answer is not 200.
    """
    where = urlsplit(contender.url)
    deadline = time.monotonic() + seconds

    def client(_: int) -> int:
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        requests = 0
        while time.monotonic() < deadline:
            connection.request("POST", where.path, contender.body, {"Content-Type": contender.content_type})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise RuntimeError(f"{contender.name} answered {answer.status}: {text[:300]!r}")
            requests += 1
        connection.close()
        return requests

    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        requests = sum(pool.map(client, range(clients)))
    return requests * contender.images / (time.monotonic() - began)


def measure(variants: Sequence[str], rounds: int, seconds: float) -> list[Served]:
    """Serve the variants and measure each of them in turns with its engine alone."""
    port = free_port()
    body = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 32, 32), np.uint8).tobytes()
    flags = ("--variants", ",".join(variants), "--max-batch-size", str(IMAGES), "--log-level", "warning")
    results = []
    with process("service", "--port", str(port), *flags):
        for name in variants:
            url = f"http://127.0.0.1:{port}/predict/{name}"
            contender = Contender(name, url, body, RAW, IMAGES)
            wait_until_it_answers(contender, 300)
            images_per_second(contender, CLIENTS, 1)
            turns = [
                (images_per_second(contender, CLIENTS, seconds), bare(name, IMAGES, seconds)) for _ in range(rounds)
            ]
            results.append(Served(name, IMAGES, CLIENTS, seconds, [t[0] for t in turns], [t[1] for t in turns]))
    return results


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_served", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--variants", default="fp16,fp32", help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="length of each round (%(default)s)")
    args = parser.parse_args(argv)
    # Both get one GPU: the service would otherwise use all GPUs, while the engine alone uses one.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    try:
        results = measure(args.variants.split(","), args.rounds, args.seconds)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    args.out.write_text(json.dumps([asdict(row) for row in results], indent=1) + "\n")
    for row in results:
        print(
            f"{row.variant}: {statistics.median(row.served):,.0f} images/s served, {row.share:.0%} of the engine alone"
        )


if __name__ == "__main__":
    main()
