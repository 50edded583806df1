"""The text formats of Prometheus: 0.0.4, and OpenMetrics 1.0.0.

The lines of a row are the same in both; the heads of families are not.
"""

import math
from collections.abc import Mapping
from functools import lru_cache

from prometheus_client.utils import floatToGoString

from infermeter.catalogue import FAMILIES, SERVICE_LABELS, Family
from infermeter.pace import Pace
from infermeter.rows import Row, Rows, batched, labels_of

# Where the labels of a row stand in the lines of its family; a label value cannot hold it, because it is escaped.
_HERE = "\n\n"


class Renderer:
    """Renders the rows of one ledger.

    Args:
        rows: whose rows.
        constant: labels that every family of a service carries besides its own.
    """

    def __init__(self, rows: Rows, constant: Mapping[str, str]) -> None:
        self._rows = rows
        self._constant = constant
        # The label text of a series, which most of its rows share.
        self._shared: dict[tuple[str, ...], str] = {}
        self._lines = {name: _lines(family, rows.edges.get(name, ())) for name, family in FAMILIES.items()}

    def page(self, *, open_metrics: bool) -> str:
        """The lines of every family that has rows, without an end; the caller holds the fold lock."""
        parts = []
        pace = Pace()
        for name, family in FAMILIES.items():
            rows = self._rows.of(name)
            if rows:
                parts.append(_head(family, open_metrics=open_metrics))
            for some in batched(rows):
                parts += [self._rendered(row) if row.stale else row.text for row in some]
                if open_metrics and family.name == "inference_duration":
                    parts[-len(some) :] = map(_with_exemplars, some)
                pace.step()
        return "".join(parts)

    def _rendered(self, row: Row) -> str:
        """The lines of a row, made anew."""
        row.stale = False
        labels = self._shared.get(row.labels) if row.family.labels == SERVICE_LABELS else self._labels(row)
        if labels is None:
            labels = self._shared[row.labels] = self._labels(row)
        values = row.values.tolist()
        if row.family.kind == "histogram":
            values.insert(-1, values[-2])  # the number of values is the last bucket too
            if values[-1] == math.inf:  # a sum that is more than a float can hold
                values[-1] = "+Inf"
        row.text = self._lines[row.family.name].replace(_HERE, labels) % tuple(values)
        return row.text

    def _labels(self, row: Row) -> str:
        names = labels_of(row, self._constant)
        # A label value may hold a percent sign, and the lines are a format.
        return ",".join([f'{name}="{_escaped(value)}"' for name, value in names.items()]).replace("%", "%%")


def _with_exemplars(row: Row) -> str:
    if not row.exemplars:
        return row.text
    lines = row.text.split("\n")
    for place, (value, moment, labels) in row.exemplars.items():
        names = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        lines[place] += f" # {{{names}}} {value!r} {moment!r}"
    return "\n".join(lines)


def _lines(family: Family, edges: tuple[float, ...]) -> str:
    """The lines of a row of a family, with places for its labels and its values."""
    labels = f"{{{_HERE}}}" if family.labels else ""
    ends = {"histogram": ("_count", "_sum"), "summary": ("_count", "_sum")}.get(family.kind, ("",))
    lines = [f"{family.name}{end}{labels} %s\n" for end in ends]
    if family.kind == "histogram":
        every = [*map(floatToGoString, edges), "+Inf"]
        lines[:0] = [f'{family.name}_bucket{{le="{edge}",{_HERE}}} %s\n' for edge in every]
    return "".join(lines)


@lru_cache
def _head(family: Family, *, open_metrics: bool) -> str:
    name, kind = family.name, family.kind
    if open_metrics:
        name = name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, ""))
    elif kind == "info":
        kind = "gauge"
    return f"# HELP {name} {family.help}\n# TYPE {name} {kind}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
