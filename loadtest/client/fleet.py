"""The load generator over several processes or machines: locust's master, which orders rounds and merges records."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from gevent.event import Event
from locust.env import Environment
from locust.exception import RPCError
from pydantic import ValidationError

from loadtest.client.generator import CONNECT_TIMEOUT, silence_locust
from loadtest.client.messages import (
    Content,
    Done,
    Hello,
    Order,
    Ready,
    Rewind,
    Setup,
    merged,
    packed,
    shares,
    source,
    unpacked,
)
from loadtest.client.users import LoadUser
from loadtest.client.wire import Wire
from loadtest.options import Options, Place
from loadtest.plan import Round
from loadtest.records import Stretch

JOIN_TIMEOUT = 600.0
"""Seconds that workers on other machines may take to join."""
OWN = Place("127.0.0.1", 0)
"""Where workers join that the load test starts itself: any free port."""
GRACE = 15.0
"""Seconds that a worker may take to send its part of a round, beyond the round and its last answers."""
LOOK = 0.1
"""Seconds between two looks at whether every worker is still there."""
MISSING = "missing"
"""The state that locust gives a worker that has sent no heartbeat for about four seconds."""


class FleetError(Exception):
    """The load cannot be sent: a worker is lost or never came; the text names it."""


@dataclass
class _Member:
    """A worker that has joined. `ready` and `done` hold what it has sent since the last order."""

    client_id: str
    pid: int
    name: str
    ready: bool = False
    done: Done | None = None


class Fleet:
    """Plays rounds with the users of several workers."""

    def __init__(self, wires: Mapping[str, Wire], users: int, options: Options, say: Callable[[str], None]) -> None:
        silence_locust()
        self._wires, self._users, self._timeout = wires, users, options.timeout
        self._count, self._master, self._say = options.workers, options.master, say
        self._members: list[_Member] = []
        self._strangers: list[str] = []
        self._news = Event()
        self._numbers = count()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._runner: Any = None

    @property
    def workers(self) -> tuple[str, ...]:
        """The names of the workers."""
        return tuple(member.name for member in self._members)

    def start(self) -> None:
        """Wait until every worker has joined and its users are connected.

        Raises:
            FleetError: the port is taken, or a worker does not join or is lost.
        """
        self._listen()
        if self._master:
            self._say(f"waiting for {self._count} workers at {self._master}")
        else:
            self._processes = [_started(self._runner.server.port) for _ in range(self._count)]
        self._wait(lambda: len(self._members) >= self._count, JOIN_TIMEOUT, "not all workers joined")
        each, bodies = -(-self._users // self._count), len(next(iter(self._wires.values())).bodies)
        for number, member in enumerate(self._members):
            first = number * bodies // self._count
            self._send(Setup(self._wires, each, self._timeout, first), member)
        self._wait(lambda: all(m.ready for m in self._members), CONNECT_TIMEOUT + GRACE, "users did not connect")

    def stop(self) -> None:
        """End every worker."""
        if self._runner:
            self._runner.quit()
            self._runner.server.close(linger=0)  # else the process waits at its end for workers that are gone
        for process in self._processes:
            process.terminate()
            process.wait()

    def rewind(self) -> None:
        """Let every arm begin with its first request again."""
        for member in self._members:
            self._send(Rewind(), member)

    def play(self, planned: Round) -> Stretch:
        """Play one round to its last answer on all workers at once.

        Raises:
            FleetError: a worker is lost; the error names it.
        """
        number, began = next(self._numbers), time.perf_counter()
        parts = zip(self._members, shares(planned, len(self._members)), strict=True)
        playing = [(member, part) for member, part in parts if part]
        for member, part in playing:
            member.done = None
            self._send(Order(number, part), member)
        limit = planned.settle + planned.seconds + 2 * self._timeout + GRACE
        members = [member for member, _ in playing]
        self._wait(lambda: all(m.done and m.done.number == number for m in members), limit, "no record of a round came")
        return merged([m.done.stretch for m in members if m.done], began + planned.settle)

    def play_on(self, rounds: Iterable[Round]) -> Iterator[tuple[Round, Stretch]]:
        """Refuse: a round on end begins while answers to the last one are missing, which only one process can do."""
        raise FleetError("--continuous plays in one process: leave out --workers")

    def _listen(self) -> None:
        class Sender(LoadUser):
            pass

        place = self._master or OWN
        try:
            environment = Environment(user_classes=[Sender])
            self._runner = environment.create_master_runner(place.host, place.port)
        except (SystemExit, RPCError):  # locust ends the process if the port is taken
            raise FleetError(f"no worker can join at {place}: the address is taken, or not of this machine") from None
        for kind, handler in ((Hello, self._join), (Ready, self._note), (Done, self._note)):
            self._runner.register_message(kind.__name__, handler)

    def _send(self, content: Content, member: _Member) -> None:
        self._runner.send_message(type(content).__name__, packed(content), member.client_id)

    def _join(self, environment: Environment, msg: Any) -> None:
        """Take in a worker, if it is expected and runs the same code."""
        try:
            hello = unpacked(Hello, msg.data)
        except ValidationError:
            hello = Hello(str(msg.node_id), 0, "")
        if hello.source != source():
            self._strangers.append(f"{hello.name} runs another version of the load test")
        elif len(self._members) < self._count:
            number = len(self._members) + 1
            self._members.append(_Member(msg.node_id, hello.pid, f"worker {number} ({hello.name})"))
            self._say(f"{self._members[-1].name} joined")
        self._news.set()

    def _note(self, environment: Environment, msg: Any) -> None:
        for member in self._members:
            if member.client_id == msg.node_id and msg.type == Ready.__name__:
                member.ready = True
            elif member.client_id == msg.node_id:
                member.done = unpacked(Done, msg.data)
        self._news.set()

    def _wait(self, is_over: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Wait until a condition holds.

        Raises:
            FleetError: a worker is lost meanwhile, or the time is over.
        """
        deadline = time.perf_counter() + seconds
        while not is_over():
            if lost := self._lost():
                raise FleetError(lost)
            if time.perf_counter() > deadline:
                raise FleetError(f"{otherwise} within {seconds:.0f} s")
            self._news.wait(LOOK)
            self._news.clear()

    def _lost(self) -> str:
        """Return why the run cannot go on; empty if every worker is there."""
        if self._strangers:
            return self._strangers[0]
        ended = [process.pid for process in self._processes if process.poll() is not None]
        for member in self._members:
            known = self._runner.clients.get(member.client_id)
            if known is None or known.state == MISSING or member.pid in ended:
                return f"{member.name} was lost"
        return "a worker ended before it joined" if ended else ""


def _started(port: int) -> subprocess.Popen[bytes]:
    """Start a worker on this machine. Ctrl-C does not reach it: the master ends it after the current round."""
    command = [sys.executable, "-m", "loadtest", "worker", f"127.0.0.1:{port}"]
    return subprocess.Popen(command, start_new_session=True)  # noqa: S603 - this package
