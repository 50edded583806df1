"""A Prometheus with a past that somebody wrote, read by the real server."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from tests.prometheus.conftest import running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

STEP = 60
"""Seconds between two scrapes."""
METRIC = "detection_confidence"


def buckets(
    labels: str, bounds: Sequence[str], counts: Sequence[Sequence[float]], began: float, *, restarts: int = 0
) -> dict[str, list[tuple[float, float]]]:
    """The series of one instance, by name and labels; each step adds counts to all bins.

    Args:
        labels: as they are written.
        bounds: as they are written, the last one +Inf.
        counts: for each step, how many observations of each bin.
        began: seconds since 1970 of the first scrape, at which all is 0.
        restarts: the step at which counters begin again; 0 for none.
    """
    values = np.cumsum(np.concatenate((np.zeros((1, len(bounds))), np.asarray(counts, dtype=float))), axis=0)
    if restarts:
        values[restarts:] -= values[restarts - 1]
    cumulative = np.cumsum(values, axis=1)
    return {
        f'{METRIC}_bucket{{{labels},le="{bound}"}}': [
            (began + STEP * step, float(cumulative[step, place])) for step in range(len(cumulative))
        ]
        for place, bound in enumerate(bounds)
    }


@contextmanager
def remembering(
    program: str, promtool: str, folder: Path, series: dict[str, list[tuple[float, float]]], *flags: str
) -> Iterator[str]:
    """Host and port of a Prometheus that has these series."""
    lines = [f"# TYPE {METRIC} histogram"]
    lines += [f"{name} {value!r} {moment!r}" for name, samples in series.items() for moment, value in samples]
    text = folder / "past.om"
    text.write_text("\n".join([*lines, "# EOF", ""]))
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", "-q", str(text), str(folder / "data")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    jobs = "  - {job_name: nothing, static_configs: []}\n"
    with running(
        program, folder, jobs, "--storage.tsdb.retention.time=10y", "--web.enable-lifecycle", *flags
    ) as address:
        yield address
