"""The HTML and Markdown that are made from a report's JSON."""

import re
from typing import Any

import numpy as np
import pytest

from loadtest.report.html import html
from loadtest.report.markdown import markdown
from loadtest.report.svg import COLOURS, colours
from loadtest.report.table import HEADERS, rows


@pytest.fixture
def report() -> dict[str, Any]:
    """Two arms on two devices under one workload, with as little as a service may say."""
    latencies = list(np.random.default_rng(0).gamma(4, 0.003, 100))

    def cell(arm: str) -> dict[str, Any]:
        nothing = {"mean": None, "p50": None, "p99": None}
        return {
            "arm": arm,
            "workload": "8 users",
            "concurrency": 8,
            "rate": None,
            "saturated": False,
            "requests": 100,
            "errors": {},
            "images_per_second": 81.25,
            "latency": {"requests": 100, "mean": 0.012, "p50": 0.0112, "p95": 0.021, "p99": None, "max": 0.03},
            "server": {
                "requests": 0,
                "requests_sent": 100,
                "requests_of_others": 0,
                "shadowed": 0,
                "restarts": 0,
                "request_seconds": None,
                "outside_seconds": None,
                "phase_seconds": {"queue": None},
                "inference_seconds": nothing,
                "queue_seconds": nothing,
                "batch_size": None,
                "memory": {"batch": {}, "model": {}, "now": {}},
            },
            "rounds": [{"block": 0, "settle": 0.25, "latencies": latencies, "starved": 0}],
        }

    share = {"estimate": 0.95, "low": 0.9, "high": 0.98}
    return {
        "created": "2026-01-01T00:00:00+00:00",
        "command": ["python", "-m", "loadtest"],
        "seconds": 75.0,
        "partial": False,
        "invalid": ["fp32, 8 users: <b>late</b>"],
        "notes": [],
        "summary": ["int8 against fp32, 8 users: p99: too few requests to say."],
        "verdicts": [{"subject": "int8 against fp32, 8 users", "verdicts": ["p99: too few requests to say"]}],
        "comparisons": [],
        "settings": {"payload": "png", "images_per_request": 1, "duration": 1, "round": 1, "settle": 0, "warm_up": 0}
        | {"seed": 0, "contended": False},
        "client": {"cpu": "a CPU", "cores": 2, "os": "Linux", "locust": "2", "git_revision": None},
        "servers": [{"label": "", "url": "http://a", "variants": [], "service": {}, "checkpoint": {}}],
        "images": 100,
        "arms": [{"name": "fp32", "device": "cuda:0"}, {"name": "int8", "device": "cpu"}],
        "cells": [cell("fp32"), cell("int8")],
        "accuracy": [{"arm": arm, "images": 100, "accuracy": share, "changed_answers": 0} for arm in ("fp32", "int8")],
    }


def test_the_page_needs_nothing_else(report: dict[str, Any]) -> None:
    """No link, script, style sheet, image or font is fetched."""
    page = html(report)
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert not re.search(r"url\((?!#)", page)
    assert len(page) < 500_000


def test_what_a_service_says_is_text_on_the_page(report: dict[str, Any]) -> None:
    """Markup in it is escaped."""
    assert "<b>late" not in html(report)
    assert "INVALID" in html(report)


def test_devices_have_charts_of_their_own(report: dict[str, Any]) -> None:
    """No chart shows two devices side by side."""
    assert re.findall(r"<h2>On (\S+?)</h2>", html(report)) == ["cuda:0", "cpu"]


def test_what_was_not_measured_is_a_dash(report: dict[str, Any]) -> None:
    """Not a zero, not None."""
    row = dict(zip(HEADERS, rows(report)[0], strict=True))
    assert (row["p50 ms"], row["p99 ms"], row["inference ms"], row["batch"]) == ("11.20", "-", "-", "-")


def test_the_markdown_table_has_a_row_per_cell(report: dict[str, Any]) -> None:
    """Beside the header and its line."""
    lines = [line for line in markdown(report).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2
    assert "**INVALID**" in markdown(report)


def test_the_rounds_are_those_that_were_played(report: dict[str, Any]) -> None:
    """Not those that were planned."""
    assert "rounds: 1 rounds of 1 s per cell, arms interleaved (ABBA), 0.25 s to settle" in markdown(report)
    report["settings"]["contended"] = True
    report["cells"][0]["rounds"].append({"block": 1, "settle": 0.5, "latencies": [], "starved": 0})
    assert "1 to 2 rounds of 1 s per cell, all arms loaded at once, 0.25 to 0.5 s to settle" in markdown(report)


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ({"activation_peak": 3e6}, "≥ 3.0"),
        ({"cuda_graph": 3e6}, "≤ 3.0"),
        ({"cuda_peak": 3e6}, "3.0"),
        ({"activation_peak": 0.0}, "-"),
        ({}, "-"),
    ],
)
def test_a_batchs_memory_says_which_bound_it_is(report: dict[str, Any], batch: dict[str, float], text: str) -> None:
    """The CPU's is the least that was allocated, a CUDA graph's the most that was needed."""
    report["cells"][0]["server"]["memory"]["batch"] = batch
    assert dict(zip(HEADERS, rows(report)[0], strict=True))["batch memory MB"] == text


def test_no_two_arms_share_a_colour() -> None:
    """Also when several services offer the same variants; fp32 keeps its own."""
    shades = colours(["fp32 @ a", "int8 @ a", "fp32 @ b", "int8 @ b"])
    assert len(set(shades.values())) == 4
    assert shades["fp32 @ a"] == COLOURS[0]
