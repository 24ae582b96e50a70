"""The energy that this machine uses, from the counters of its processors (RAPL) and of the GPUs under test (NVML).

A counter covers its whole package or board: the service, the load generator, and whatever else runs there. It says
nothing about a service on another machine. Sources: the kernel's Documentation/power/powercap/powercap.rst, and
`nvmlDeviceGetTotalEnergyConsumption` of NVIDIA's NVML reference.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pynvml

from loadtest.plan import UNKNOWN, Arm

POWERCAP = Path("/sys/class/powercap")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
IDLE_SECONDS = 3.0
"""Seconds for which the idle power is measured."""
CPU, GPU = "cpu", "gpu"


@dataclass(frozen=True)
class Energy:
    """The energy that this machine used within some seconds."""

    seconds: float
    joules: float


@dataclass(frozen=True)
class Metering:
    """The counters of energy that a run read, and the power of the idle machine before its first round."""

    meters: tuple[str, ...] = ()
    idle_watts: float | None = None
    missing: tuple[str, ...] = ()
    """Why some energy is not measured; empty if all is."""


@dataclass(frozen=True)
class Meter:
    """A counter of joules, which begins again at 0 after `range` joules."""

    name: str
    place: str
    """The place that it covers: `cpu` or `gpu`."""
    joules: Callable[[], float]
    range: float = math.inf


@dataclass(frozen=True)
class Reading:
    """The joules of every meter at one time."""

    at: float
    joules: tuple[float, ...]


class Meters:
    """The readable counters of one run; `missing` says which others are not readable, and why."""

    def __init__(self, meters: Sequence[Meter], missing: Sequence[str]) -> None:
        self._meters, self._missing = tuple(meters), tuple(missing)
        self._places = {meter.place for meter in meters}

    def read(self) -> Reading | None:
        """Return the counters now; None if there are none, or if one of them cannot be read any more."""
        try:
            joules = tuple(meter.joules() for meter in self._meters)
        except (OSError, ValueError, pynvml.NVMLError):
            return None
        return Reading(time.perf_counter(), joules) if joules else None

    def since(self, before: Reading | None) -> Energy | None:
        """Return the energy since a reading; None if a counter could not be read then or now."""
        now = self.read()
        if before is None or now is None:
            return None
        pairs = zip(self._meters, before.joules, now.joules, strict=True)
        return Energy(now.at - before.at, sum(passed(meter, old, new) for meter, old, new in pairs))

    def of(self, arms: Sequence[Arm], before: Reading | None) -> Energy | None:
        """Return the energy since a reading if it is that of one arm, whose device has a meter; else None."""
        if len(arms) != 1 or place(arms[0]) not in self._places:
            return None
        return self.since(before)

    def idle(self, seconds: float = IDLE_SECONDS) -> Metering:
        """Measure the power of the machine for some seconds, in which the caller sends no request."""
        before = self.read()
        if before is None:
            return Metering((), None, self._missing)
        time.sleep(seconds)
        used = self.since(before)
        watts = used.joules / used.seconds if used else None
        return Metering(tuple(meter.name for meter in self._meters), watts, self._missing)


def passed(meter: Meter, old: float, new: float) -> float:
    """Return the joules between two values of a counter, which began again at 0 once at most."""
    return new - old if new >= old else new - old + meter.range


def place(arm: Arm) -> str:
    """Return the place of an arm's work: `gpu` for a CUDA device, `unknown` where nobody says, else `cpu`."""
    if arm.device == UNKNOWN:
        return UNKNOWN
    return GPU if arm.device.startswith("cuda") else CPU


def is_local(url: str) -> bool:
    """Return whether a URL names this machine by its loopback address."""
    return urlsplit(url).hostname in LOOPBACK


def find(arms: Sequence[Arm], powercap: Path = POWERCAP) -> Meters:
    """Return the meters of the processors, and of the GPUs that arms run on."""
    away = dict.fromkeys(arm.url for arm in arms if not is_local(arm.url))
    if away:
        reason = f"the service is on another machine ({', '.join(away)}), whose counters cannot be read here"
        return Meters((), [reason])
    found, missing = processors(powercap)
    uuids = dict.fromkeys(str(arm.info.other.get("device_uuid", "")) for arm in arms if place(arm) == GPU)
    boards, absent = gpus(uuids)
    silent = [f"{arm.name} does not say what device it runs on" for arm in arms if place(arm) == UNKNOWN]
    return Meters([*found, *boards], [*missing, *absent, *silent])


def processors(powercap: Path) -> tuple[list[Meter], list[str]]:
    """Return RAPL's meters of packages and of memory, or why there are none.

    The zones `core` and `uncore` are parts of their package, and `psys` holds packages: they would count twice.
    """
    zones = sorted(powercap.glob("intel-rapl:*"))
    names = {zone.name: text(zone / "name") for zone in zones}
    counted = [zone for zone in zones if names[zone.name].startswith("package") or names[zone.name] == "dram"]
    if not counted:
        return [], [f"{powercap} has no counters (RAPL): a virtual machine, a container, or a kernel without them"]
    try:
        return [zone_meter(zone, names) for zone in counted], []
    except PermissionError as error:
        return [], [f"{error.filename} is only readable for root; to allow it: sudo chmod a+r {powercap}/*/energy_uj"]
    except (OSError, ValueError) as error:
        return [], [f"the counters in {powercap} (RAPL) cannot be read: {error}"]


def zone_meter(zone: Path, names: Mapping[str, str]) -> Meter:
    """Return the meter of a zone. The name of a zone of memory begins with that of its package.

    Raises:
        OSError: the counter cannot be read.
        ValueError: it holds no number.
    """
    package = names.get(zone.name.rpartition(":")[0], "")
    name = " ".join(filter(None, (package, names[zone.name])))
    joules(zone / "energy_uj")
    return Meter(name, CPU, lambda: joules(zone / "energy_uj"), joules(zone / "max_energy_range_uj"))


def joules(file: Path) -> float:
    """Return a file's microjoules in joules."""
    return int(file.read_text()) / 1e6


def text(file: Path) -> str:
    """Return the content of a small file; empty if it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def gpus(uuids: Iterable[str]) -> tuple[list[Meter], list[str]]:
    """Return NVML's meters of these GPUs, or why there are none. A MIG slice has no meter of its own."""
    wanted = list(uuids)
    if not wanted:
        return [], []
    if "" in wanted:
        return [], ["the service does not state the UUID of its GPU"]
    try:
        pynvml.nvmlInit()
        return [board(uuid) for uuid in wanted], []
    except pynvml.NVMLError as error:
        return [], [f"the GPU's counter (NVML) cannot be read: {error}"]


def board(uuid: str) -> Meter:
    """Return the meter of one GPU.

    Raises:
        pynvml.NVMLError: there is no such GPU, or it has no counter, as those before Volta.
    """
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def total() -> float:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000

    total()
    return Meter(str(pynvml.nvmlDeviceGetName(handle)), GPU, total)
