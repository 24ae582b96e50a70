"""The exposition: complete from the start, exact, and clean to Prometheus's own linter."""

import asyncio
import os
import subprocess
from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.client import scrape
from service.errors import REASONS
from service.metrics import OUTCOMES, PHASES, STATES, Metrics
from service.workers import memory
from service.workers.memory import Process, Readings
from service.workers.status import State
from tests import tools
from tests.service import fakes

INFO = fakes.worker_info(checkpoint_sha256="ab" * 32, activation_peaks={1: 100, 2: 190})


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(["fp32", "int8"])
    metrics.watch(lambda: {"fp32": 3, "int8": 0}, Readings(dict), lambda: 7)
    metrics.state("int8", "ready", ["ready"], [INFO])
    return metrics


def key(*parts: str) -> frozenset[str]:
    return frozenset(parts)


def text(metrics: Metrics) -> str:
    return asyncio.run(metrics.exposition()).decode()


def samples(metrics: Metrics) -> dict[frozenset[str], float]:
    """Return the value of each sample by {name, label values...}."""
    families = text_string_to_metric_families(text(metrics))
    return {frozenset((s.name, *s.labels.values())): s.value for family in families for s in family.samples}


def test_every_outcome_and_phase_exists_from_the_start(metrics: Metrics) -> None:
    """A rate over a series that appears with its first event misses that event."""
    found = samples(metrics)
    for variant in ("fp32", "int8"):
        assert [o for o in OUTCOMES if found.get(key("precision_requests_total", variant, o)) != 0] == []
        assert [p for p in PHASES if found.get(key("precision_phase_duration_seconds_count", variant, p)) != 0] == []
    assert [word for word in REASONS if key("precision_requests_total", "unknown", word) not in found] == []
    assert [o for o in OUTCOMES if found.get(key("precision_compare_requests_total", o)) != 0] == []


def test_an_ended_request_counts_once(metrics: Metrics) -> None:
    """Counter, duration and in-flight gauge move together; unknown variants share one label value."""
    metrics.started("int8")
    assert samples(metrics)[key("precision_requests_in_flight", "int8")] == 1
    metrics.ended("int8", "deadline", 0.5)
    metrics.started("../etc/passwd")
    metrics.ended("../etc/passwd", "unknown_variant", 0.1)
    found = samples(metrics)
    assert found[key("precision_requests_in_flight", "int8")] == 0
    assert found[key("precision_requests_total", "int8", "deadline")] == 1
    assert found[key("precision_request_duration_seconds_sum", "int8")] == 0.5
    assert found[key("precision_requests_total", "unknown", "unknown_variant")] == 1
    assert "passwd" not in text(metrics)


def test_an_answer_is_observed_with_its_device(metrics: Metrics) -> None:
    """One answered prediction is observed in phases, inference, memory and images, with its device."""
    metrics.answered("int8", INFO, 4, dict.fromkeys(PHASES, 0.25), 1000)
    found = samples(metrics)
    assert found[key("precision_inference_duration_seconds_sum", "int8", "cpu")] == 0.25
    assert found[key("precision_inference_memory_bytes_sum", "int8", "cpu", "activation_peak")] == 1000
    assert found[key("precision_images_total", "int8")] == 4
    assert sum(found[key("precision_phase_duration_seconds_count", "int8", phase)] for phase in PHASES) == len(PHASES)


def test_help_says_which_bytes_are_bounds_or_shares(metrics: Metrics) -> None:
    """The help texts name upper bounds, lower bounds and amortised shares: an operator may read only the scrape."""
    metrics.watch(lambda: {"fp32": 0, "int8": 0}, Readings(lambda: {"int8": [Process(os.getpid())]}), int)
    help_of = {family.name: family.documentation for family in metrics.registry.collect()}
    for name, words in {
        "precision_inference_memory_bytes": ("all its requests together", "lower bound", "upper bound"),
        "precision_activation_peak_bytes": ("upper bound",),
        "precision_memory_bytes": ("upper bound", "amortised share", "CUDA context included", "do not add it up"),
    }.items():
        assert [word for word in words if word not in help_of[name]] == []


def test_a_batch_keeps_a_worker_busy(metrics: Metrics) -> None:
    """Size and time of a batch count once, however many requests it answers."""
    metrics.batch("int8", 8, 0.25)
    found = samples(metrics)
    assert found[key("precision_batch_size_sum", "int8")] == 8
    assert found[key("precision_worker_busy_seconds_total", "int8")] == 0.25


def test_a_variant_is_in_one_state(metrics: Metrics) -> None:
    """Every state of a pool has a series. Exactly one of a variant is 1, at first `starting`."""
    assert set(STATES) == set(State)
    found = samples(metrics)
    state = {name: [s for s in STATES if found[key("precision_variant_state", name, s)]] for name in metrics.names}
    assert state == {"fp32": ["starting"], "int8": ["ready"]}


def test_what_was_not_measured_is_not_zero(metrics: Metrics) -> None:
    """A variant that never started has no agreement, load or warm-up time: a 0 would read as a measurement."""
    found = samples(metrics)
    for name in ("precision_selftest_agreement_ratio", "precision_load_seconds", "precision_warmup_seconds"):
        assert found[key(name, "int8")] > 0
        assert key(name, "fp32") not in found


def test_a_lost_variant_is_not_ready(metrics: Metrics) -> None:
    """A variant without a ready worker is not ready; the description of its engine stays."""
    metrics.state("int8", "starting", ["starting"], [])
    found = samples(metrics)
    assert found[key("precision_variant_ready", "int8")] == 0
    assert found[key("precision_model_bytes", "int8", "serialized")] == 3
    assert infos(metrics, "int8") == ["cpu"]


