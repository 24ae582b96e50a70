"""The numbers of each cell, which is one arm under one workload, from the rounds that were played."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np

from loadtest.analysis.energy import round_energy
from loadtest.analysis.stability import saturated
from loadtest.analysis.statistics import quantile, stated_quantile
from loadtest.client.scrape import Scrape
from loadtest.phases import PHASES
from loadtest.plan import Arm, Workload
from loadtest.records import NEVER_SENT, Played
from loadtest.report.cells import STATED, Cell, Latency, Memory, RoundSummary, ServerSide, Spread

DURATION = "precision_request_duration_seconds"
PHASE = "precision_phase_duration_seconds"
INFERENCE = "precision_inference_duration_seconds"
BATCH_MEMORY = "precision_inference_memory_bytes"


def summarise(
    arm: Arm,
    workload: Workload,
    rounds: Sequence[Played],
    images_per_request: int,
    timeout: float,
    began: float = 0.0,
) -> Cell:
    """Return the numbers of one arm under one workload, over all its rounds and round by round.

    `began` is the reading of the clock at which the run's first round began to count.
    """
    counted = [request for played in rounds for request in played.counted]
    good = [request.latency for request in counted if not request.error]
    seconds = sum(played.round.seconds for played in rounds)
    answered = sum(played.answered for played in rounds)
    return Cell(
        arm=arm.name,
        workload=workload.name,
        concurrency=workload.concurrency,
        rate=workload.rate,
        requests=len(counted),
        saturated=saturated(rounds),
        errors=dict(Counter(request.error for request in counted if request.error).most_common()),
        requests_per_second=answered / seconds,
        images_per_second=answered * images_per_request / seconds,
        latency=latency(good, [request.waited(timeout) for request in counted]),
        lateness=lateness([request.lateness for request in counted if request.error != NEVER_SENT]),
        server=server_side(rounds, is_told=arm.is_told),
        rounds=tuple(round_summary(played, images_per_request, timeout, began) for played in rounds),
    )


def latency(good: Sequence[float], waits: Sequence[float]) -> Latency:
    """Return the mean of the answered requests' seconds, and quantiles and the maximum of all requests' seconds."""
    stated = {name: stated_quantile(waits, q) for name, q in STATED.items()}
    mean = float(np.mean(good)) if good else None
    return Latency(requests=len(good), mean=mean, max=max(waits, default=None), **stated)


def lateness(seconds: Sequence[float]) -> Spread:
    """Return mean and quantiles of the seconds by which requests were sent after they were due."""
    mean = float(np.mean(seconds)) if seconds else None
    return Spread(mean, stated_quantile(seconds, 0.50), stated_quantile(seconds, 0.99))


def round_summary(played: Played, images_per_request: int, timeout: float, began: float) -> RoundSummary:
    """Return the numbers of one round that a comparison with another round needs."""
    return RoundSummary(
        block=played.round.block,
        seconds=played.round.seconds,
        settle=played.round.settle,
        answered=played.answered,
        errors=sum(bool(request.error) for request in played.counted),
        client_cpu=round(played.stretch.cpu, 4),
        late_p90=quantile(played.stretch.lateness, 0.9),
        starved=played.stretch.starved,
        latencies=tuple(round(request.waited(timeout), 7) for request in played.counted),
        began=round(played.stretch.opened - began, 2),
        energy=round_energy(played, images_per_request),
    )


def server_side(rounds: Sequence[Played], *, is_told: bool) -> ServerSide:
    """Return the service's view of a cell, from its metrics before and after each round; if it has some: `is_told`."""
    delta = reduce(add, (played.server for played in rounds), Scrape({}))
    requests = [request for played in rounds for request in played.requests if not request.error]
    duration = delta.mean(DURATION)
    client = float(np.mean([request.end - request.start for request in requests])) if requests else None
    return ServerSide(
        requests=int(delta.total("precision_requests_total")) if is_told else None,
        requests_sent=sum(request.error != NEVER_SENT for played in rounds for request in played.requests),
        requests_of_others=sum(played.foreign for played in rounds) if is_told else None,
        shadowed=int(delta.total("precision_shadow_agreement_total")) if is_told else None,
        request_seconds=duration,
        phase_seconds={phase: delta.mean(PHASE, phase=phase) for phase in PHASES},
        inference_seconds=spread([r.server_inference for r in requests], delta, INFERENCE, {}),
        queue_seconds=spread([r.server_queue for r in requests], delta, PHASE, {"phase": "queue"}),
        outside_seconds=None if client is None or duration is None else client - duration,
        restarts=int(delta.total("precision_worker_restarts_total")) if is_told else None,
        batch_size=delta.mean("precision_batch_size"),
        memory=memory(delta, rounds[-1].gauges),
        front_cpu=mean([played.front_cpu for played in rounds if played.front_cpu is not None]),
    )


def mean(numbers: Sequence[float]) -> float | None:
    """Return the mean of the numbers; None if there are none."""
    return float(np.mean(numbers)) if numbers else None


def spread(stated: Sequence[float], delta: Scrape, histogram: str, labels: Mapping[str, str]) -> Spread:
    """Return the mean from a histogram, and quantiles.

    The quantiles come from the times that the answers state, which are exact. Only if no answer states one (all are
    NaN), they come from the histogram's buckets.
    """
    exact = [value for value in stated if not np.isnan(value)]
    p50, p99 = (stated_quantile(exact, q) if exact else delta.quantile(histogram, q, **labels) for q in (0.50, 0.99))
    return Spread(delta.mean(histogram, **labels), p50, p99)


def memory(delta: Scrape, gauges: Scrape) -> Memory:
    """Return bytes by kind: of a batch (mean over the requests), of the model, and of the processes now."""
    return Memory(
        batch={
            kind: mean
            for kind in delta.label_values(BATCH_MEMORY + "_count", "kind")
            if (mean := delta.mean(BATCH_MEMORY, kind=kind)) is not None
        },
        model=by_kind(gauges, "precision_model_bytes"),
        now=by_kind(gauges, "precision_memory_bytes"),
    )


def by_kind(gauges: Scrape, name: str) -> dict[str, float]:
    """Return a gauge's values by its label `kind`, without the zeros that stand for kinds that do not apply."""
    values = {kind: gauges.total(name, kind=kind) for kind in gauges.label_values(name, "kind")}
    return {kind: value for kind, value in values.items() if value}
