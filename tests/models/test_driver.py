"""Questions to the GPU's driver, on an invented driver."""

from types import SimpleNamespace

import pynvml
import pytest

from models import nvml

UUID = "GPU-1234"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Invent a driver: one GPU with 900 bytes in use, 300 by process 7, an unknown number by process 8."""
    processes = [SimpleNamespace(pid=7, usedGpuMemory=300), SimpleNamespace(pid=8, usedGpuMemory=None)]
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda device: SimpleNamespace(used=900))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda device: processes)
    return monkeypatch


@pytest.mark.parametrize(
    ("pid", "expected"),
    [(7, {"device_used": 900, "process_gpu": 300}), (8, {"device_used": 900}), (9, {"device_used": 900})],
)
def test_memory_by_kind(driver: pytest.MonkeyPatch, pid: int, expected: dict[str, int]) -> None:
    """The process's share is left out if the driver does not tell it."""
    assert nvml.memory(UUID, pid) == expected


def test_a_gpu_that_is_gone_has_no_memory(driver: pytest.MonkeyPatch) -> None:
    """A driver that answers with an error gives no numbers and no exception."""

    def lost(device: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    driver.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lost)
    assert nvml.memory(UUID, 7) == {}
