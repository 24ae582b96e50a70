"""Attacks on a running service: a bystander is answered, memory stays within its bound, and SIGTERM ends the service.

`python -m benchmarks.assault` prints what each attack costs in latency; here only answers and bounds are judged.
"""

import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from benchmarks.assault import ATTACKS, Bystander, bystander, peak_bytes, reset_peak, under_attack
from common import machine
from service.settings import Settings
from tests.service.processes import Service, running, until

REQUESTS = 12
"""Requests of the bystander during one attack."""
MEGABYTE = 2**20
HELD, BODY = 64 * MEGABYTE, Settings().max_body_bytes
PLACES = machine.available_cores() + 1
"""Decoder processes; each body that is sent to one has up to three copies on its way there."""
BOUND = HELD + 3 * BODY * PLACES + 16 * MEGABYTE
"""Bytes that the HTTP process may grow by under any bodies (docs/operations.md); 16 MiB are what malloc keeps."""
FLAGS = ("--variants", "fp32", "--max-held-bytes", str(HELD), "--log-level", "warning")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(*FLAGS, module="tests.service.calm") as service:
        yield service


def asked(found: Bystander) -> bool:
    return len(found.seconds) + found.failed >= REQUESTS


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_bystander_is_answered(service: Service, attack: str) -> None:
    """Every good request during an attack is answered with 200, and the HTTP process stays within its memory."""
    pid = service.process.pid
    reset_peak(pid)
    before = psutil.Process(pid).memory_info().rss
    with under_attack(attack, service.url, "fp32"), bystander(service.url, "fp32") as found:
        until(lambda: asked(found), 120, f"{REQUESTS} answers")
    assert found.answered == 1
    assert peak_bytes(pid) - before < BOUND


@pytest.mark.slow
def test_the_bound_of_memory_is_reached_and_kept() -> None:
    """Uploads that stall fill the part of the budget that large bodies may use, and no more."""
    with running(*FLAGS, module="tests.service.calm") as service:
        pid = service.process.pid
        before = psutil.Process(pid).memory_info().rss
        with under_attack("silent_uploads", service.url, "fp32"):
            until(lambda: peak_bytes(pid) - before > HELD // 2, 60, "held bodies")
            until(lambda: service.outcomes("fp32").get("overloaded", 0) > 0, 60, "refusal")
        assert HELD // 2 < peak_bytes(pid) - before < BOUND


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["charset", "objects", "bombs", "silent_uploads"])
def test_sigterm_ends_the_service_during_an_attack(attack: str) -> None:
    """The service ends with 0 within its time to drain; what that leaves unanswered gets an error."""
    drain = 3
    flags = (*FLAGS, "--drain-timeout", str(drain))
    with running(*flags, module="tests.service.calm") as service, under_attack(attack, service.url, "fp32"):
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") > 0, 30, "attack")
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
        assert time.monotonic() - began < drain + 10  # a busy machine ends processes slowly
