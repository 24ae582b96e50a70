"""What a machine lacks, its tests skip, with the reason."""

import functools
import signal

import pytest

from models import files


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
    """A shell that starts the suite in the background ignores Ctrl-C; processes under test would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (is_met, reason) in NEEDS.items():
        if item.get_closest_marker(marker) and not is_met():
            pytest.skip(reason)
