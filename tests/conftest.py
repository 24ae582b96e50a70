"""Skips of the tests that need what this machine lacks, and the services that several files share."""

import functools
import signal
from collections.abc import Iterator

import pytest

from models import files
from tests import tools
from tests.service.processes import Service, running


@functools.cache
def has_gpu() -> bool:
    import torch  # noqa: PLC0415 - half a second that most tests can do without

    return torch.cuda.is_available()


def has_dataset() -> bool:
    return (files.data_root() / "cifar-10-batches-bin" / "test_batch.bin").exists()


NEEDS = {
    "gpu": (has_gpu, "needs a CUDA GPU"),
    "dataset": (has_dataset, "needs CIFAR-10: set CIFAR10_DIR to the folder that holds cifar-10-batches-bin/"),
}


def pytest_configure() -> None:
    """Processes under test would inherit that a shell in the background ignores Ctrl-C, and nohup a closed terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (is_met, reason) in NEEDS.items():
        if item.get_closest_marker(marker) and not is_met():
            pytest.skip(reason)
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            tools.require(program)


@pytest.fixture(scope="session")
def shared_calm() -> Iterator[Service]:
    """Return a service whose fake engines have no faults. Tests must not stop it or any of its workers."""
    with running("--variants", "fp32,fp16,int8", module="tests.service.calm") as service:
        yield service


@pytest.fixture(scope="session")
def shared_fakes() -> Iterator[Service]:
    """Return a service with fake engines that takes large requests. Tests must not stop it or any of its workers."""
    limits = ("--max-body-bytes", "4000000", "--max-images", "256")
    with running("--variants", "fp32,fp16,int8", *limits, module="tests.service.fakes") as service:
        yield service
