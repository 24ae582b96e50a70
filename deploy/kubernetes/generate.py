"""Write the manifests that repeat other files: alerts and rules as a PrometheusRule, the dashboard as a ConfigMap.

Run `make manifests` after a change in deploy/prometheus/ or deploy/grafana/.
"""

from pathlib import Path
from textwrap import indent

DEPLOY = Path(__file__).parents[1]
MONITORING = DEPLOY / "kubernetes" / "components" / "monitoring"
HEAD = """\
# Written by `make manifests` from {source}.
apiVersion: {version}
kind: {kind}
metadata:
  name: {name}
  namespace: precision
  labels: {labels}
"""


def groups(name: str) -> str:
    """Return the rule groups of a file of deploy/prometheus/, without the comment and the key above them."""
    return (DEPLOY / "prometheus" / name).read_text().partition("groups:\n")[2]


def rules() -> str:
    """Return the PrometheusRule with the recording rules and the alerts that promtool tests."""
    head = HEAD.format(
        source="deploy/prometheus/",
        version="monitoring.coreos.com/v1",
        kind="PrometheusRule",
        name="precision",
        labels="{role: alert-rules}",
    )
    return f"{head}spec:\n  groups:\n{indent(groups('rules.yml').rstrip() + chr(10) + groups('alerts.yml'), '  ')}"


def dashboard() -> str:
    """Return the ConfigMap with the dashboard, for the sidecar that loads dashboards into Grafana."""
    head = HEAD.format(
        source="deploy/grafana/dashboards/precision.json",
        version="v1",
        kind="ConfigMap",
        name="precision-dashboard",
        labels='{grafana_dashboard: "1"}',
    )
    text = (DEPLOY / "grafana" / "dashboards" / "precision.json").read_text()
    return f"{head}data:\n  precision.json: |\n{indent(text, '    ')}"


WRITTEN = {MONITORING / "rules.yaml": rules, MONITORING / "dashboard.yaml": dashboard}
"""File -> the function that makes its text."""


def main() -> None:
    """Write every file."""
    for path, text in WRITTEN.items():
        path.write_text(text())


if __name__ == "__main__":
    main()
