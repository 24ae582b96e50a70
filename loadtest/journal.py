"""The raw files of a run, which grow with each round, and with each run of a search for a service level.

A run that is killed loses the current round at most.

`requests.csv.gz` holds a row per request. `rounds.jsonl.gz` holds the rest in JSON, a line each: what is measured, then
every round, every run of a search and every service level. `python -m loadtest report FOLDER` makes a report of both.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile

from pydantic import TypeAdapter, ValidationError

from loadtest.energy import Metering
from loadtest.measured import Subjects
from loadtest.options import Options
from loadtest.records import Played, Request
from loadtest.slo.level import Level
from loadtest.slo.stopped import Searched

REQUESTS, ROUNDS = "requests.csv.gz", "rounds.jsonl.gz"
REPORTS = ("report.json", "report.md", "report.html")
"""The files of a report. The first round of a run removes those of the run before it."""
SEARCH = "search: "
"""The start of the workload of a request that belongs to a search; its block is the number of the run."""
COMPRESSION = 4
"""gzip's level: four times as fast as the default, for files a tenth larger."""


@dataclass(frozen=True)
class Started:
    """A run at its start."""

    command: tuple[str, ...]
    options: Options
    subjects: Subjects
    metering: Metering = field(default_factory=Metering)


@dataclass(frozen=True)
class Kept:
    """A round of one arm. Its `requests` requests are the next rows of the other file, and not in `played`."""

    requests: int
    played: Played


@dataclass(frozen=True)
class Tried:
    """A run of a search. Its `requests` requests are the next rows of the other file, and not in `searched`."""

    requests: int
    searched: Searched


@dataclass(frozen=True)
class Record:
    """The content of the raw files."""

    started: Started
    played: tuple[Played, ...]
    searched: tuple[Searched, ...]
    """The runs of searches, without their requests."""
    levels: tuple[Level, ...]


Line = Started | Kept | Tried | Level
LINE: TypeAdapter[Line] = TypeAdapter(Line)
REQUEST = TypeAdapter(Request)


class NoRecord(Exception):
    """A folder without the raw files of a run; the text says why."""


class Journal:
    """The writer of the raw files. Each addition is a gzip member of its own, so the files can be read at any time."""

    def __init__(self, folder: Path, started: Started) -> None:
        """Make the folder.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
        self._folder, self._started = folder, started
        self._begun = False

    def add(self, rounds: Sequence[Played]) -> None:
        """Write the rounds of arms that were loaded together."""
        if not self._begun:
            self._begin()
        self._append(REQUESTS, "".join(_csv(_rows(played)) for played in rounds))
        self._append(ROUNDS, "".join(_line(Kept(len(played.requests), played.bare)) for played in rounds))

    def search(self, run: Searched) -> None:
        """Write a run of a search."""
        self._append(REQUESTS, _csv(_rows(run.played, SEARCH)))
        self._append(ROUNDS, _line(Tried(len(run.played.requests), replace(run, played=run.played.bare))))

    def level(self, level: Level) -> None:
        """Write a service level."""
        self._append(ROUNDS, _line(level))

    def _begin(self) -> None:
        for name in (REQUESTS, ROUNDS, *REPORTS):
            (self._folder / name).unlink(missing_ok=True)
        self._append(REQUESTS, _csv([("arm", "workload", "block", "counted", *Request._fields)]))
        self._append(ROUNDS, _line(self._started))
        self._begun = True

    def _append(self, name: str, text: str) -> None:
        with (self._folder / name).open("ab") as file:
            file.write(gzip.compress(text.encode(), COMPRESSION))


def _line(content: Line) -> str:
    return LINE.dump_json(content).decode() + "\n"


def _rows(played: Played, prefix: str = "") -> Iterator[tuple[object, ...]]:
    cell = (played.arm.name, prefix + played.round.workload.name, played.round.block)
    for request in played.requests:
        values = request._asdict() | {"answer": " ".join(map(str, request.answer))}
        yield (*cell, int(played.stretch.counts(request)), *values.values())


def _csv(rows: Iterator[tuple[object, ...]] | list[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def read(folder: Path) -> Record:
    """Return the rounds that a run wrote, up to the last whole one.

    Raises:
        OSError: a file cannot be read.
        NoRecord: the files are none of this version of the load test.
    """
    try:
        lines = [LINE.validate_json(line) for line in _lines(folder / ROUNDS)]
    except ValidationError as error:
        raise NoRecord(f"{folder / ROUNDS} was not written by this version of the load test ({error})") from None
    if not lines or not isinstance(lines[0], Started):
        raise NoRecord(f"{folder / ROUNDS} does not begin with the start of a run")
    requests = _requests(folder / REQUESTS)
    played = tuple(_with(line, islice(requests, line.requests)) for line in lines if isinstance(line, Kept))
    searched = tuple(line.searched for line in lines if isinstance(line, Tried))
    return Record(lines[0], played, searched, tuple(line for line in lines if isinstance(line, Level)))


def _with(kept: Kept, requests: Iterator[Request]) -> Played:
    played = kept.played
    return replace(played, stretch=replace(played.stretch, requests={played.arm.name: tuple(requests)}))


def _requests(path: Path) -> Iterator[Request]:
    for row in csv.DictReader(_lines(path)):
        yield REQUEST.validate_python(
            {name: row[name].split() if name == "answer" else row[name] for name in Request._fields}
        )


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file. A process that was killed while it wrote may have left half a line; it is dropped."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        try:
            yield from file
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return
