"""The canary of deploy/kubernetes/overlays/canary-precision: a real HAProxy with its configuration and one service."""

import os
import subprocess
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.wrk import free_port
from tests import tools
from tests.deploy.manifests import KUBERNETES
from tests.service.pictures import png
from tests.service.processes import Service, until

SHARE = 25
SENT = 400


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/split/live").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.needs("haproxy")
def test_the_share_of_the_canary(shared_calm: Service, tmp_path: Path) -> None:
    """Of requests to fp32 int8 answers SHARE percent, within five standard deviations; other paths stay as they are."""
    port = free_port()
    shipped = (KUBERNETES / "overlays" / "canary-precision" / "haproxy.cfg").read_text()
    (tmp_path / "haproxy.cfg").write_text(shipped.replace("bind :8080", f"bind 127.0.0.1:{port}"))
    server = urlsplit(shared_calm.url).netloc
    environment = os.environ | {"SHARE": str(SHARE), "FP32": server, "INT8": server}
    command = [tools.find("haproxy"), "-db", "-f", str(tmp_path / "haproxy.cfg")]
    with subprocess.Popen(command, env=environment) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                until(lambda: answers(client), 60, "HAProxy")
                image = {"content": png(1), "headers": {"content-type": "image/png"}}
                variants = Counter(client.post("/predict/fp32", **image).json()["variant"] for _ in range(SENT))
                assert set(variants) == {"fp32", "int8"}
                deviation = (SENT * SHARE / 100 * (1 - SHARE / 100)) ** 0.5
                assert abs(variants["int8"] - SENT * SHARE / 100) < 5 * deviation
                assert client.post("/predict/int8", **image).json()["variant"] == "int8"
                assert client.get("/health/ready").status_code == 200
        finally:
            process.terminate()
