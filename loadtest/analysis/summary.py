"""Numbers of each cell, which is one arm under one workload, from the rounds that were played."""

from collections import Counter
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from loadtest.analysis.stability import saturated
from loadtest.analysis.statistics import quantile, stated_quantile
from loadtest.client.scrape import Scrape
from loadtest.plan import Arm, Workload
from loadtest.records import Played, Request

PHASES = ("decode", "queue", "copy_in", "inference", "copy_out", "deliver", "encode")
QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def cell(
    arm: Arm, workload: Workload, rounds: Sequence[Played], images_per_request: int, timeout: float
) -> dict[str, Any]:
    """One arm under one workload, all its rounds together and one by one.

    Quantiles are of all requests that were due: one that failed took at least `timeout`. Mean and maximum are of those
    that were answered.
    """
    counted = [request for played in rounds for request in played.counted]
    good = [request.latency for request in counted if not request.error]
    seconds = sum(played.round.seconds for played in rounds)
    finished = sum(len(played.finished) for played in rounds)
    return {
        "arm": arm.name,
        "workload": workload.name,
        "concurrency": workload.concurrency,
        "rate": workload.rate,
        "requests": len(counted),
        "saturated": saturated(rounds),
        "errors": dict(Counter(request.error for request in counted if request.error).most_common()),
        "requests_per_second": finished / seconds,
        "images_per_second": finished * images_per_request / seconds,
        "latency": latency(good, [request.waited(timeout) for request in counted]),
        "server": server(rounds),
        "rounds": [round_json(played, timeout) for played in rounds],
    }


def latency(good: Sequence[float], waits: Sequence[float]) -> dict[str, float | int | None]:
    """How long requests took; a quantile is None when there are too few requests to state it."""
    stated = {name: stated_quantile(waits, q) for name, q in QUANTILES.items()}
    mean = float(np.mean(good)) if good else None
    return {"requests": len(good), "mean": mean, **stated, "max": max(good, default=None)}


def round_json(played: Played, timeout: float) -> dict[str, Any]:
    """What comparing two rounds needs; latencies in seconds, to a tenth of a microsecond, as they ended."""
    return {
        "block": played.round.block,
        "seconds": played.round.seconds,
        "finished": len(played.finished),
        "settle": played.round.settle,
        "errors": sum(bool(request.error) for request in played.counted),
        "client_cpu": round(played.client_cpu, 4),
        "late_p90": quantile(played.lateness, 0.9),
        "starved": played.starved,
        "latencies": [round(request.waited(timeout), 7) for request in played.counted],
    }


def server(rounds: Sequence[Played]) -> dict[str, Any]:
    """The service's side of a cell, from `/metrics` before and after each round; None where it does not say."""
    delta = reduce(add, (played.server for played in rounds), Scrape({}))
    requests = [request for played in rounds for request in played.requests if not request.error]
    duration = delta.mean("precision_request_duration_seconds")
    client = float(np.mean([request.end - request.start for request in requests])) if requests else None
    return {
        "requests": int(delta.total("precision_requests_total")),
        "requests_sent": sum(len(played.requests) for played in rounds),
        "requests_of_others": sum(played.foreign for played in rounds),
        "shadowed": int(delta.total("precision_shadow_agreement_total")),
        "request_seconds": duration,
        "phase_seconds": {p: delta.mean("precision_phase_duration_seconds", phase=p) for p in PHASES},
        "inference_seconds": spread(delta, requests, "precision_inference_duration_seconds", "server_inference"),
        "queue_seconds": spread(delta, requests, "precision_phase_duration_seconds", "server_queue", phase="queue"),
        "outside_seconds": None if client is None or duration is None else client - duration,
        "restarts": int(delta.total("precision_worker_restarts_total")),
        "batch_size": delta.mean("precision_batch_size"),
        "memory": memory(delta, rounds[-1].gauges),
    }


def spread(
    delta: Scrape, requests: Sequence[Request], histogram: str, field: str, **labels: str
) -> dict[str, float | None]:
    """Mean from the histogram; p50 and p99 from the answers, which are exact, or else from the histogram's buckets."""
    answers = [value for request in requests if (value := getattr(request, field)) == value]
    stated = {
        name: stated_quantile(answers, q) if answers else delta.quantile(histogram, q, **labels)
        for name, q in (("p50", 0.50), ("p99", 0.99))
    }
    return {"mean": delta.mean(histogram, **labels), **stated}


def memory(delta: Scrape, gauges: Scrape) -> dict[str, Any]:
    """Bytes by what they are: needed by a batch beyond the weights (mean), the model's own, and the process's now."""
    name = "precision_inference_memory_bytes"
    return {
        "batch": {k: delta.mean(name, kind=k) for k in delta.label_values(name + "_count", "kind")},
        "model": by_kind(gauges, "precision_model_bytes"),
        "now": by_kind(gauges, "precision_memory_bytes"),
    }


def by_kind(gauges: Scrape, name: str) -> dict[str, float]:
    """A gauge's values by its label `kind`; zeros, which stand for kinds that do not apply, are left out."""
    values = {kind: gauges.total(name, kind=kind) for kind in gauges.label_values(name, "kind")}
    return {kind: value for kind, value in values.items() if value}
