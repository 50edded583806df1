"""Write what is generated from the catalogue: docs/metrics.md, and the table of metrics in README.md.

python docs/generate.py            write
python docs/generate.py --check    exit 1 and name the files that are stale
"""

import re
import sys
from pathlib import Path

from prometheus_client.utils import floatToGoString

from infermeter.catalogue import DROP_REASONS, FAMILIES

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


def main() -> int:
    """Write or check the files."""
    front = ROOT / "README.md"
    wanted = {ROOT / "docs" / "metrics.md": metrics_page(), front: readme(front.read_text(encoding="utf-8"))}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run make docs")
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
