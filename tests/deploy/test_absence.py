"""Alerts of a real Prometheus that scrapes two services: one dies, then both targets vanish."""

import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.deploy import prometheus
from tests.service.processes import Service, running, until

pytestmark = pytest.mark.needs("prometheus")


def test_alerts_tell_a_dead_replica_and_vanished_ones(shared_calm: Service, tmp_path: Path) -> None:
    """A dead replica is down and missing. Without any target the service is absent, and a replica is missing."""
    with (
        running("--variants", "fp32", module="tests.service.calm") as dying,
        prometheus.scraping([shared_calm.url, dying.url], tmp_path, hold="1s") as watching,
    ):
        until(lambda: watching.value("precision:replicas:ready") == 2, 60, "two ready replicas")
        suspect = {("PrecisionAccuracySuspect", urlsplit(shared_calm.url).netloc)}  # int8 of the calm fakes says so
        until(lambda: watching.firing() == suspect, 60, "no other alert")
        dying.process.send_signal(signal.SIGKILL)
        dying.process.wait(30)
        dead = {("PrecisionDown", urlsplit(dying.url).netloc), ("PrecisionReplicasMissing", "")}
        until(lambda: watching.firing() == dead | suspect, 60, "alerts about the dead replica")
        prometheus.configure(tmp_path, [], hold="1s")
        watching.reload()
        until(lambda: {("PrecisionAbsent", ""), ("PrecisionReplicasMissing", "")} == watching.firing(), 60, "absence")
