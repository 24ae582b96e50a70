"""The documents name every setting, route, error and metric, and stay short."""

import re
from pathlib import Path

import pytest

from service.errors import REASONS
from service.flags import as_text
from service.metric_rows import DROPPED, MEMORY, ROWS
from service.server import build_server
from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README_LINES = 120
UNRELEASED_LINES = 25
CELL_CHARACTERS = 200


def test_every_setting_is_documented_with_its_default() -> None:
    """docs/settings.md has a row per field of Settings: flag, variable, default."""
    text = (DOCS / "settings.md").read_text()
    missing = []
    for name, field in Settings.model_fields.items():
        shown = "" if field.default is None else f"`{as_text(field.default)}`"
        row = f"| `--{name.replace('_', '-')}` | `{PREFIX}{name.upper()}` | {shown} |"
        if row not in text:
            missing.append(row)
    assert missing == []


def test_every_metric_is_documented_with_its_labels() -> None:
    """The table of docs/metrics.md and the table of metrics name the same metrics and labels, no more and no less."""
    rows = re.findall(r"^\| `(precision_\w+)` \| ([\w, ]*?) ?\|", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    documented = {name: tuple(filter(None, labels.split(", "))) for name, labels in rows}
    assert documented == {row.exposed_name: row.labels for row in (*ROWS, MEMORY, DROPPED)}


def test_every_metric_has_a_query() -> None:
    """Each metric is in an example query of docs/metrics.md; tests/deploy runs all queries."""
    text = (DOCS / "metrics.md").read_text()
    queries = "\n".join(re.findall(r"^```promql\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert [row.exposed_name for row in (*ROWS, MEMORY, DROPPED) if row.exposed_name not in queries] == []


def test_every_error_is_documented_with_its_status() -> None:
    """docs/api.md has a row per row of the error table."""
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert {word: int(status) for status, word in rows} == {row.word: row.status for row in REASONS.values()}


def test_every_route_is_documented() -> None:
    """Each path of /openapi.json is in docs/api.md."""
    text = (DOCS / "api.md").read_text()
    paths = build_server(Settings(variants=("fp32",))).app.openapi()["paths"]
    assert [path for path in paths if path not in text] == []


def test_the_readme_is_short() -> None:
    """README.md has at most README_LINES lines."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_the_unreleased_changes_are_short() -> None:
    """The section `Unreleased` of CHANGELOG.md has at most UNRELEASED_LINES lines, its heading not counted."""
    section = (ROOT / "CHANGELOG.md").read_text().partition("## Unreleased\n")[2].partition("\n## ")[0]
    assert section.strip()
    assert len(section.splitlines()) <= UNRELEASED_LINES


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda path: str(path.relative_to(ROOT))
)
def test_table_cells_are_phrases(document: Path) -> None:
    """No cell of a table has more than CELL_CHARACTERS characters."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row.strip("|"))]
    assert [cell for cell in cells if len(cell) > CELL_CHARACTERS] == []
