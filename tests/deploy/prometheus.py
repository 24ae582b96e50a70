"""A real Prometheus with the configuration of deploy/prometheus/ that scrapes services every second."""

import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.wrk import free_port
from tests import tools
from tests.service.processes import until

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
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
        """Return the value of the only series of an expression. Wait for it, because a scrape can time out."""
        ((_, value),) = until(lambda: self.query(expression), 30, expression)
        return value

    def rules(self) -> dict[str, str]:
        """Return the expression of every rule by its name; no rule may have failed."""
        groups = self.get("rules")["data"]["groups"]  # type: ignore[index]
        assert [rule["lastError"] for group in groups for rule in group["rules"] if rule["health"] == "err"] == []
        return {rule["name"]: rule["query"] for group in groups for rule in group["rules"]}

    def firing(self) -> set[tuple[str, str]]:
        """Return alert and instance of each firing alert; the instance is empty for alerts over all replicas."""
        alerts = self.query('ALERTS{alertstate="firing"}')
        return {(labels["alertname"], labels.get("instance", "")) for labels, _ in alerts}

    def reload(self) -> None:
        """Read the configuration again."""
        assert self.client.post("/-/reload").status_code == 200

    def settle(self) -> None:
        """Wait until a new scrape has begun, and then until the rules were evaluated on its samples."""
        for series in ("precision_variant_ready", "precision:requests:rate5m"):
            begun = time.time()
            until(lambda series=series, begun=begun: self._oldest(series) > begun, 120, f"newer {series}")

    def _oldest(self, series: str) -> float:
        return min((value for _, value in self.query(f"timestamp({series})")), default=0)


def configure(folder: Path, urls: Sequence[str], hold: str | None = None) -> None:
    """Write the shipped configuration with these targets and intervals of 1 s.

    Args:
        folder: where it goes.
        urls: the services to scrape; none of them need exist.
        hold: how long every condition holds before its alert fires; as shipped if None.
    """
    text = (FOLDER / "prometheus.yml").read_text()
    targets = ", ".join(f'"{urlsplit(url).netloc}"' for url in urls)
    for shipped, here in (('"127.0.0.1:8000"', targets), (": 15s", ": 1s")):
        assert shipped in text
        text = text.replace(shipped, here)
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(FOLDER / "rules.yml", folder)
    alerts = (FOLDER / "alerts.yml").read_text()
    (folder / "alerts.yml").write_text(re.sub(r"for: \w+", f"for: {hold}", alerts) if hold else alerts)


@contextmanager
def scraping(urls: Sequence[str], folder: Path, hold: str | None = None) -> Iterator[Prometheus]:
    """Run Prometheus with `configure`'s files, and wait until it has scraped every service."""
    configure(folder, urls, hold)
    address = f"127.0.0.1:{free_port()}"
    flags = ("--storage.tsdb.path=data", f"--web.listen-address={address}", "--web.enable-lifecycle")
    command = [tools.find("prometheus"), "--config.file=prometheus.yml", "--log.level=error", *flags]
    process = subprocess.Popen(command, cwd=folder)
    try:
        prometheus = Prometheus(f"http://{address}")
        with prometheus.client:
            until(lambda: _answers(prometheus), 240, "ready Prometheus")
            until(lambda: len(prometheus.query("up == 1")) == len(urls), 240, "first scrapes")
            yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def _answers(prometheus: Prometheus) -> bool:
    try:
        return prometheus.client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
