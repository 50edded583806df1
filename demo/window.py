"""What the services did in the last half minute, computed from scrapes of their own /metrics.

This is what Prometheus would answer to `rate()`, `histogram_quantile()` and quotients of `_sum` and `_count` over a
window, so that the demo can show numbers where no Prometheus is installed.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable

SECONDS = 30.0
"""Length of the window."""

BUCKETS = "inference_duration_bucket"
MEANS = ("objects_per_frame", "detection_confidence", "inference_cost")
COUNTERS = {"inferences_total", *(f"{family}_{part}" for family in MEANS for part in ("sum", "count"))}

Key: TypeAlias = tuple[str, str]
"""A service and its model."""

Counts: TypeAlias = dict[Key, dict[tuple[str, float], float]]
"""What has been counted so far for each model, by sample name and upper edge of the bucket (0 if it is no bucket)."""


@dataclass(frozen=True)
class Row:
    """One model over the window; what cannot be known, because nothing was counted, is NaN."""

    service: str
    model: str
    rate: float
    """Inferences a second."""
    p50: float
    p95: float
    p99: float
    """Seconds within which 50, 95 and 99 of a hundred inferences ended."""
    objects: float
    """Objects per frame, mean."""
    confidence: float
    """Confidence of a detection, mean, 0 to 1."""
    cost: float
    """USD for a thousand inferences."""


def counts(exposition: str) -> Counts:
    """Return the counts in one answer of /metrics (text format), summed over all labels but service and model."""
    found: Counts = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(exposition):
        for name, labels, value, *_ in family.samples:
            if name in COUNTERS or name == BUCKETS:
                edge = float(labels["le"]) if name == BUCKETS else 0.0
                found[labels.get("service", ""), labels.get("model", "")][name, edge] += value
    return found


class Window:
    """The scrapes of one service over the last `SECONDS`."""

    def __init__(self) -> None:
        """Begin empty."""
        self._scrapes: deque[tuple[float, Counts]] = deque()

    @property
    def length(self) -> float:
        """Seconds from the oldest scrape to the newest."""
        return self._scrapes[-1][0] - self._scrapes[0][0] if self._scrapes else 0.0

    def add(self, time: float, exposition: str) -> None:
        """Take in what /metrics answered at `time`, in seconds of any steady clock."""
        self._scrapes.append((time, counts(exposition)))
        while time - self._scrapes[0][0] > SECONDS:
            self._scrapes.popleft()

    def rows(self) -> list[Row]:
        """Return one row per model seen in the newest scrape; none before there are two scrapes."""
        if not self.length:
            return []
        before, after = self._scrapes[0][1], self._scrapes[-1][1]
        rows = []
        for key in sorted(after):
            # A series that was not there at first began at 0.
            grown = {sample: value - before.get(key, {}).get(sample, 0.0) for sample, value in after[key].items()}
            rows.append(_row(key, grown, self.length))
        return rows


def histogram_quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float:
    """Return what PromQL's function of that name does: the q-quantile, interpolated linearly inside its bucket.

    `q` is above 0 and at most 1. `buckets` are pairs of an upper edge and the count of observations up to it; one edge
    must be +Inf. The lowest bucket begins at 0, or is a point if its edge is not above 0; a quantile in the +Inf
    bucket is the highest finite edge. NaN without observations.
    """
    ordered = sorted(buckets)
    if len(ordered) < 2 or ordered[-1][0] != math.inf or ordered[-1][1] == 0:  # noqa: PLR2004
        return math.nan
    rank = q * ordered[-1][1]
    index = next(i for i, (_, count) in enumerate(ordered) if count >= rank)
    edge, count = ordered[index]
    if edge == math.inf:
        return ordered[index - 1][0]
    if index == 0 and edge <= 0:
        return edge
    lower, below = ordered[index - 1] if index else (0.0, 0.0)
    return lower + (edge - lower) * (rank - below) / (count - below)


def _row(key: Key, grown: dict[tuple[str, float], float], seconds: float) -> Row:
    """Return the row of one model whose counts have grown by `grown` in `seconds`."""

    def mean(family: str) -> float:
        count = grown.get((f"{family}_count", 0.0), 0.0)
        return grown[f"{family}_sum", 0.0] / count if count else math.nan

    buckets = [(edge, value) for (name, edge), value in grown.items() if name == BUCKETS]
    service, model = key
    return Row(
        service,
        model,
        rate=grown.get(("inferences_total", 0.0), 0.0) / seconds,
        p50=histogram_quantile(0.50, buckets),
        p95=histogram_quantile(0.95, buckets),
        p99=histogram_quantile(0.99, buckets),
        objects=mean("objects_per_frame"),
        confidence=mean("detection_confidence"),
        cost=1000 * mean("inference_cost"),
    )
