"""What a file of rules is made of, and the table from which its alerts have their numbers.

Thresholds live in one table because dashboards and people read them too; an expression names them as `<value>` and
`<guard>`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

TABLE = Path(__file__).resolve().parent / "thresholds.yaml"


class Record(NamedTuple):
    """A series that is computed ahead, so that a dashboard and an alert mean the same by it."""

    name: str
    meaning: str
    expression: str
    labels: Mapping[str, str] | None = None


class Alert(NamedTuple):
    """What an alert asks, and what it says when the answer is yes."""

    name: str
    fires: str
    expression: str
    summary: str
    description: str


class Group(NamedTuple):
    """Rules that are evaluated in order, so that alerts see what was recorded just before."""

    name: str
    records: Sequence[Record] = ()
    alerts: Sequence[Alert] = ()
    interval: str = ""
    """Empty is that of the configuration of Prometheus."""


class RuleFile(NamedTuple):
    """What is written to X.rules.yml.

    Attributes:
        name: the X.
        recorded: what all recorded series have in common, a sentence; empty where there are none.
        groups: in their order.
        test: what is written to X.test.yml beside it; None if that is written by hand.
    """

    name: str
    recorded: str
    groups: Sequence[Group]
    test: Mapping[str, Any] | None = None

    @property
    def alerts(self) -> list[Alert]:
        """Those of all groups."""
        return [alert for group in self.groups for alert in group.alerts]

    @property
    def records(self) -> list[Record]:
        """Those of all groups."""
        return [record for group in self.groups for record in group.records]


class Threshold(NamedTuple):
    """One row of the table: the numbers of one alert at one severity."""

    value: str
    guard: str
    severity: str
    wait: str
    reason: str

    def fill(self, text: str) -> str:
        """`text` with the numbers in it, as themselves and as percentages."""
        percent = f"{float(self.value) * 100:g} %"
        return text.replace("<value>", self.value).replace("<guard>", self.guard).replace("<percent>", percent)


def runbook(alert: str) -> str:
    """Where the runbook page of an alert is."""
    return f"docs/runbooks/{alert}.md"


def table() -> dict[str, list[Threshold]]:
    """The rows of the table by alert, in their order."""
    rows: dict[str, list[Threshold]] = {}
    for row in yaml.safe_load(TABLE.read_text(encoding="utf-8")):
        numbers = format(row["value"], "g"), format(row.get("guard", 0), "g")
        threshold = Threshold(*numbers, row["severity"], row["for"], row["reason"])
        rows.setdefault(row["name"], []).append(threshold)
    return rows
