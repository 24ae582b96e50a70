"""The energy of rounds, of cells and of their comparison, from a folder of counters that stands for the kernel's."""

import math
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from common.statistics import Interval
from loadtest.analysis.energy import prices
from loadtest.energy import Energy, Metering, Meters, find
from loadtest.journal import Journal, Started, read
from loadtest.records import Played
from loadtest.report.build import build
from loadtest.report.document import Report
from loadtest.report.markdown import markdown
from tests.loadtest.builders import FP32, INT8, arm, measured, played, report, request, settings

RANGE = 262_143_328_850
"""Microjoules after which an Intel package begins again at 0."""


def zone(folder: Path, place: str, name: str, microjoules: int) -> Path:
    """Write one zone of the kernel's powercap folder and return its counter."""
    (folder / place).mkdir(parents=True)
    for file, value in {"name": name, "max_energy_range_uj": RANGE, "energy_uj": microjoules}.items():
        (folder / place / file).write_text(f"{value}\n")
    return folder / place / "energy_uj"


@pytest.fixture
def counters(tmp_path: Path) -> list[Path]:
    """The counters of a package and its memory; beside them stand zones that would count twice."""
    zone(tmp_path, "intel-rapl:0:0", "core", 10_000_000)
    zone(tmp_path, "intel-rapl:1", "psys", 90_000_000)
    package = zone(tmp_path, "intel-rapl:0", "package-0", 50_000_000)
    return [package, zone(tmp_path, "intel-rapl:0:1", "dram", 20_000_000)]


def test_package_and_memory_are_added(counters: list[Path], tmp_path: Path) -> None:
    """3 J of the package and 0.5 J of its memory are 3.5 J; `core` and `psys` do not count."""
    meters = find([FP32], tmp_path)
    before = meters.read()
    counters[0].write_text("53000000")
    counters[1].write_text("20500000")
    used = meters.of([FP32], before)
    assert used is not None
    assert used.joules == pytest.approx(3.5)
    assert used.seconds > 0
    assert meters.idle(0.0).meters == ("package-0", "package-0 dram")


def test_a_counter_may_begin_again(counters: list[Path], tmp_path: Path) -> None:
    """From 1 J below its range to 2 J above 0 are 3 J."""
    meters = find([FP32], tmp_path)
    counters[0].write_text(str(RANGE - 1_000_000))
    before = meters.read()
    counters[0].write_text("2000000")
    used = meters.of([FP32], before)
    assert used is not None
    assert used.joules == pytest.approx(3.0)


def test_a_counter_that_is_gone_leaves_a_round_without_energy(counters: list[Path], tmp_path: Path) -> None:
    """The run goes on."""
    meters = find([FP32], tmp_path)
    before = meters.read()
    counters[1].unlink()
    assert meters.of([FP32], before) is None


def test_arms_that_are_loaded_at_once_have_no_energy_of_their_own(counters: list[Path], tmp_path: Path) -> None:
    """Their counters are the same."""
    meters = find([FP32, INT8], tmp_path)
    assert meters.of([FP32, INT8], meters.read()) is None


def reason(meters: Meters) -> str:
    """Return why energy is not measured, as the only reason."""
    (only,) = meters.idle(0.0).missing
    return only


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    """A virtual machine has no such folder."""
    assert "no counters (RAPL)" in reason(find([FP32], tmp_path / "powercap"))


def test_counters_for_root_alone_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names the file and the command that opens it; root reads every file, so the refusal is played."""
    locked, real = zone(tmp_path, "intel-rapl:0", "package-0", 1), Path.read_text

    def refuse(self: Path) -> str:
        if self == locked:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "read_text", refuse)
    words = reason(find([FP32], tmp_path))
    assert words == f"{locked} is only readable for root; to allow it: sudo chmod a+r {tmp_path}/*/energy_uj"


def test_the_counters_of_another_machine_cannot_be_read(counters: list[Path], tmp_path: Path) -> None:
    """This machine's counters say nothing about a service elsewhere."""
    assert "on another machine (http://elsewhere:8000)" in reason(
        find([arm("fp32", "http://elsewhere:8000")], tmp_path)
    )


