"""Runs made by hand, for tests of what is computed from them. Reports come out of the product's own `build`."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from loadtest.client.description import Description, VariantInfo
from loadtest.client.images import LabelledImages, bodies
from loadtest.client.scrape import Scrape
from loadtest.measured import Measured, Subjects
from loadtest.options import Options
from loadtest.plan import Arm, Round, Workload
from loadtest.records import Played, Request, Stretch
from loadtest.report.build import build
from loadtest.report.document import Report
from loadtest.targets import Target

URL = "http://127.0.0.1:8000"
USERS = Workload(concurrency=8)
NOTHING = Scrape({})


def arm(variant: str, url: str = URL, name: str = "", **info: Any) -> Arm:
    """Return an arm that is ready; `info` are further values of its row of `GET /variants`."""
    return Arm(name or variant, url, variant, VariantInfo(variant, "ready", **info))


FP32, INT8 = arm("fp32", device="cpu"), arm("int8", device="cpu", reference="fp32-cpu")


def request(intended: float, latency: float, sequence: int = 0, error: str = "", answer: int = 0) -> Request:
    """Return a request whose answer states no times of its own."""
    status, nan = 503 if error else 200, math.nan
    classes = () if error else (answer,)
    return Request(sequence, intended, intended, intended + latency, status, error, classes, nan, nan, nan, nan)


def stretch(requests: dict[str, list[Request]], seconds: float = 1.0, **changes: Any) -> Stretch:
    """Return the record of a round whose generator had little to do."""
    sound: dict[str, Any] = {"lateness": (0.0005,), "starved": 0, "cpu": 0.3}
    return Stretch(0.0, seconds, requests, **(sound | changes))


def played(
    of: Arm,
    requests: list[Request],
    workload: Workload = USERS,
    block: int = 0,
    server: Scrape = NOTHING,
    foreign: int = 0,
    front_cpu: float | None = None,
    **changes: Any,
) -> Played:
    """Return a round of one second."""
    planned = Round((of,), workload, block, 0.25, 1.0, 0)
    made = stretch({of.name: requests}, **changes)
    return Played(of, planned, made, server, NOTHING, foreign, front_cpu=front_cpu)


def counters(values: dict[tuple[str, str], float]) -> Scrape:
    """Return a scrape with `(name, phase)` -> value; an empty phase is no label."""
    return Scrape({(name, frozenset({("phase", p)} if p else ())): value for (name, p), value in values.items()})


def some_images(count: int = 100, seed: int = 0) -> LabelledImages:
    """Return random images whose label is 1."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return LabelledImages(pixels, np.ones(count, dtype=np.int64))


def measured(
    rounds: Sequence[Played], options: Options | None = None, images: LabelledImages | None = None, **changes: Any
) -> Measured:
    """Return a run of these rounds."""
    arms = tuple(dict.fromkeys(p.arm for p in rounds))
    said = Description(tuple(a.info for a in arms), {"sha256": "c0ffee"}, {"version": "fake"})
    subjects = Subjects(((Target("", URL), said),), arms, ())
    images = images or some_images()
    options = options or settings()
    sent = bodies(images, "raw", 1, options.seed)
    return replace(Measured(subjects, images, sent, tuple(rounds), seconds=75.0), **changes)


def settings(**changes: Any) -> Options:
    """Return options with one closed workload of eight users."""
    return replace(Options((Target("", URL),), workloads=(USERS,)), **changes)


def report(rounds: Sequence[Played], options: Options | None = None, **changes: Any) -> Report:
    """Return the report of a run of these rounds; `changes` are fields of `Measured`."""
    options = options or settings()
    return build(measured(rounds, options, **changes), options, ("python", "-m", "loadtest"))
