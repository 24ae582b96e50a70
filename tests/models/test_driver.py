"""What is asked of the GPU's driver, with a driver that is made up."""

from collections.abc import Iterator
from types import SimpleNamespace

import pynvml
import pytest

from models import nvml

UUID = "GPU-1234"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """One GPU with 900 bytes in use, 300 of them by process 7 and some by 8, of which it will not say."""
    processes = [SimpleNamespace(pid=7, usedGpuMemory=300), SimpleNamespace(pid=8, usedGpuMemory=None)]
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda device: SimpleNamespace(used=900))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda device: processes)
    nvml._device.cache_clear()
    yield monkeypatch
    nvml._device.cache_clear()


@pytest.mark.parametrize(
    ("pid", "expected"),
    [(7, {"device_used": 900, "process_gpu": 300}), (8, {"device_used": 900}), (9, {"device_used": 900})],
)
def test_memory_by_kind(driver: pytest.MonkeyPatch, pid: int, expected: dict[str, int]) -> None:
    """The process's share is left out where the driver does not tell it."""
    assert nvml.memory(UUID, pid) == expected


def test_a_gpu_that_is_gone_has_no_memory(driver: pytest.MonkeyPatch) -> None:
    """A driver that answers with an error does not fail the scrape."""

    def lost(device: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    driver.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lost)
    assert nvml.memory(UUID, 7) == {}
