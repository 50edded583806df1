"""What is made from thresholds.yaml and the modules beside this one: X.rules.yml, tests of some, docs/alerts.md."""

import re
from pathlib import Path

import yaml

from rules import drift, drift_exporter, inference
from rules.rule import Alert, Group, RuleFile, Threshold, runbook, table

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "rules"
PAGE = ROOT / "docs" / "alerts.md"
FILES = (inference.FILE, drift.FILE, drift_exporter.FILE)

HEAD = "# Generated from rules/thresholds.yaml and rules/{module}.py by `make docs`: edit there.\n"
PAGE_HEAD = """<!-- Generated from rules/thresholds.yaml and rules/*.py by `make docs`: edit there. -->

# Alerts and recorded series

Load into Prometheus 2.42 or newer (`rule_files`): {files}.

| alert | severity | fires when | for | runbook |
|---|---|---|---|---|
"""


class Blocks(yaml.SafeDumper):
    """Writes texts of several lines as blocks, the way a person writes a long expression."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  (what a person would not write)
        """Write out what occurs twice."""
        return True


def block(dumper: Blocks, text: str) -> yaml.ScalarNode:
    """A text as a block where it has several lines."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Blocks.add_representer(str, block)


def written(name: str, content: object) -> str:
    """The text of a file of rules or of their test, an empty line before each."""
    text = yaml.dump(content, Dumper=Blocks, sort_keys=False, width=1 << 20)
    text = re.sub(r"\n( *- (?:alert|record|name):)", r"\n\n\1", text)
    head = HEAD.format(module=name.replace("-", "_"))
    return head + re.sub(r"^(groups|tests):\n\n", r"\1:\n", text, flags=re.MULTILINE)


def rule(alert: Alert, row: Threshold) -> dict[str, object]:
    """One alert at one severity, as Prometheus reads it."""
    return {
        "alert": alert.name,
        "expr": row.fill(alert.expression),
        "for": row.wait,
        "labels": {"severity": row.severity},
        "annotations": {
            "summary": alert.summary,
            "description": row.fill(alert.description),
            "runbook_url": runbook(alert.name),
        },
    }


def group(made: Group, rows: dict[str, list[Threshold]]) -> dict[str, object]:
    """A group, as Prometheus reads it."""
    rules: list[dict[str, object]] = [
        {"record": record.name, "expr": record.expression} | ({"labels": dict(record.labels)} if record.labels else {})
        for record in made.records
    ]
    rules += [rule(alert, row) for alert in made.alerts for row in rows[alert.name]]
    interval = {"interval": made.interval} if made.interval else {}
    return {"name": made.name, **interval, "rules": rules}


def page(files: tuple[RuleFile, ...], rows: dict[str, list[Threshold]]) -> str:
    """The text of docs/alerts.md."""
    links = [f"[`rules/{file.name}.rules.yml`](../rules/{file.name}.rules.yml)" for file in files]
    lines = [PAGE_HEAD.format(files=", ".join(links))]
    both = [(alert, row) for file in files for alert in file.alerts for row in rows[alert.name]]
    for alert, row in both:
        link = f"[runbook](runbooks/{alert.name}.md)"
        lines.append(f"| `{alert.name}` | {row.severity} | {row.fill(alert.fires)} | {row.wait} | {link} |\n")
    lines.append("\n## Why these values\n\n")
    lines.extend(f"- `{alert.name}`, {row.severity}: {row.reason}\n" for alert, row in both)
    lines.append("\n## Recorded series\n")
    for file in files:
        if file.records:
            lines.append(f"\n`{file.name}.rules.yml`: {file.recorded}\n\n| series | what it is |\n|---|---|\n")
            # Rules of one name differ in their labels.
            meanings = {record.name: record.meaning for record in file.records}
            lines.extend(f"| `{name}` | {meaning} |\n" for name, meaning in meanings.items())
    return "".join(lines)


def files() -> dict[Path, str]:
    """The path of each generated file, absolute, and its text."""
    rows = table()
    found = {PAGE: page(FILES, rows)}
    for file in FILES:
        content = {"groups": [group(made, rows) for made in file.groups]}
        found[RULES / f"{file.name}.rules.yml"] = written(file.name, content)
        if file.test is not None:
            found[RULES / f"{file.name}.test.yml"] = written(file.name, file.test)
    return found
