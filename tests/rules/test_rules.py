"""The rules hold what they promise, and promise only what there is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from infermeter.buckets import CONFIDENCE
from infermeter_exporters.drift import promql
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.promql import NOTICE, Histogram
from infermeter_exporters.drift.promql_check import check
from rules import drift, generate

if TYPE_CHECKING:
    from collections.abc import Callable

    Metrics = Callable[[str], set[str]]

ROOT = Path(__file__).parents[2]
RULES = ROOT / "rules"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """What a command says and how it ends."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def read(path: Path) -> Any:
    """The content of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def promised(file: Path) -> Path:
    """The test beside a file of rules."""
    return file.with_name(file.name.replace(".rules.", ".test."))


def severities(promises: list[dict[str, Any]], alert: str) -> list[set[str]]:
    """The severities at which an alert is expected, for each moment at which it is looked at."""
    cases = [case for promise in promises for case in promise.get("alert_rule_test", ()) if case["alertname"] == alert]
    return [{fired["exp_labels"]["severity"] for fired in case.get("exp_alerts", ())} for case in cases]


def test_prometheus_reads_the_rules(promtool: str, file: Path) -> None:
    """`promtool check rules` finds every rule, and nothing to complain about."""
    count = sum(len(group["rules"]) for group in read(file)["groups"])
    found = run(promtool, "check", "rules", file)
    assert (found.returncode, found.stderr) == (0, "")
    assert f"SUCCESS: {count} rules found" in found.stdout


def test_rules_do_what_they_promise(promtool: str, file: Path) -> None:
    """`promtool test rules` confirms X.test.yml, which is about X.rules.yml."""
    tests = promised(file)
    assert read(tests)["rule_files"] == [file.name]
    found = run(promtool, "test", "rules", tests)
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_file_of_rules_is_generated_and_every_test_has_one() -> None:
    """No file that nobody writes, and no test of rules that are gone."""
    files = set(RULES.glob("*.rules.yml"))
    assert {path for path in generate.files() if path.name.endswith(".rules.yml")} == files
    assert set(RULES.glob("*.test.yml")) == {promised(file) for file in files}


def test_the_rules_of_drift_are_those_that_the_command_writes() -> None:
    """Their thresholds are in the table, those of the command in its code; the two are the same."""
    histogram = Histogram("detection_confidence", CONFIDENCE)
    notice = NOTICE._replace(runbook="docs/runbooks/ModelDrift.md")
    assert Gates() == drift.LIMITS
    assert read(RULES / "drift.rules.yml") == promql.rules(histogram, notice=notice)
    assert read(RULES / "drift.test.yml") == check(histogram, "drift.rules.yml", notice=notice)


def test_every_alert_is_seen_firing_and_silent(alerts: list[dict[str, Any]], promises: list[dict[str, Any]]) -> None:
    """Each severity of each alert fires in one test, and in one is not there."""
    for alert in alerts:
        seen = severities(promises, alert["alert"])
        severity = alert["labels"]["severity"]
        assert {severity in expected for expected in seen} == {True, False}, f"{alert['alert']}, {severity}"
        assert set() in seen, f"{alert['alert']} is never wholly silent"


def test_every_recorded_series_has_a_worked_out_value(
    rules: list[dict[str, Any]], promises: list[dict[str, Any]], metrics: Metrics
) -> None:
    """No recording rule without a number that was worked out by other means."""
    asked = {
        name for promise in promises for case in promise.get("promql_expr_test", ()) for name in metrics(case["expr"])
    }
    assert {rule["record"] for rule in rules if "record" in rule} - asked == set()


def test_thresholds_and_alerts_are_the_same(alerts: list[dict[str, Any]], thresholds: list[dict[str, Any]]) -> None:
    """Each alert has one row of the table, each row one alert, and a reason."""
    rows = sorted((row["name"], row["severity"], row["for"]) for row in thresholds)
    assert sorted((alert["alert"], alert["labels"]["severity"], alert["for"]) for alert in alerts) == rows
    assert [row["name"] for row in thresholds if not row.get("reason") or not row.get("unit")] == []


def test_every_alert_says_what_is_wrong_and_where_to_read_on(alerts: list[dict[str, Any]]) -> None:
    """A summary, a description with a value, and a runbook that exists."""
    for alert in alerts:
        notes = alert["annotations"]
        assert sorted(notes) == ["description", "runbook_url", "summary"]
        assert "$value" in notes["description"]
        assert notes["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"
        assert (ROOT / notes["runbook_url"]).read_text(encoding="utf-8").startswith(f"# {alert['alert']}\n")


def test_every_runbook_belongs_to_an_alert(alerts: list[dict[str, Any]], queries: list[tuple[str, str]]) -> None:
    """No page of an alert that is gone, and none without a query to paste."""
    pages = {page.stem for page in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages == {alert["alert"] for alert in alerts} == {page for page, _ in queries}


def test_rules_ask_for_nothing_that_does_not_exist(
    rules: list[dict[str, Any]], metrics: Metrics, exposed: set[str]
) -> None:
    """Every metric in an expression is in the catalogue or recorded here."""
    known = exposed | {rule["record"] for rule in rules if "record" in rule}
    assert {name for rule in rules for name in metrics(rule["expr"])} - known == set()


def test_runbooks_ask_for_nothing_that_does_not_exist(
    promtool: str,
    rules: list[dict[str, Any]],
    queries: list[tuple[str, str]],
    metrics: Metrics,
    exposed: set[str],
    tmp_path: Path,
) -> None:
    """Every query to paste parses, and names metrics that exist; `up` is Prometheus's own."""
    known = exposed | {rule["record"] for rule in rules if "record" in rule} | {"up"}
    assert {(page, name) for page, query in queries for name in metrics(query)} == {
        (page, name) for page, query in queries for name in metrics(query) & known
    }
    pasted = [{"record": f"query_{number}", "expr": query} for number, (_, query) in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": pasted}]}), encoding="utf-8")
    found = run(promtool, "check", "rules", file)
    assert (found.returncode, found.stderr) == (0, "")


def test_metrics_of_an_expression_are_found(metrics: Metrics) -> None:
    """The reader of expressions sees names, and nothing but names."""
    expression = 'sum by (a) (rate(b_total{c!="d e"}[5m] offset 1h)) / on (f) group_left (g) x:h:i > 0.5 and j == 1e3'
    assert metrics(expression) == {"b_total", "x:h:i", "j"}
