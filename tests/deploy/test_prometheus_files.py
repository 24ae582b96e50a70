"""The files of deploy/prometheus/ and deploy/grafana/ are valid and agree with the service and its documentation."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.errors import REASONS
from tests import tools

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "precision.json"
CHOSEN = {"unavailable", "shutting_down", "client_deadline"}


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yml"), ("check", "config", "compose.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_accepts(command: tuple[str, ...]) -> None:
    """Configuration and rules parse; every alert fires on its symptom and stays silent without it."""
    promtool = [tools.find("promtool"), *command]
    done = subprocess.run(promtool, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> set[str]:
    return set(re.findall(r"^ +- alert: (\w+)$", (PROMETHEUS / "alerts.yml").read_text(), re.MULTILINE))


def test_every_alert_is_shown_to_fire() -> None:
    """alerts_test.yml shows every alert firing with its labels."""
    text = (PROMETHEUS / "alerts_test.yml").read_text()
    assert set(re.findall(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels", text)) == alerts()


def test_every_alert_is_documented() -> None:
    """docs/metrics.md has a row for each alert with its condition, docs/operations.md one with what to do."""
    for name in ("metrics.md", "operations.md"):
        text = (ROOT / "docs" / name).read_text()
        assert set(re.findall(r"^\| `(Precision\w+)` \|", text, re.MULTILINE)) == alerts()


def test_failures_are_the_errors_that_the_service_causes() -> None:
    """The failure ratio counts the 5xx rows of the error table, without those that an operator or a client chose."""
    (outcomes,) = re.findall(r'outcome=~"([\w|]+)"', (PROMETHEUS / "rules.yml").read_text())
    blamed = {row.word for row in REASONS.values() if row.status >= 500} - CHOSEN
    assert set(outcomes.split("|")) == blamed


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def test_panels_do_not_overlap() -> None:
    """Each cell of the dashboard's grid, 24 wide, belongs to one panel, and each panel has its own id."""
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels())
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_all_leaves_nothing_out() -> None:
    """The choice `All` includes variants that the list of choices lacks: `unknown`, `shadow`."""
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    of_all = {one["name"]: one.get("allValue") for one in variables if one.get("includeAll")}
    assert of_all == {"instance": ".*", "variant": ".*"}


def test_every_panel_says_what_it_shows() -> None:
    """Every panel has queries and a unit."""
    shown = [panel for panel in panels() if panel["type"] != "row"]
    assert [panel["title"] for panel in shown if not panel["targets"]] == []
    assert [panel["title"] for panel in shown if not panel["fieldConfig"]["defaults"]["unit"]] == []