def test_the_gpu_of_an_arm_is_added(counters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML states millijoules, and is asked for the GPU that the service names."""
    millijoules = {"GPU-1": 7000}
    fakes = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetName": lambda handle: f"board {handle}",
        "nvmlDeviceGetTotalEnergyConsumption": millijoules.__getitem__,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(pynvml, name, fake)
    meters = find([arm("fp32", device="cuda:0", other={"device_uuid": "GPU-1"})], tmp_path)
    before = meters.read()
    millijoules["GPU-1"] += 2500
    used = meters.since(before)
    assert used is not None
    assert used.joules == pytest.approx(2.5)
    assert meters.idle(0.0).meters == ("package-0", "package-0 dram", "board GPU-1")


def test_a_gpu_without_a_driver_leaves_its_arms_without_energy(
    counters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor's counter would say nothing about the work of a GPU; an arm on the CPU keeps its energy."""

    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    gpu = arm("fp32", device="cuda:0", other={"device_uuid": "GPU-1"})
    meters = find([gpu, INT8], tmp_path)
    assert "NVML" in reason(meters)
    assert meters.of([gpu], meters.read()) is None
    assert meters.of([INT8], meters.read()) is not None


def test_an_arm_of_an_unknown_device_has_no_energy(counters: list[Path], tmp_path: Path) -> None:
    """Another server may use a GPU without saying so, whose energy the processor's counter leaves out."""
    other = arm("resnet @ theirs")
    meters = find([other], tmp_path)
    assert reason(meters) == "resnet @ theirs does not say what device it runs on"
    assert meters.of([other], meters.read()) is None


def rounds(watts: float, images: int, of: str = "fp32", count: int = 8) -> list[Played]:
    """Return rounds of 1.25 s in which the machine draws so much power and answers so many images."""
    which = {"fp32": FP32, "int8": INT8}[of]
    sent = [request(0.0, 0.01, i) for i in range(images)]
    return [replace(played(which, sent, block=b), energy=Energy(1.25, 1.25 * watts)) for b in range(count)]


@pytest.fixture
def made() -> Report:
    """A report of fp32 with 100 images a round at 40 W, and of int8 with 250 at 50 W; idle the machine draws 20 W."""
    both = [*rounds(40, 100), *rounds(50, 250, "int8")]
    options = settings(price_per_hour=0.36)
    return build(measured(both, options, metering=Metering(("package-0",), 20.0)), options, ("python",))


def test_energy_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    """The raw files hold it, so `python -m loadtest report` states it."""
    some = rounds(40, 100)
    metering = Metering(("package-0",), 20.0)
    Journal(tmp_path, Started((), settings(), measured(some).subjects, metering)).add(some)
    record = read(tmp_path)
    assert record.started.metering == metering
    assert [one.energy for one in record.played] == [one.energy for one in some]


def test_energy_is_stated_per_thousand_images(made: Report) -> None:
    """50 J for 100 images are 500 J for 1,000, of which the idle machine would use 250 J."""
    use = made.cells[0].energy
    assert use is not None
    assert (use.joules.estimate, use.idle_joules, use.watts) == pytest.approx((500, 250, 40))
    assert use.joules.low is not None


def test_the_ratio_of_energy_is_paired(made: Report) -> None:
    """int8 uses 250 J per 1,000 images, half as much."""
    ratio = made.comparisons[0].ratios.energy
    assert ratio == Interval(pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))


def test_the_report_says_how_energy_was_measured(made: Report) -> None:
    """The table has the energy of each cell, and the note its source."""
    text = markdown(made)
    assert "J / 1,000 images" in text
    assert "500 [500, 500]" in text
    assert "Energy is the sum of package-0, over the whole machine" in text
    assert "Idle before the run, they showed 20.0 W." in text


def test_a_report_without_energy_says_why_and_has_no_column() -> None:
    """The reason is a note."""
    text = markdown(report([played(FP32, [request(0, 0.01)])], metering=Metering(missing=("no counters",))))
    assert "- Energy is not measured: no counters." in text
    assert "J / 1,000" not in text


def test_a_report_says_which_part_of_the_energy_it_lacks(made: Report) -> None:
    """A GPU's energy without that of the processors is not called unmeasured."""
    text = markdown(replace(made, energy=replace(made.energy, missing=("no counters of the processors",))))
    assert "- A part of the energy is not measured: no counters of the processors." in text
    assert "Energy is not measured" not in text


def test_a_million_images_have_a_price(made: Report) -> None:
    """At 0.36 an hour and 100 images/s, a million images take 10,000 s and cost 1."""
    assert [(price.arm, price.workload) for price in made.prices] == [("fp32", "8 users"), ("int8", "8 users")]
    assert [price.per_million.estimate for price in made.prices] == pytest.approx([1.0, 0.4], rel=0.02)
    assert "fp32: a million images cost 1.0 [1.0, 1.0] at 0.36 an hour" in markdown(made)


def test_the_price_is_that_of_the_best_valid_load(made: Report) -> None:
    """An INVALID cell and a rate that an arm cannot hold have no price, however many images a second they answer."""
    cell = made.cells[0]
    faster = [
        replace(cell, workload="broken", images_per_second=1e6, invalid=("late",)),
        replace(cell, workload="too much", images_per_second=1e6, saturated=True),
        replace(cell, workload="32 users", images_per_second=2 * cell.images_per_second),
    ]
    (price,) = prices([cell, *faster], 0.36, 1)
    assert price.workload == "32 users"
    assert math.isfinite(price.per_million.estimate)
