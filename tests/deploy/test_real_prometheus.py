"""A real Prometheus agrees with the clients after a known load with known failures, during which a worker is killed.

All questions are asked in PromQL. Counts and quantiles are those of the clients, no counter goes down, and every
expression of the dashboard, the rules and the documentation gives data.
"""

import json
import os
import re
import signal
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from service.metric_rows import SECONDS
from tests.deploy import prometheus as real
from tests.deploy.prometheus import Prometheus
from tests.service import fakes
from tests.service.pictures import png
from tests.service.processes import Service, running, until

pytestmark = pytest.mark.needs("prometheus")

ROOT = Path(__file__).parents[2]
PNG = {"content-type": "image/png"}
LONG_TIMEOUTS = ("--request-timeout", "600", "--hang-timeout", "600")
"""Timeouts that a busy machine does not reach while it starts the worker again, so no other request is lost."""


@dataclass
class Load:
    """The record of the clients: outcomes per variant, and the durations that the answers of int8 report."""

    prometheus: Prometheus
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    int8_seconds: list[float] = field(default_factory=list)

    def send(self, client: httpx.Client, variant: str, body: bytes) -> str:
        """Send a request, record its outcome and return it."""
        answer = client.post(f"/predict/{variant}", content=body, headers=PNG)
        document = answer.json()
        outcome = "ok" if answer.status_code == 200 else document["type"].rsplit(":")[-1]
        self.outcomes[variant, outcome] += 1
        if (variant, outcome) == ("int8", "ok"):
            self.int8_seconds.append(document["timing"]["total_seconds"])
        return outcome


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    flags = ("--variants", "fp32,fp16,int8", "--shadow-share", "1", *LONG_TIMEOUTS)
    with (
        running(*flags, module="tests.service.fakes") as service,
        real.scraping([service.url], tmp_path_factory.mktemp("prometheus")) as prometheus,
    ):
        load = Load(prometheus)
        with ThreadPoolExecutor(7) as pool:
            hung = pool.submit(_client, load, service, "fp32", [fakes.HANG])
            until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="a held request")
            clients = [pool.submit(_client, load, service, variant, range(200)) for variant in ("fp32", "int8") * 3]
            until(lambda: service.outcomes("int8").get("ok", 0) > 50, what="load")
            until(lambda: service.sample("precision_queue_depth", variant="fp32") == 3, what="waiting requests")
            os.kill(_first_worker(service), signal.SIGKILL)
            assert [client.result() for client in (hung, *clients)] == [None] * 7
        until(lambda: service.state("fp32") == "ready", what="recovery")
        with httpx.Client(base_url=service.url, timeout=600) as client:
            _known_failures(load, client)
            until(lambda: _compared_after_others(load, service, client) > 120, 240, "shadows")
        prometheus.settle()
        yield load


def _client(load: Load, service: Service, variant: str, values: Iterable[int]) -> None:
    with httpx.Client(base_url=service.url, timeout=600) as client:
        for value in values:
            if load.send(client, variant, png(value)) != "ok":  # a client that waits, as Retry-After asks
                until(lambda: service.state(variant) == "ready", what="recovery")


def _first_worker(service: Service) -> int:
    """Return the process id of the worker that was started first: the one of the first variant."""
    return min(child.pid for child in service.children() if child.name().startswith("worker-"))


def _compared_after_others(load: Load, service: Service, client: httpx.Client) -> float:
    for _ in range(20):
        load.send(client, "int8", png(1))
    return service.sample("precision_shadow_logit_distance_count", variant="int8")


def _known_failures(load: Load, client: httpx.Client) -> None:
    for count, variant, body in (
        (7, "int8", b"no image"),
        (2, "int8", png(fakes.RAISE)),
        (5, "fp16", png(1)),
        (3, "fp64", png(1)),
        (4, "fp32", png(1)),
    ):
        for _ in range(count):
            load.send(client, variant, body)


def test_counts_are_those_of_the_clients(load: Load) -> None:
    """Every request counts once under its outcome, also one that the killed worker lost."""
    counted = {
        (labels["variant"], labels["outcome"]): value
        for labels, value in load.prometheus.query("precision_requests_total > 0")
    }
    sent = Counter({("unknown" if v == "fp64" else v, outcome): n for (v, outcome), n in load.outcomes.items()})
    assert counted == sent
    assert load.outcomes["fp32", "worker_lost"] == 1
    assert load.outcomes["int8", "ok"] >= 600
    assert load.outcomes["int8", "internal"] == 2
    assert load.outcomes["int8", "not_an_image"] == 7