def infos(metrics: Metrics, variant: str) -> list[str]:
    """Return the devices of a variant's info series, sorted."""
    families = text_string_to_metric_families(text(metrics))
    series = [s.labels for family in families for s in family.samples if s.name == "precision_variant_info"]
    return sorted(labels["device"] for labels in series if labels["variant"] == variant)


def test_workers_are_counted_by_state(metrics: Metrics) -> None:
    """A failed worker is counted though another keeps the variant ready; at the start all counts are 0."""
    metrics.state("int8", "ready", ["ready", "failed", "ready"], [INFO, INFO])
    found = samples(metrics)
    assert {state: found[key("precision_workers", "int8", state)] for state in STATES} == {
        "starting": 0, "ready": 2, "failed": 1, "unavailable": 0,
    }  # fmt: skip
    assert {found[key("precision_workers", "fp32", state)] for state in STATES} == {0}


def test_the_worst_worker_stands_for_its_variant(metrics: Metrics) -> None:
    """The lowest agreement and the longest times of the ready workers count, in either order."""
    other = replace(INFO, selftest_agreement=0.5, load_seconds=0.25, warmup_seconds=4.0)
    for workers in ([INFO, other], [other, INFO]):
        metrics.state("int8", "ready", ["ready", "ready"], workers)
        found = samples(metrics)
        assert found[key("precision_selftest_agreement_ratio", "int8")] == 0.5
        assert found[key("precision_load_seconds", "int8")] == 0.5
        assert found[key("precision_warmup_seconds", "int8")] == 4.0


def test_each_device_has_an_info_of_what_runs_there_now(metrics: Metrics) -> None:
    """Two workers on one device share an info; an engine that no ready worker runs any more has none."""
    first, second = replace(INFO, device="cuda:0"), replace(INFO, device="cuda:1")
    metrics.state("fp32", "ready", ["ready"] * 3, [first, second, second])
    assert infos(metrics, "fp32") == ["cuda:0", "cuda:1"]
    metrics.state("fp32", "ready", ["ready", "starting", "starting"], [first])
    assert infos(metrics, "fp32") == ["cuda:0"]
    metrics.state("fp32", "ready", ["ready"], [replace(first, checkpoint_sha256="cd" * 32)])
    assert infos(metrics, "fp32") == ["cuda:0"]
    assert "cd" * 32 in text(metrics)
    metrics.state("fp32", "ready", ["ready"] * 2, [first, second])
    assert infos(metrics, "fp32") == ["cuda:0", "cuda:1"]


def test_the_load_test_reads_several_infos_of_a_variant(metrics: Metrics) -> None:
    """The load test keeps the infos of two devices apart."""
    workers = [replace(INFO, device=f"cuda:{index}") for index in range(2)]
    metrics.state("fp32", "ready", ["ready", "ready"], workers)
    reading = scrape.parse(text(metrics)).about("fp32")
    assert reading.label_values("precision_variant_info", "device") == ["cuda:0", "cuda:1"]
    assert reading.total("precision_workers", state="ready") == 2


def test_activation_peaks_have_a_series_per_batch_size(metrics: Metrics) -> None:
    """Every batch size of the warm-up has a series; the clock ratio exists only on a GPU, which has a second clock."""
    found = samples(metrics)
    assert found[key("precision_activation_peak_bytes", "int8", "1")] == 100
    assert found[key("precision_activation_peak_bytes", "int8", "2")] == 190
    assert not any("precision_inference_clock_ratio" in sample for sample in found)
    metrics.state("fp32", "ready", ["ready"], [replace(INFO, device="cuda:0", clock_ratio=0.97)])
    assert samples(metrics)[key("precision_inference_clock_ratio", "fp32", "cuda:0")] == 0.97


def test_memory_of_all_workers_of_a_variant_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum per kind leaves out a worker that ended and a kind that a worker does not know."""
    readings = {1: {"rss": 10, "process_gpu": 5}, 2: {"rss": 20}, 3: {}}
    monkeypatch.setattr(memory, "read", lambda process: readings[process.pid])
    metrics = Metrics(["int8", "fp32", "fp16"])
    workers = {"int8": [Process(1), Process(2)], "fp32": [Process(3)]}
    metrics.watch(lambda: dict.fromkeys(metrics.names, 0), Readings(lambda: workers), int)
    found = samples(metrics)
    assert found[key("precision_memory_bytes", "int8", "rss")] == 30
    assert found[key("precision_memory_bytes", "int8", "process_gpu")] == 5
    assert not any({"precision_memory_bytes", "fp32"} <= sample for sample in found)


def test_depth_is_read_at_the_scrape(metrics: Metrics) -> None:
    """The queue's depth is read at the scrape."""
    assert samples(metrics)[key("precision_queue_depth", "fp32")] == 3


def test_lost_log_lines_are_counted(metrics: Metrics) -> None:
    """The lines that could not be written have a counter without labels."""
    assert samples(metrics)[key("precision_log_lines_dropped_total")] == 7


def test_a_scrape_in_steps_is_the_librarys_text(metrics: Metrics) -> None:
    """The pieces add up to what prometheus_client writes at once, but for the numbers of this very process."""
    metrics.ended("int8", "ok", 0.5)

    def still(exposition: str) -> list[str]:
        return [line for line in exposition.splitlines() if not line.startswith("process_")]

    assert still(text(metrics)) == still(generate_latest(metrics.registry).decode())


@pytest.mark.needs("promtool")
def test_promtool_finds_nothing(metrics: Metrics) -> None:
    """`promtool check metrics` reports nothing."""
    done = subprocess.run(
        [tools.find("promtool"), "check", "metrics"], input=text(metrics).encode(), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
