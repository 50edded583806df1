"""Rules by which Prometheus finds drift of our own confidences by itself, as `infermeter drift rules` makes them.

Their test is made with them: it is worked out by the statistics of the drift exporter.
"""

from typing import Any

from infermeter.buckets import CONFIDENCE
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.promql import ALERT, MEANINGS, Histogram, Notice, least_z, rules
from infermeter_exporters.drift.promql_check import check
from rules.rule import Alert, Group, Record, RuleFile, runbook, table

CONFIDENCES = Histogram("detection_confidence", CONFIDENCE, by=("service", "model"), window="1h")
# What is compared depends on the numbers: there is one alert, of one severity.
(ROW,) = table()[ALERT]
LIMITS = Gates(effect=float(ROW.value), least=int(ROW.guard))
NOTICE = Notice(wait=ROW.wait, severity=ROW.severity, runbook=runbook(ALERT))


def group() -> Group:
    """The rules as they were made."""
    (made,) = rules(CONFIDENCES, LIMITS, NOTICE)["groups"]
    *records, alert = made["rules"]
    told = alert["annotations"]
    fires = (
        f"in at least {LIMITS.agreeing} of the last {LIMITS.windows} hours, the population stability index of the "
        "confidences against the same hour of the weeks before was at least <value>, and its z at least "
        f"{least_z(LIMITS):.2f}; from <guard> detections an hour on"
    )
    return Group(
        made["name"],
        records=[recorded(record) for record in records],
        alerts=[Alert(ALERT, fires, alert["expr"], told["summary"], told["description"])],
        interval=made["interval"],
    )


def recorded(rule: dict[str, Any]) -> Record:
    """A recording rule, and what the middle of its name means."""
    return Record(rule["record"], MEANINGS[rule["record"].split(":")[1]], rule["expr"], rule["labels"])


FILE = RuleFile(
    name="drift",
    recorded=(
        "Per `service` and `model`, the last hour against the same hour of the four weeks before, with the labels "
        '`feature="detection_confidence"` and `baseline="seasonal"`, or `window` and `bin`; every 5 minutes.'
    ),
    groups=(group(),),
    test=check(CONFIDENCES, "drift.rules.yml", LIMITS, NOTICE),
)
