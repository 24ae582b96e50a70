"""Worker processes: on which devices, with which priority, and how they are started.

This module imports neither LitServe nor FastAPI. So the first workers start while the HTTP process imports those.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from common import machine
from models import checkpoint, files, nvml
from models.card import Card
from models.variants import REFERENCE, Variant, with_references
from service import forks
from service.settings import ALL, Settings
from service.workers import loop
from service.workers.api import PrecisionAPI
from service.workers.supervisor import Started, WorkerDied

NICENESS = 5
"""The steps by which a CPU worker's priority is below that of the HTTP process.

All requests of all variants go through the HTTP process, which needs less than one core. At equal priority, the threads
of two busy workers leave it a third of a core of two: then every request waits for it.
"""
MOST_SHADOW_IMAGES = 8
"""The largest batch of the shadow's worker."""
MakeAPI = Callable[[str, Settings], PrecisionAPI]


class Launcher:
    """Starts the processes of one worker, one after the other.

    A process on a CPU is forked (service.forks). One on a GPU begins as a new interpreter, as torch demands.
    """

    def __init__(self, api: PrecisionAPI, device: str, cores: set[int] | None, *, in_background: bool = False) -> None:
        self._arguments = (api, device, cores)
        self._name = api.variant.name
        self._is_on_gpu = device.startswith("cuda")
        self._in_background = in_background
        self._first: Future[Started] | None = None

    def start_ahead(self, threads: ThreadPoolExecutor) -> None:
        """Start the first process now, in a thread."""
        self._first = threads.submit(self._start)

    def discard(self) -> None:
        """End the process that was started ahead if nobody took it."""
        first, self._first = self._first, None
        if first is None or first.exception():
            return
        process, link = first.result()
        link.close()
        process.kill()
        process.join()

    def __call__(self) -> Started:
        """Start a process, or return the one that was started ahead.

        Raises:
            OSError: the machine has no process, file or memory to spare.
            WorkerDied: the process cannot get its priority.
        """
        first, self._first = self._first, None
        return first.result() if first else self._start()

    def _start(self) -> Started:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = self._process(theirs)
        except BaseException:
            ours.close()
            raise
        return Started(process, ours)

    def _process(self, link: socket.socket) -> BaseProcess:
        context: BaseContext = multiprocessing.get_context("spawn") if self._is_on_gpu else forks.context()
        arguments = (*self._arguments, dict(os.environ), link)
        process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=loop.work, args=arguments, name=f"worker-{self._name}", daemon=True
        )
        process.start()
        self._set_priority(process)
        return process

    def _set_priority(self, process: BaseProcess) -> None:
        assert process.pid is not None
        with suppress(OSError):  # it has ended, which its supervisor sees; or the system forbids it
            if not self._is_on_gpu:
                machine.lower_priority(process.pid, NICENESS)
            machine.kill_first(process.pid)
        if not self._in_background:
            return
        try:
            machine.yield_to_others(process.pid)
        except OSError as error:
            process.kill()
            process.join()
            raise WorkerDied("died", f"the shadow's worker cannot be put in the background: {error}") from error


@dataclass(frozen=True)
class Plan:
    """The weights and the workers of a service."""

    settings: Settings
    """Those that were given, with the file of the weights, and the card's input size and way to resize."""
    card: Card
    apis: dict[str, PrecisionAPI]
    """By variant, in the order in which they are served."""
    launchers: dict[str, list[Launcher]]
    """The workers of each variant."""
    background: tuple[PrecisionAPI, Launcher] | None
    """The shadow's API and its worker, which no route leads to."""

    @contextmanager
    def started_ahead(self) -> Iterator[None]:
        """Start the first process of each worker in a thread; after the block, end those that nobody took."""
        launchers = [one for each in self.launchers.values() for one in each]
        threads = ThreadPoolExecutor(1, "launch")
        for launcher in launchers:
            launcher.start_ahead(threads)
        threads.shutdown(wait=False)  # the thread ends after the last start
        try:
            yield
        finally:
            for launcher in launchers:
                launcher.discard()


def plan(settings: Settings, api: MakeAPI = PrecisionAPI) -> Plan:
    """Verify the weights and return what is to be served.

    Args:
        settings: see there.
        api: makes the API of a variant (tests pass one whose engines have faults).

    Raises:
        CheckpointError: the weights are missing or damaged.
    """
    weights = files.resolve(settings.checkpoint or files.default_path())
    card = checkpoint.inspect(weights, settings.preparation)
    settings = settings.model_copy(update={"checkpoint": weights, "input_size": card.input_size, "resize": card.resize})
    apis = {name: api(name, settings) for name in with_references(settings.variants, nvml.count())}
    launchers = {name: _launchers(each) for name, each in apis.items()}
    return Plan(settings, card, apis, launchers, _shadow(settings, api) if settings.shadow_share else None)


def _launchers(api: PrecisionAPI) -> list[Launcher]:
    count = api.settings.workers
    return [
        Launcher(api, device, machine.share(index, count) if count > 1 else None)
        for index, device in enumerate(devices(api.variant, api.settings, nvml.count()))
    ]


def _shadow(settings: Settings, api: MakeAPI) -> tuple[PrecisionAPI, Launcher]:
    background = api(REFERENCE, in_background(settings))
    device = devices(background.variant, background.settings, nvml.count())[0]
    return background, Launcher(background, device, None, in_background=True)


def in_background(settings: Settings) -> Settings:
    """Return the settings of the background worker: there is one, and it warms up no larger batch than it gets."""
    return settings.model_copy(update={"workers": 1, "max_batch_size": {ALL: MOST_SHADOW_IMAGES}})


def devices(variant: Variant, settings: Settings, gpus: int) -> list[str]:
    """Return the device of each worker of a variant: one worker per GPU, or `workers` workers on the CPU.

    An empty name leaves the choice of the device to the variant's row (models.variants).
    """
    if variant.dtype == "float16" and settings.fp16_on_cpu:
        return ["cpu"] * settings.workers
    if variant.device == "cpu" or gpus == 0:
        return [""] * settings.workers
    return [f"cuda:{index}" for index in range(gpus)]
