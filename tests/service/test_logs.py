"""One line per prediction, for machines and for people."""

import json
import logging
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service import logs
from service.logs import JsonFormatter, Output, RequestLog
from service.metrics import PHASES
from tests.service import fakes
from tests.service.pictures import png
from tests.service.processes import running

PNG = {"content-type": "image/png"}
ENDED = ("abc-1", "int8", "ok", 2, 0.0123456789, {"decode": 0.001, "inference": 0.01})


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the log of a service whose stderr is a file, after predictions, an engine's error and a comparison."""
    path = tmp_path_factory.mktemp("log") / "log"
    with path.open("w") as log, running("--variants", "fp32,int8", module="tests.service.fakes", log=log) as service:
        for route, body in (
            ("/predict/int8", png(3)), ("/predict/int8", b"no image"), ('/predict/fp64" }', png(3)),
            ("/predict/compare", png(3)), ("/predict/fp32", png(fakes.RAISE)), ("/compare", png(3)),
        ):  # fmt: skip
            service.client.post(route, content=body, headers=PNG | {"x-request-id": "abc-1"})
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_is_an_object(lines: list[dict[str, Any]]) -> None:
    """Each line has time, level, logger and message, also those of the workers and of uvicorn."""
    assert [line for line in lines if not {"time", "level", "logger", "message"} <= set(line)] == []
    assert {"uvicorn.error", "service.workers.loop", "service.requests"} <= {line["logger"] for line in lines}


def test_a_prediction_is_one_line(lines: list[dict[str, Any]]) -> None:
    """Each prediction and comparison has one line; its variant is `unknown` if it does not exist."""
    found = [line for line in lines if line["logger"] == "service.requests"]
    assert {line["request_id"] for line in found} == {"abc-1"}
    assert [(line["variant"], line["outcome"], line["status"], line["images"]) for line in found] == [
        ("int8", "ok", 200, 1), ("int8", "not_an_image", 400, 0), ("unknown", "unknown_variant", 404, 0),
        ("unknown", "unknown_variant", 404, 0), ("fp32", "internal", 500, 1), ("compare", "ok", 200, 1),
    ]  # fmt: skip
    assert list(found[-1]["phases"]) == ["receive", "decode"]


def test_an_answered_line_has_every_phase(lines: list[dict[str, Any]]) -> None:
    """The phases of an answered line add up to between half and all of the request's time."""
    line = next(line for line in lines if line.get("outcome") == "ok")
    assert tuple(line["phases"]) == PHASES
    assert 0.5 * line["seconds"] < sum(line["phases"].values()) <= line["seconds"] + 1e-5


def test_an_engines_error_carries_its_traceback(lines: list[dict[str, Any]]) -> None:
    """The traceback is one field of one line."""
    (line,) = [line for line in lines if line["logger"] == "service.workers.loop"]
    assert line["level"] == "error"
    assert "RuntimeError: told to" in line["exception"]


def test_a_terminal_gets_a_readable_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal gets a line with milliseconds instead of JSON."""
    caplog.set_level(logging.INFO, "service.logs")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    RequestLog(["int8"])(*ENDED)
    expected = "INFO int8 200 ok images=2 ms=12.35 decode=1.00 inference=10.00 id=abc-1\n"
    assert capsys.readouterr().err == expected


def test_a_higher_level_leaves_the_lines_out(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """At `--log-level warning` a prediction has no line."""
    caplog.set_level(logging.WARNING, "service.logs")
    RequestLog(["int8"])(*ENDED)
    assert capsys.readouterr().err == ""


def test_a_line_that_cannot_be_written_is_counted() -> None:
    """On a full disk nothing is raised; each line counts as dropped."""
    with Path("/dev/full").open("wb", buffering=0) as full:
        output = Output(full.fileno())
        print("one\ntwo", file=output)
        output.finish()
        assert output.dropped == 2


@pytest.fixture
def unread() -> Iterator[int]:
    """Return the end of a full pipe that nobody reads."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write_end, bytes(select.PIPE_BUF))
    os.set_blocking(write_end, True)
    yield write_end
    os.close(write_end)
    os.close(read_end)


def test_lines_that_nobody_takes_are_dropped_and_the_end_does_not_wait(unread: int) -> None:
    """With a full queue before a full pipe, further lines are counted and lost; the end waits for END_SECONDS."""
    output = Output(unread)
    for _ in range(logs.MAX_WAITING + select.PIPE_BUF + 100):  # some are in the hands of the thread
        output.write("\n")
    assert output.dropped >= 100
    began = time.monotonic()
    output.finish()
    assert time.monotonic() - began < logs.END_SECONDS + 5


def test_lines_are_written_in_order_at_the_end(tmp_path: Path) -> None:
    """`finish` returns when everything that waited is written."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        output = Output(file.fileno())
        for number in range(1000):
            print(number, file=output)
        output.finish()
    assert path.read_text().split() == [str(number) for number in range(1000)]


def test_a_service_whose_log_nobody_reads_answers_and_ends(unread: int) -> None:
    """With stderr in a full pipe 400 predictions and an engine's error are answered, and SIGTERM ends the service."""
    with (
        open(unread, "w", closefd=False) as log,
        running("--variants", "fp32", module="tests.service.fakes", log=log) as service,
    ):
        asked = [service.client.post("/predict/fp32", content=png(3), headers=PNG).status_code for _ in range(400)]
        assert asked == [200] * 400
        assert service.client.post("/predict/fp32", content=png(fakes.RAISE), headers=PNG).status_code == 500
        assert service.client.post("/predict/fp32", content=png(3), headers=PNG).status_code == 200
        assert service.stop() == 0


def test_a_quote_in_a_message_is_escaped() -> None:
    """A line with quotes and line ends in its message is still JSON."""
    record = logging.LogRecord("x", logging.INFO, "", 0, 'a "%s"\n', ("b",), None)
    assert json.loads(JsonFormatter().format(record))["message"] == 'a "b"\n'
