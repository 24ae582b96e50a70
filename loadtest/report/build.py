"""The report as one JSON-able dictionary; every other form is made from it."""

import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from loadtest.analysis.accuracy import accuracies
from loadtest.analysis.summary import cell
from loadtest.analysis.validity import invalid, notes
from loadtest.analysis.verdicts import baselines, compare, sentences, verdicts
from loadtest.machine import fingerprint
from loadtest.measured import Measured
from loadtest.options import Options

SCHEMA = 1


def build(measured: Measured, options: Options) -> dict[str, Any]:
    """All that a run found out, with its statistics and its verdicts."""
    held_against = baselines(measured.arms)
    arms = [
        {"name": a.name, "variant": a.variant, "url": a.url, "device": a.device, "baseline": held_against.get(a.name)}
        for a in measured.arms
    ]
    cells = [
        cell(arm, workload, played, options.images_per_request, options.timeout)
        for workload in options.workloads
        for arm in measured.arms
        if (played := measured.cell(arm, workload))
    ]
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["python", "-m", "loadtest", *sys.argv[1:]],
        "seconds": measured.seconds,
        "partial": measured.partial,
        "settings": options.as_json(),
        "client": fingerprint(),
        "same_machine": all(urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1") for _, url in options.urls),
        "servers": measured.servers,
        "images": len(measured.images),
        "images_sha256": measured.images.sha256,
        "arms": arms,
        "excluded": [{"name": excluded.name, "reason": excluded.reason} for excluded in measured.excluded],
        "cells": cells,
        "accuracy": accuracies(measured.arms, held_against, measured.images, measured.bodies, measured.played),
        "comparisons": comparisons(cells, held_against, options.seed),
    }
    names = [arm.name for arm in measured.arms]
    report["levels"] = sorted(measured.levels, key=lambda level: names.index(level["arm"]))
    report["invalid"] = [*measured.problems, *invalid(report), *unstable(measured, options)]
    report["notes"] = notes(report)
    report["verdicts"] = verdicts(report)
    report["summary"] = sentences(report)
    return report


def unstable(measured: Measured, options: Options) -> list[str]:
    """The cells whose rounds never came to rest, unless somebody stopped the run before they could."""
    return [] if measured.partial else [f"never stable: {reason}" for reason in measured.unstable(options)]


def comparisons(cells: list[dict[str, Any]], held_against: dict[str, str], seed: int) -> list[dict[str, Any]]:
    """Every cell against the cell of its baseline under the same workload."""
    by_key = {(c["arm"], c["workload"]): c for c in cells}
    pairs = [(c, by_key.get((held_against.get(c["arm"], ""), c["workload"]))) for c in cells]
    return [compare(c, other, seed) for c, other in pairs if other]
