"""What was measured, as a table for people and for files.

A file is written whole or not at all: to a name of its own beside the target, which it then replaces.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.models.cases import Case

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 1
"""Of the JSON file: raised when a reader of the older one would misread it."""


@dataclass
class Row:
    """A case and what came of it: figures by name, in base units, or why there are none."""

    case: Case
    ran: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: str = ""
    skipped: str = ""


class Column(NamedTuple):
    """A figure as people read it: its heading, what it is multiplied by, and its digits after the point.

    No digits means three significant ones, of a figure that may be of any magnitude.
    """

    figure: str
    heading: str
    factor: float
    digits: int | None


COLUMNS = (
    Column("inferences_per_second", "inferences/s", 1, 1),
    Column("spread_ratio", "± %", 100, 1),
    Column("p50_seconds", "p50 ms", 1000, 2),
    Column("p95_seconds", "p95 ms", 1000, 2),
    Column("p99_seconds", "p99 ms", 1000, 2),
    Column("memory_bytes", "memory MiB", 1 / 2**20, 1),
    Column("watts", "W", 1, 1),
    Column("joules_per_inference", "J per inference", 1, 3),
    Column("inferences_per_second_per_watt", "inferences/s per W", 1, 2),
    Column("usd_per_1000", "USD per 1K", 1, None),
    Column("accuracy", "accuracy", 1, 4),
    Column("map_50", "mAP@0.5", 1, 4),
    Column("precision", "precision", 1, 4),
    Column("recall", "recall", 1, 4),
)


class Table(NamedTuple):
    """What all cases have in common, headings, how many of those are words, and a line for each case."""

    common: str
    headings: list[str]
    words: int
    lines: list[list[str]]


def tabled(rows: Sequence[Row]) -> Table:
    """The settings that differ and the figures that there are; a figure that a row has not is a dash.

    Cases that were left out are in none of the lines; without any other there are no headings.
    """
    rows = [row for row in rows if not row.skipped]
    if not rows:
        return Table("", [], 0, [])
    settings = [{**row.case.cells(), "ran on": row.ran} for row in rows]
    measured = [row for row in rows if row.figures]
    for row, cells in zip(rows, settings, strict=True):
        cells["ran on"] = row.ran if row.ran not in {"", row.case.provider} else row.case.provider
    if all(cells["ran on"] == cells["provider"] for cells in settings):
        for cells in settings:
            del cells["ran on"]
    names = list(settings[0])
    same = [name for name in names if len({cells[name] for cells in settings}) == 1] if len(rows) > 1 else []
    columns = [column for column in COLUMNS if any(column.figure in row.figures for row in measured)]
    differing = [name for name in names if name not in same]
    lines = [
        [cells[name] for name in differing] + [_cell(row, column) for column in columns]
        for row, cells in zip(rows, settings, strict=True)
    ]
    common = ", ".join(f"{name} {settings[0][name]}" for name in same)
    return Table(common, [*differing, *(column.heading for column in columns)], len(differing), lines)


def remarks(rows: Sequence[Row]) -> list[str]:
    """What the table cannot say: notes, cases that were left out, cases that failed."""
    reasons = Counter(f"note: {row.case.model}: {note}" for row in rows for note in row.notes)
    reasons.update(f"left out: {row.case.model}: {row.skipped}" for row in rows if row.skipped)
    lines = [f"{reason} ({count} case{'s' * (count > 1)})" for reason, count in reasons.items()]
    return lines + [f"FAILED: {row.case}: {row.failed}" for row in rows if row.failed]


def plain(rows: Sequence[Row]) -> str:
    """The table as aligned text, with what all have in common above it."""
    table = tabled(rows)
    if not table.lines:
        return "nothing could be measured"
    cells = [table.headings, *table.lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = [
        "  ".join(
            cell.ljust(width) if place < table.words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([*([table.common] if table.common else []), *aligned])


def markdown(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """The table in Markdown, with the machine above and the remarks below."""
    table = tabled(rows)
    rules = ["---" if place < table.words else "---:" for place in range(len(table.headings))]
    facts = [machine["cpu"], f"{machine['cores']} cores", *(machine["gpus"] or ["no GPU"])]
    facts += [f"{name} {version}" for name, version in machine["libraries"].items()]
    lines = [f"{', '.join(facts)}. {table.common}.".replace(". .", "."), ""]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in [table.headings, rules, *table.lines]
    ]
    told = [f"- {line}" for line in remarks(rows)]
    return "\n".join([*lines, *(["", *told] if told else []), ""])


def as_json(rows: Sequence[Row], machine: dict[str, Any], settings: dict[str, Any]) -> str:
    """Everything, for `--compare` and for programs; unknown figures are absent."""
    kept = [{name: value for name, value in asdict(row).items() if value} for row in rows]
    report = {"format": FORMAT, "machine": machine, "settings": settings, "rows": kept}
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each case, figures in base units, empty where unknown."""
    written = io.StringIO()
    figures = ["calls", *(column.figure for column in COLUMNS)]
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([*Case.__dataclass_fields__, "ran", *figures, "notes", "failed", "skipped"])
    for row in rows:
        cells = {**row.case.cells(), "threads": row.case.threads}
        values = [row.figures.get(name, "") for name in figures]
        writer.writerow([*cells.values(), row.ran, *values, "; ".join(row.notes), row.failed, row.skipped])
    return written.getvalue()


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; `OSError` if that is impossible."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)  # as any other file that is made, not as a temporary one
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _cell(row: Row, column: Column) -> str:
    value = row.figures.get(column.figure)
    if value is None:
        return "-"
    if column.digits is None:
        return np.format_float_positional(value * column.factor, precision=3, fractional=False, trim="-")
    return f"{value * column.factor:.{column.digits}f}"
