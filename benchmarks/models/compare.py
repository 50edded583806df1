"""What changed since an earlier run, and what of it is a regression."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.models.cases import Case, Mistake
from benchmarks.models.machine import kind
from benchmarks.models.report import FORMAT, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BETTER_HIGH = ("inferences_per_second", "accuracy", "map_50", "precision", "recall")
BETTER_LOW = ("p95_seconds", "joules_per_inference", "memory_bytes")
GUARDED = ("inferences_per_second", "p95_seconds", "accuracy", "map_50", "joules_per_inference")
"""What counts as a regression; of the others only the change is told."""


class Change(NamedTuple):
    """One line about one case, and whether it is a regression."""

    line: str
    worse: bool


def read(path: Path) -> dict[str, Any]:
    """The JSON of an earlier run; `Mistake` if it is none of this format."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        version = report["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise Mistake(f"--compare: {path} is no file that --json wrote") from None
    if version != FORMAT:
        raise Mistake(f"--compare: {path} is of format {version}, expected {FORMAT}")
    return dict(report)


def require_same_machine(earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """`Mistake` if the processor, the cores or the GPUs are others."""
    before, after = kind(earlier["machine"]), kind(now)
    if before != after:
        told = [", ".join(map(str, (cpu, f"{cores} cores", *gpus))) for cpu, cores, gpus in (before, after)]
        raise Mistake(
            f"--compare: that was another machine ({told[0]}; this is {told[1]}): --any-machine compares still"
        )


def changes(earlier: dict[str, Any], rows: Sequence[Row], threshold: float) -> Iterator[Change]:
    """Every figure that both have, in the order of the rows; then the cases that are gone.

    Args:
        earlier: what `read` gave.
        rows: what was measured now.
        threshold: from which share on something that is worse is a regression.
    """
    before = {_case(row["case"]): row for row in earlier["rows"]}
    for row in rows:
        old = before.pop(row.case, None)
        if old is None:
            yield Change(f"new: {row.case}", worse=False)
        elif not row.figures:
            yield Change(f"lost: {row.case}: {row.failed or row.skipped}", worse=bool(old.get("figures")))
        else:
            yield from _figures(row, old.get("figures", {}), threshold)
    for case, old in before.items():
        yield Change(f"gone: {case} was not measured this time", worse=bool(old.get("figures")))


def _figures(row: Row, old: dict[str, float], threshold: float) -> Iterator[Change]:
    for name in (*BETTER_HIGH, *BETTER_LOW):
        if name not in old:
            continue
        if name not in row.figures:
            yield Change(f"lost: {row.case}: {name} is not known this time", worse=name in GUARDED)
            continue
        before, now = old[name], row.figures[name]
        change = now / before - 1 if before else float(now > 0)
        loss = -change if name in BETTER_HIGH else change
        worse = name in GUARDED and loss > threshold
        noise = ""
        if name == "inferences_per_second":
            spreads = (100 * figures.get("spread_ratio", 0.0) for figures in (old, row.figures))
            noise = " (turns spread by {:.1f} % and {:.1f} %)".format(*spreads)
        mark = "WORSE" if worse else "same" if abs(change) <= threshold else "better" if loss < 0 else "changed"
        yield Change(f"{mark}: {row.case}: {name} {before:.6g} -> {now:.6g}, {100 * change:+.1f} %{noise}", worse)


def _case(told: dict[str, Any]) -> Case:
    return Case(**{**told, "shape": tuple(told["shape"])})
