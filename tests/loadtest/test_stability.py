"""The stability of rounds."""

import numpy as np

from loadtest.analysis.stability import chance, drifts, saturated, unstable
from loadtest.plan import Arm, Workload
from loadtest.records import Played
from tests.loadtest import builders
from tests.loadtest.builders import FP32, INT8, arm, request

CLOSED, OPEN = Workload(concurrency=1), Workload(rate=50)
FP16 = arm("fp16", device="cpu", reference="fp32")


def played(
    latency: float, requests: int, workload: Workload, block: int = 0, of: Arm = FP32, *, ended: float = 1.0
) -> Played:
    """Return a round of one second with evenly spaced requests, of which the share `ended` ends in time."""
    starts = [float(start) for start in np.linspace(0, 0.9, requests)]
    records = [request(s, latency if i < ended * requests else 9.0, i) for i, s in enumerate(starts)]
    return builders.played(of, records, workload, block)


def changing(*latencies: float, requests: int = 50, workload: Workload = OPEN, of: Arm = FP32) -> list[Played]:
    """Return six rounds for each latency."""
    each = [latency for latency in latencies for _ in range(6)]
    return [played(latency, requests, workload, block, of) for block, latency in enumerate(each)]


def moves(rounds: list[Played]) -> list[str]:
    """Return what drifted in a run of these rounds, each as `arm: words up to a comma`."""
    arms = list(dict.fromkeys(p.arm for p in rounds))
    workloads = list(dict.fromkeys(p.round.workload for p in rounds))
    return [f"{found.arm}: {found.reason.split(',')[0]}" for found in unstable(arms, workloads, rounds)]


def test_equal_rounds_do_not_drift() -> None:
    """Eighteen equal rounds have the same mean in every third."""
    assert moves(changing(0.01, 0.01, 0.01)) == []


def test_a_change_of_throughput_is_a_drift() -> None:
    """The last third answers a fifth fewer requests; the words tell how far each third lies from the mean."""
    rounds = [played(0.01, 50 if block < 12 else 40, CLOSED, block) for block in range(18)]
    (found,) = unstable([FP32], [CLOSED], rounds)
    assert (found.arm, found.workload) == ("fp32", "1 user")
    assert found.reason.startswith(
        "drift: throughput changed, the thirds of the rounds lie +7.7 %, +7.7 %, -13.8 % from"
    )


def test_a_change_of_latency_at_equal_throughput_is_a_drift() -> None:
    """An open workload hides a slower server from throughput, not from latency."""
    assert moves(changing(0.01, 0.01, 0.02)) == ["fp32: drift: p50 changed"]


def test_a_change_of_the_machine_is_no_drift_of_the_ratio() -> None:
    """Both arms become twice as slow."""
    assert moves([*changing(0.01, 0.01, 0.02), *changing(0.01, 0.01, 0.02, of=INT8)]) == []


def test_a_ratio_that_drifts_makes_both_of_its_cells_invalid() -> None:
    """One of the two arms changes; which one, the ratio cannot tell."""
    some = moves([*changing(0.01, 0.01, 0.01), *changing(0.01, 0.01, 0.02, of=INT8)])
    assert some == ["int8: drift: p50 relative to fp32 changed", "fp32: drift: every ratio to this cell drifted"]


def test_a_baseline_with_one_steady_ratio_holds() -> None:
    """fp16 keeps its ratio to fp32, so it is int8 that changed."""
    steady = [*changing(0.01, 0.01, 0.01), *changing(0.01, 0.01, 0.01, of=FP16)]
    assert moves([*steady, *changing(0.01, 0.01, 0.02, of=INT8)]) == ["int8: drift: p50 relative to fp32 changed"]


def test_a_small_drift_is_named_and_makes_no_cell_invalid() -> None:
    """The ratio of int8 moves by 1.5 % in the last third, and every other round of a third is the same."""
    rounds = [*changing(0.01, 0.01, 0.01), *changing(0.01, 0.01, 0.01015, of=INT8)]
    assert moves(rounds) == []
    named = [(drift.arm, drift.is_small) for drift in drifts([FP32, INT8], [OPEN], rounds)]
    assert named == [("int8", True), ("fp32", True)]
    made = builders.report(rounds, builders.settings(workloads=(OPEN,)))
    assert not any("drift" in reason for reason in made.reasons)
    assert any(
        note.startswith("int8, 50 requests/s: drift: p50 relative to fp32 changed")
        and note.endswith("so the cell stays valid.")
        for note in made.notes
    )


def test_a_large_drift_of_one_number_outweighs_a_small_one_of_another() -> None:
    """p50 moves by 1.5 %, and p95 by half."""
    rounds = []
    for block in range(18):
        latencies = [0.01, 0.02] if block < 12 else [0.01015, 0.03]
        records = [request(0.01 * i, latencies[i >= 40], i) for i in range(50)]
        rounds.append(builders.played(FP32, records, OPEN, block))
    assert moves(rounds) == ["fp32: drift: p95 changed"]


def test_two_rounds_cannot_drift() -> None:
    """Two rounds have no thirds to compare."""
    assert moves([played(0.01, 50, CLOSED), played(0.01, 10, CLOSED, 1)]) == []


def test_the_permutation_test_keeps_its_level() -> None:
    """Of 400 series without a trend, 5 % have a chance of 5 % at most (3 to 8 % is chance)."""
    rng = np.random.default_rng(0)
    assert 0.03 <= np.mean([chance(rng.exponential(size=20)) <= 0.05 for _ in range(400)]) <= 0.08


def test_an_open_workload_that_is_not_answered_in_time_is_saturated() -> None:
    """Nine of ten answers in time are too few; a closed workload is never saturated."""
    assert saturated([played(0.01, 50, OPEN, ended=0.9)])
    assert not saturated([played(0.01, 50, OPEN)])
    assert not saturated([played(0.01, 50, CLOSED, ended=0.9)])
