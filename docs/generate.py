"""What is made from the catalogues: docs/metrics.md, the tables of docs/gpu.md, docs/drift.md and README.md."""

import re
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.utils import floatToGoString

from infermeter.catalogue import DROP_REASONS, FAMILIES
from infermeter_exporters.drift.catalogue import FAMILIES as DRIFT
from infermeter_exporters.families import Family
from infermeter_exporters.gpu.catalogue import FAMILIES as GPU
from infermeter_exporters.gpu.dcgm_names import FAMILIES as DCGM

ROOT = Path(__file__).resolve().parent.parent

HEAD = """<!-- Generated from instrumentation/infermeter/catalogue.py by `make docs`: edit there. -->

# Metrics of the instrumentation library

Base units throughout; the unit stands in the name or in the help. Counters of a series exist at 0 from its first call
on, those of a decorated function from its decoration on, so that `increase()` sees the first event. A histogram that
was never observed is absent.

`service` is the fleet-unique name of the service, `model` and `version` are what `track` was given; an empty `version`
or `class` is no label at all to Prometheus. Label values beyond the limit (100 per label name) become `_other`, error
types `other`; what is folded is counted.
"""


def label_list(labels: tuple[str, ...]) -> str:
    """Labels as Markdown code, a dash where there are none."""
    return ", ".join(f"`{label}`" for label in labels) or "-"


def metrics_page() -> str:
    """The text of docs/metrics.md."""
    parts = [HEAD]
    for family in FAMILIES.values():
        parts.append(f"\n## `{family.name}`\n\n{family.help}\n\n")
        parts.append(f"- type: {family.kind}\n- labels: {label_list(family.labels)}\n- since: {family.since}\n")
        if family.kind == "gauge" and family.labels:
            parts.append(f"- of several processes: {family.across}\n")
        if family.edges:
            edges = ", ".join(map(floatToGoString, family.edges))
            parts.append(f"- buckets (`le`): {edges}, +Inf\n")
        if family.labels == ("reason",):
            parts.append("\n| reason | meaning |\n|---|---|\n")
            parts.extend(f"| `{reason}` | {meaning} |\n" for reason, meaning in DROP_REASONS.items())
    return "".join(parts)


def readme(text: str) -> str:
    """README.md with its table of metrics made anew."""
    rows = "".join(
        f"| `{family.name}` | {family.kind} | {label_list(family.labels)} | {family.help} |\n"
        for family in FAMILIES.values()
    )
    head = "| metric | type | labels | what it says |\n|---|---|---|---|\n"
    table = f"<!-- metrics: generated -->\n{head}{rows}<!-- end -->"
    return re.sub(r"<!-- metrics: generated -->.*?<!-- end -->", lambda _: table, text, flags=re.DOTALL)


def with_table(text: str, name: str, families: Mapping[str, Family]) -> str:
    """A page with the table of that name made anew."""
    rows = "".join(
        f"| `{family.name}` | {family.kind} | {label_list(family.labels)} | {family.help} | {family.source or '-'} |\n"
        for family in families.values()
    )
    head = "| metric | type | labels | what it says | where it comes from |\n|---|---|---|---|---|\n"
    table = f"<!-- {name}: generated -->\n{head}{rows}<!-- end -->"
    return re.sub(rf"<!-- {name}: generated -->.*?<!-- end -->", lambda _: table, text, count=1, flags=re.DOTALL)


def files() -> dict[Path, str]:
    """The path of each generated file, absolute, and its text."""
    front, gpu, drift = ROOT / "README.md", ROOT / "docs" / "gpu.md", ROOT / "docs" / "drift.md"
    gpu_page = with_table(with_table(gpu.read_text(encoding="utf-8"), "metrics", GPU), "dcgm", DCGM)
    return {
        gpu: gpu_page,
        drift: with_table(drift.read_text(encoding="utf-8"), "metrics", DRIFT),
        ROOT / "docs" / "metrics.md": metrics_page(),
        front: readme(front.read_text(encoding="utf-8")),
    }
