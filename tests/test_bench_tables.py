"""The tables of the engines' benchmark."""

from typing import Any

from benchmarks import engines, tables

PEERS = ("ONNX Runtime fp32", "OpenVINO fp32")
OURS = tables.OUR_NAMES["float32"]


def part(date: str, **rows: dict[str, Any]) -> dict[str, Any]:
    """Return a run as `python -m benchmarks.engines` stores it."""
    return {"threads": 1, "machine": {"cpu": "a CPU", "date": date}, "rows": {PEERS[0]: turns(1.0)} | rows}


def turns(*medians: float) -> dict[str, Any]:
    """Return a row with a round of three equal calls per median."""
    return {"seconds": {"1": [[median] * 3 for median in medians]}}


def verdicts(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Return the verdicts that compare fp32-cpu with PEERS at batch 1."""
    lines = tables.bars([{"threads": 1, "rows": rows}]).splitlines()
    return [line.split(" | ")[-1].strip(" |") for line in lines if f"{OURS}, x" in line and "| 1 | 1 | 0.9 |" in line]


def test_a_bar_is_judged_against_the_fastest_and_by_its_spread() -> None:
    """The verdict on 0.9 x the faster peer depends on the median and the lower quartile of the rounds."""
    peers = {PEERS[0]: turns(1, 1, 1, 1), PEERS[1]: turns(2, 2, 2, 2)}
    assert verdicts(peers | {OURS: turns(1, 1, 1, 1)}) == ["holds"]
    assert verdicts(peers | {OURS: turns(1, 1, 2, 1.05)}) == ["holds, within the noise"]
    assert verdicts(peers | {OURS: turns(2, 2, 2, 2)}) == ["**falls short**"]


def test_a_bar_without_a_peer_is_not_judged() -> None:
    """A bar without one of its peers is not judged, since that peer may be the fastest."""
    rows = {OURS: turns(1), PEERS[0]: turns(1), PEERS[1]: {"reason": "no such package"}}
    assert verdicts(rows) == ["**not judged**: OpenVINO fp32 did not run"]


def test_half_precision_is_compared_with_eager_alone() -> None:
    """A row in bfloat16 has no peer and no floor in its dtype; where the CPU lacks it, the row is listed as not run."""
    name = tables.OUR_NAMES["bfloat16"]
    run = part(
        "a",
        **{tables.REFERENCE: turns(3.0), name: turns(1.5), tables.OUR_NAMES["float16"]: {"reason": "unavailable: why"}},
    )
    assert f"| **{name}** | 2.00 / - / - |" in tables.ratios(run)
    assert tables.missing([run]).splitlines()[2:] == ["- this project, fp16-cpu, 1 thread(s): unavailable: why"]


def test_a_row_that_failed_keeps_nothing_of_an_earlier_run() -> None:
    """A row that failed drops its earlier results, and a row that runs again drops its reason."""
    good, bad = {OURS: turns(1.0)}, {OURS: {"reason": "broken"}}
    (run,) = engines.merged([part("a", **good), part("b", **bad)])
    assert run["rows"][OURS] == {"reason": "broken"}
    (run,) = engines.merged([part("a", **bad), part("b", **good)])
    assert run["rows"][OURS] == turns(1.0)
    assert tables.joined(run["machines"]) == {"cpu": "a CPU", "date": "a / b"}
