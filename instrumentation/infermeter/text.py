"""The text formats of Prometheus: 0.0.4, and OpenMetrics 1.0.0.

The lines of a row are the same in both; the heads of families are not.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import cast

import numpy as np
from prometheus_client.utils import floatToGoString

from infermeter.catalogue import FAMILIES, SERVICE_LABELS, Family
from infermeter.pace import Pace
from infermeter.rows import Group, HistogramRow, Rows, batched

# Where the labels of a row stand in the lines of its family.
_HERE = "\n\n"
# Counts of so many are written with an exponent.
_MOST_DIGITS = 1e16


class Renderer:
    """Renders the rows of one ledger.

    Args:
        rows: whose rows.
        constant: labels that every family of a service carries besides its own.
    """

    def __init__(self, rows: Rows, constant: Mapping[str, str]) -> None:
        self._rows = rows
        self._constant = constant
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...]], _LabelText] = {}
        self._lines: dict[str, list[bytes]] = {}  # of those families that have rows

    def page(self, end: bytes, *, open_metrics: bool) -> bytes:
        """The lines of every family that has rows, and then `end`; the caller holds the fold lock."""
        parts: list[bytes] = []
        pace = Pace()
        for name, family in FAMILIES.items():
            head = len(parts)
            for group in self._rows.groups(name):
                stale, group.stale = group.stale, False
                if family.kind == "histogram":
                    rows = cast("list[HistogramRow]", list(group.values()))
                    for some in batched([row for row in rows if row.text is None] if stale else []):
                        self._render(group, some)
                        pace.step()
                    if open_metrics and name == "inference_duration":
                        parts += map(_with_exemplars, rows)
                    else:
                        parts += [row.text or b"" for row in rows]
                else:
                    if stale:
                        group.text = b"".join(self._rendered(group))
                    parts.append(group.text)
                pace.step()
            if any(parts[head:]):
                parts.insert(head, _head(family, open_metrics=open_metrics))
        parts.append(end)
        return b"".join(parts)  # once: a page may have megabytes

    def _render(self, group: Group, rows: list[HistogramRow]) -> None:
        """Make the lines of some histograms anew."""
        numbers = np.array([row.values for row in rows])
        counts, totals = numbers[:, :-1], numbers[:, -1].tolist()
        if counts[:, -1].max() < _MOST_DIGITS:
            counts = counts.astype(np.int64)
            lines = self._between(group.family)
        else:
            lines = _lines(group.family, self._rows.edges.get(group.family.name, ()), "%a")
        labelled = self._labels(group)
        for row, count, total in zip(rows, counts.tolist(), totals, strict=True):
            # The number of values is the last bucket too.
            text = labelled(row.labels).join(lines) % (*count, count[-1], total)
            # A sum may be more than a float can hold.
            row.text = text if total < math.inf else text.replace(b" inf\n", b" +Inf\n")

    def _rendered(self, group: Group) -> list[bytes]:
        """The lines of rows that are no histograms."""
        lines = self._between(group.family)
        labelled = self._labels(group)
        return [labelled(row.labels).join(lines) % tuple(row.values.tolist()) for row in list(group.values())]

    def _between(self, family: Family) -> list[bytes]:
        """What stands between the labels of a row of `family`, whose counts have few digits."""
        lines = self._lines.get(family.name)
        if lines is None:
            # Whole numbers take half as long to write as others.
            edges = self._rows.edges.get(family.name, ())
            lines = self._lines[family.name] = _lines(family, edges, "%d.0")
        return lines

    def _labels(self, group: Group) -> Callable[[tuple[str, ...]], bytes]:
        """What gives the label text of a row of `group`, as a part of a format, for the labels that it shares."""
        key = (group.family.labels, group.own)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _LabelText(group, self._constant)
        return known.__getitem__


class _LabelText(dict[tuple[str, ...], bytes]):
    """The label text of rows whose family has the same labels, with the same values of its own ones.

    It is a part of a format, so percent signs are doubled. Only that of labels without own ones is kept, which most of
    the rows of a series have.
    """

    def __init__(self, group: Group, constant: Mapping[str, str]) -> None:
        super().__init__()
        names = group.family.labels
        own = dict(zip(names[-len(group.own) :], group.own, strict=False)) if names != SERVICE_LABELS else {}
        self._keeps = not own
        shared = [name for name in names if name not in own]
        fixed = own | (dict(constant) if "service" in names else {})
        every = sorted((*shared, *fixed))
        self._order = [shared.index(name) for name in every if name in shared]
        parts = [
            f'{name}="{_escaped(fixed[name]).replace("%", "%%")}"' if name in fixed else f'{name}="%b"'
            for name in every
        ]
        self._form = ",".join(parts).encode()

    def __missing__(self, labels: tuple[str, ...]) -> bytes:
        text = self._form % tuple([_escaped(labels[index]).encode() for index in self._order])
        if self._keeps:
            self[labels] = text
        return text


def _with_exemplars(row: HistogramRow) -> bytes:
    text = row.text or b""  # which it has by now
    if not row.exemplars:
        return text
    lines = text.split(b"\n")
    for place, (value, moment, labels) in row.exemplars.items():
        names = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()).replace("%%", "%")
        lines[place] += f" # {{{names}}} {value!r} {moment!r}".encode()
    return b"\n".join(lines)


def _lines(family: Family, edges: tuple[float, ...], count: str) -> list[bytes]:
    """What stands between the labels of a row of a family, with places for its values, `count` where it is a count."""
    labels = f"{{{_HERE}}}" if family.labels else ""
    if family.kind not in {"histogram", "summary"}:
        lines = [f"{family.name}{labels} %a\n"]
    else:
        every = [*map(floatToGoString, edges), "+Inf"] if family.kind == "histogram" else []
        lines = [f'{family.name}_bucket{{le="{edge}",{_HERE}}} {count}\n' for edge in every]
        lines += (f"{family.name}_count{labels} {count}\n", f"{family.name}_sum{labels} %a\n")
    return "".join(lines).encode().split(_HERE.encode())


@lru_cache
def _head(family: Family, *, open_metrics: bool) -> bytes:
    name, kind = family.name, family.kind
    if open_metrics:
        name = name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, ""))
    elif kind == "info":
        kind = "gauge"
    return f"# HELP {name} {family.help}\n# TYPE {name} {kind}\n".encode()


def _escaped(value: str) -> str:
    """A label value as a part of a format."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"").replace("%", "%%")
