"""docs/ai-tuning-guide.md tells of what there is: options, metrics, dashboards."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.models.options import parsed
from benchmarks.models.report import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "ai-tuning-guide.md").read_text(encoding="utf-8")
RULES = (ROOT / "rules" / "inference.rules.yml").read_text(encoding="utf-8")
QUERIES = [
    query
    for block in re.findall(r"```promql\n(.*?)```", GUIDE, re.DOTALL)
    for query in block.splitlines()
    if query and not query.startswith("#")
]
COMMANDS = re.findall(r"^python -m benchmarks\.gpu_benchmark (.*)$", GUIDE.replace("\\\n", " "), re.MULTILINE)


def test_queries_ask_for_metrics_that_there_are(exposed: set[str], metrics: Callable[[str], set[str]]) -> None:
    """Of the catalogue or of the rules."""
    recorded = set(re.findall(r"record: (\S+)", RULES))
    assert len(QUERIES) > 10
    assert {
        query: metrics(query) - exposed - recorded for query in QUERIES if metrics(query) - exposed - recorded
    } == {}


def test_queries_are_promql(promtool: str, tmp_path: Path) -> None:
    """Prometheus parses each of them."""
    rules = [{"record": f"guide:query:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "guide", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr.decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    """Every option that the guide gives is one."""
    assert parsed(shlex.split(command, comments=True), "").models


def test_tables_are_the_benchmarks_own() -> None:
    """Columns of figures have the headings that the benchmark gives, and each table has a command above it."""
    headings = [line for line in GUIDE.splitlines() if "| inferences/s |" in line]
    known = {column.heading for column in COLUMNS}
    assert len(headings) >= 6
    assert len(COMMANDS) >= len(headings)
    for line in headings:
        figures = line.split("| inferences/s |")[1].strip(" |").split(" | ")
        assert [figure for figure in figures if figure not in known] == []


def test_panels_are_on_the_dashboard() -> None:
    """Every panel that a symptom is seen on has that title."""
    dashboard = (ROOT / "deploy" / "grafana" / "ai-performance.json").read_text(encoding="utf-8")
    titles = set(re.findall(r'"title": "([^"]*)"', dashboard))
    named = set(re.findall(r"panel \*([^*]+)\*", GUIDE))
    assert len(named) >= 6
    assert named - titles == set()
