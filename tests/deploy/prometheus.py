"""A real Prometheus with the configuration of deploy/prometheus/, scraping one service every second."""

import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.service.processes import free_port, until

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
PROGRAM = shutil.which("prometheus") or ""
Samples = list[tuple[dict[str, str], float]]


class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=30)

    def get(self, path: str, **parameters: str) -> dict[str, object]:
        """Return the JSON of an answer with status 200."""
        answer = self.client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return dict(answer.json())

    def query(self, expression: str) -> Samples:
        """Return labels and value of each series, without those whose value is no number (0 / 0)."""
        result = self.get("query", query=expression)["data"]["result"]  # type: ignore[index]
        samples = [(series["metric"], float(series["value"][1])) for series in result]
        return [(labels, value) for labels, value in samples if not math.isnan(value)]

    def value(self, expression: str) -> float:
        """Return the value of the only series that the expression gives."""
        ((_, value),) = self.query(expression)
        return value

    def rules(self) -> dict[str, str]:
        """Return the expression of every rule by its name; no rule may have failed."""
        groups = self.get("rules")["data"]["groups"]  # type: ignore[index]
        assert [rule["lastError"] for group in groups for rule in group["rules"] if rule["health"] == "err"] == []
        return {rule["name"]: rule["query"] for group in groups for rule in group["rules"]}

    def settle(self) -> None:
        """Wait until a new scrape has begun, and then until the rules were evaluated on its samples."""
        for series in ("precision_variant_ready", "precision:requests:rate5m"):
            begun = time.time()
            until(lambda series=series, begun=begun: self._oldest(series) > begun, 120, f"newer {series}")

    def _oldest(self, series: str) -> float:
        return min((value for _, value in self.query(f"timestamp({series})")), default=0)


@contextmanager
def scraping(service_url: str, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped configuration, but another target and shorter intervals; wait for a scrape."""
    text = (FOLDER / "prometheus.yml").read_text()
    for shipped, here in (("127.0.0.1:8000", urlsplit(service_url).netloc), (": 15s", ": 1s")):
        assert shipped in text
        text = text.replace(shipped, here)
    for name in ("rules.yml", "alerts.yml"):
        shutil.copy(FOLDER / name, folder)
    (folder / "prometheus.yml").write_text(text)
    address = f"127.0.0.1:{free_port()}"
    command = [PROGRAM, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    process = subprocess.Popen([*command, "--log.level=error"], cwd=folder)
    try:
        prometheus = Prometheus(f"http://{address}")
        with prometheus.client:
            until(lambda: _answers(prometheus) and prometheus.query("precision_variant_ready"), 240, "first scrape")
            yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def _answers(prometheus: Prometheus) -> bool:
    try:
        return prometheus.client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
