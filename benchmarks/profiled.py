"""This service with a profiler that signals switch: `python -m benchmarks.profiled PORT FOLDER [VARIANT]`.

BEGIN starts Python's profiler in the thread of the event loop. END stops it and writes two files into FOLDER: `stats`,
which pstats reads, and then `times`, JSON with the seconds of processor time of this thread and of all threads.
Without a variant the engine is the no-op of benchmarks.noop.
"""

import cProfile
import json
import signal
import sys
import time
from pathlib import Path

BEGIN, END = signal.SIGRTMIN, signal.SIGRTMIN + 1


class Switch:
    """The profiler, and the clocks when it was started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._profiler = cProfile.Profile(time.thread_time_ns, 1e-9)
        self._began = (0.0, 0.0)

    def begin(self, *_: object) -> None:
        """Start the profiler."""
        self._profiler = cProfile.Profile(time.thread_time_ns, 1e-9)
        self._began = (time.thread_time(), time.process_time())
        self._profiler.enable()

    def end(self, *_: object) -> None:
        """Stop the profiler and write both files."""
        self._profiler.disable()
        thread, process = time.thread_time() - self._began[0], time.process_time() - self._began[1]
        self._profiler.dump_stats(self._folder / "stats")
        part = self._folder / "times.part"
        part.write_text(json.dumps({"thread": thread, "process": process}))
        part.rename(self._folder / "times")


def main(port: int, folder: Path, variant: str = "") -> None:
    """Serve until the process is stopped."""
    from benchmarks.noop import NoopAPI  # noqa: PLC0415 - benchmarks.costs reads the signals without the service
    from service.serving import serve  # noqa: PLC0415
    from service.settings import Settings  # noqa: PLC0415
    from service.workers.api import PrecisionAPI  # noqa: PLC0415

    switch = Switch(folder)
    signal.signal(BEGIN, switch.begin)
    signal.signal(END, switch.end)
    settings = Settings(port=port, variants=(variant or "fp32",), log_level="info")
    serve(settings, api=PrecisionAPI if variant else NoopAPI)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
