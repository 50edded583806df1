"""The figures as a picture: how much each case does, and how long its calls take."""

from __future__ import annotations

import importlib
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.models.report import Row, Table

QUANTILES = (
    ("p50_seconds", "o", "#3274d9", "p50"),
    ("p95_seconds", "s", "#e0752d", "p95"),
    ("p99_seconds", "^", "#8f3bb8", "p99"),
)
INCHES = 0.32
"""Height of a case."""


def png(rows: Sequence[Row], table: Table, machine: str) -> bytes:
    """A PNG of the rows that have figures, the first on top.

    Args:
        rows: at least one of them with figures.
        table: the same rows as text, whose differing settings name them.
        machine: what stands above.
    """
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")  # no screen is needed
    pyplot = importlib.import_module("matplotlib.pyplot")

    tabled = zip((row for row in rows if not row.skipped), table.lines, strict=True)
    shown, lines = zip(*((row, line) for row, line in tabled if row.figures), strict=True)
    names = [_named(table.headings[: table.words], line) for line in lines]
    speeds = [row.figures["inferences_per_second"] for row in shown]
    spreads = [row.figures["inferences_per_second"] * row.figures["spread_ratio"] for row in shown]

    size = (12, 2 + INCHES * len(shown))
    figure, (left, right) = pyplot.subplots(1, 2, sharey=True, figsize=size, layout="constrained")
    left.barh(range(len(shown)), speeds, xerr=spreads, color=QUANTILES[0][2], ecolor="black", capsize=2)
    left.set_yticks(range(len(shown)), names)
    left.invert_yaxis()
    left.set_xlabel("inferences per second")
    for figure_name, marker, colour, label in QUANTILES:
        known = [
            (row.figures[figure_name] * 1000, place) for place, row in enumerate(shown) if figure_name in row.figures
        ]
        if known:
            right.plot(*zip(*known, strict=True), linestyle="none", marker=marker, color=colour, label=label)
    right.set_xscale("log")
    right.set_xlabel("milliseconds of a call")
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    figure.suptitle(f"{machine}\n{table.common}".strip(), fontsize=10)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=120)
    pyplot.close(figure)
    return written.getvalue()


def _named(headings: Sequence[str], cells: Sequence[str]) -> str:
    """What a row is called: numbers need the name of their setting, words do not."""
    return ", ".join(
        f"{heading} {cell}" if cell[0].isdigit() or heading == "threads" else cell
        for heading, cell in zip(headings, cells, strict=False)
    )
