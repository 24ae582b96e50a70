"""The signals that end a run early."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import gevent

from loadtest.console import tell
from loadtest.slo.turns import Stopped


class Interrupt:
    """The handler of Ctrl-C, SIGTERM and SIGHUP, from the first round until the report is written.

    The first Ctrl-C ends the run after the current round. A second one, SIGTERM and SIGHUP drop the current round. A
    third Ctrl-C ends the process without a report; SIGTERM and SIGHUP never do. SIGHUP is left alone under `nohup`.
    """

    def __init__(self) -> None:
        self.signum: signal.Signals | None = None
        """The last signal that asked the run to end."""
        self._playing: gevent.greenlet | None = None
        self._ctrl_c = gevent.signal_handler(signal.SIGINT, self._ask)
        for signum in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                gevent.signal_handler(signum, self._end, signum)

    def asked(self) -> bool:
        """Return whether a signal asked the run to end."""
        return self.signum is not None

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Raise Stopped inside of this context when a signal drops the current round."""
        self._playing = gevent.getcurrent()
        try:
            yield
        finally:
            self._playing = None

    def _ask(self) -> None:
        if self.signum is None:
            self.signum = signal.SIGINT
            tell("stopping after this round; Ctrl-C again drops the round", sys.stderr)
        else:
            self._ctrl_c.cancel()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._end(signal.SIGINT)

    def _end(self, signum: signal.Signals) -> None:
        self.signum = signum
        gevent.get_hub().loop.run_callback(self._throw)

    def _throw(self) -> None:
        """Raise Stopped in the greenlet that plays. It waits, since the event loop runs now."""
        if self._playing is not None:
            self._playing.throw(Stopped)
