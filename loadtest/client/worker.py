"""The worker of a load test over several processes or machines. It plays its part of each round of the master."""

import os
import socket
from typing import Any

from locust.env import Environment

from loadtest.client.generator import silence_locust, wait_for
from loadtest.client.messages import Done, Hello, Order, Ready, Rewind, Setup, packed, source, unpacked
from loadtest.client.rounds import Rounds, wake_on_time
from loadtest.client.users import Desk, LoadUser


class Sender(LoadUser):
    """The users of a worker. The master's first message says whom they ask."""


class Worker:
    """A connected worker."""

    def __init__(self, host: str, port: int) -> None:
        """Connect to the master, for five minutes at most.

        Raises:
            ConnectionError: nobody answers there.
        """
        silence_locust()
        wake_on_time()
        self._desk, self._rounds = Desk(), Rounds(Desk(), 0.0)
        self._runner = Environment(user_classes=[Sender]).create_worker_runner(host, port)
        for kind, handler in ((Setup, self._set_up), (Rewind, self._rewind), (Order, self._play)):
            self._runner.register_message(kind.__name__, handler, concurrent=True)
        self._send(Hello(socket.gethostname(), os.getpid(), source()))

    def run(self) -> None:
        """Work until the master ends the run or is gone for a minute."""
        self._runner.greenlet.join()
        self._runner.client.close(linger=0)  # type: ignore[no-untyped-call]

    def _send(self, content: Hello | Ready | Done) -> None:
        self._runner.send_message(type(content).__name__, packed(content))

    def _set_up(self, environment: Environment, msg: Any) -> None:
        setup = unpacked(Setup, msg.data)
        self._rounds = Rounds(self._desk, setup.timeout, setup.first)
        Sender.desk, Sender.wires, Sender.timeout = self._desk, setup.wires, setup.timeout
        self._runner.spawn_users({Sender.__name__: setup.users})
        wait_for(self._desk, setup.users)
        self._send(Ready())

    def _rewind(self, environment: Environment, msg: Any) -> None:
        self._rounds.rewind()

    def _play(self, environment: Environment, msg: Any) -> None:
        order = unpacked(Order, msg.data)
        self._send(Done(order.number, self._rounds.play(order.round)))