def test_a_duration_is_observed_for_every_request(load: Load) -> None:
    """Each request has one duration, and each answered request has one of each phase."""
    ask = load.prometheus.value
    for variant in ("fp32", "int8"):
        sent = sum(n for (v, _), n in load.outcomes.items() if v == variant)
        assert ask(f'precision_request_duration_seconds_count{{variant="{variant}"}}') == sent
        for phase in ("queue", "inference", "other"):
            where = f'variant="{variant}", phase="{phase}"'
            assert ask(f"precision_phase_duration_seconds_count{{{where}}}") == load.outcomes[variant, "ok"]


def test_the_restart_is_counted_once(load: Load) -> None:
    """The one restart is that of fp32's killed worker."""
    (lost,) = load.prometheus.query("precision_worker_restarts_total > 0")
    assert (lost[0]["variant"], lost[0]["reason"], lost[1]) == ("fp32", "died", 1)


def test_no_counter_went_down(load: Load) -> None:
    """The death of a worker resets no counter in any scrape."""
    names = load.prometheus.get("label/__name__/values")["data"]
    counters = [name for name in names if re.fullmatch(r"precision_.+_(total|sum|count|bucket)", str(name))]
    assert len(counters) > 15
    until(lambda: load.prometheus.value('count_over_time(up{job="precision"}[10m])') > 5, 30, "scrapes")
    assert {name: load.prometheus.value(f"sum(resets({name}[10m]))") for name in counters} == dict.fromkeys(counters, 0)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_quantiles_are_those_that_the_clients_were_told(load: Load, share: float) -> None:
    """histogram_quantile is at most one bucket away from the same quantile of the answers' total_seconds."""
    bounds = 'precision_request_duration_seconds_bucket{variant="int8"}'
    seen = load.prometheus.value(f"histogram_quantile({share}, sum by (le) ({bounds}))")
    told = float(np.quantile(load.int8_seconds, share))
    assert abs(bisect_left(SECONDS, seen) - bisect_left(SECONDS, told)) <= 1


def test_phases_add_up_to_the_duration(load: Load) -> None:
    """The phases of answered requests add up to at least the clients' sum and at most the whole duration."""
    phases = load.prometheus.value('sum(precision_phase_duration_seconds_sum{variant="int8"})')
    duration = load.prometheus.value('precision_request_duration_seconds_sum{variant="int8"}')
    assert sum(load.int8_seconds) <= phases
    assert phases <= duration


def test_inference_is_the_time_that_the_engine_reports(load: Load) -> None:
    """The mean inference time is the 1 ms that the fake engine reports."""
    metric = 'precision_inference_duration_seconds_{}{{variant="int8"}}'
    assert load.prometheus.value(f"{metric.format('sum')} / {metric.format('count')}") == pytest.approx(0.001)


def test_a_lost_worker_and_rare_failures_raise_no_alert(load: Load) -> None:
    """Once no scrape is missing, no alert is firing or pending; a slow machine may raise the two for slowness."""
    slowness = {"PrecisionSlow", "PrecisionSaturated"}
    until(lambda: {labels["alertname"] for labels, _ in load.prometheus.query("ALERTS")} <= slowness, 30, "silence")
    assert load.prometheus.query('precision_selftest_agreement_ratio{variant="fp16"}') == []


def dashboard_queries() -> list[str]:
    panels = json.loads((ROOT / "deploy/grafana/dashboards/precision.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    filled = [query.replace("$__rate_interval", "1m").replace("$instance", ".*") for query in queries]
    return [query.replace("$variant", "fp32|int8") for query in filled]


def documented_queries() -> list[str]:
    blocks = re.findall(r"^```promql\n(.*?)^```", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE | re.DOTALL)
    queries = [query for block in blocks for query in block.strip().split("\n\n")]
    return [query for query in queries if "clock_ratio" not in query]  # only a GPU has this series


def scaling_queries() -> list[str]:
    """Return the queries by which KEDA scales, about the job of this Prometheus."""
    file = ROOT / "deploy/kubernetes/components/autoscale/scaled-object.yaml"
    triggers = yaml.safe_load(file.read_text())["spec"]["triggers"]
    return [
        trigger["metadata"]["query"].replace('job="precision/precision"', 'job="precision"') for trigger in triggers
    ]


def without_limit(expression: str) -> str:
    """Return the left side of `something > limit`: a silent alert has no data, but its left side has."""
    return re.sub(r"\s[<>]\s[\d.]+$", "", expression)


@pytest.mark.parametrize("query", [*dashboard_queries(), *scaling_queries(), *map(without_limit, documented_queries())])
def test_a_query_gives_data(load: Load, query: str) -> None:
    """Each panel, each trigger of KEDA and each example of docs/metrics.md gives data, once no scrape is missing."""
    until(lambda: load.prometheus.query(query), 30, "data")


def test_every_rule_gives_data(load: Load) -> None:
    """Every recorded series exists, and the left side of every alert has a value."""
    rules = load.prometheus.rules()
    assert len(rules) > 10
    assert [name for name, query in rules.items() if not load.prometheus.query(without_limit(query))] == []
