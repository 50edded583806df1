"""Drift as recording rules: the statistics of this package over the buckets of a histogram, with no exporter between.

Prometheus, Mimir, Thanos and VictoriaMetrics evaluate them. What they cannot do is pool bins, adjust p-values for many
features, and add up evidence; the exporter can.
"""

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Any, NamedTuple

from infermeter_exporters.drift.counts import JEFFREYS
from infermeter_exporters.drift.decision import USUAL, Gates

ALERT = "ModelDrift"
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_DURATION = re.compile(r"[1-9][0-9]*[smhdwy]")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_WEEKS = 4
_WINDOWS = ("current", "reference")
_INTERVAL = "5m"

VALUE = '{{ $value | printf "%.2f" }}'
"""In an annotation, the value of the alert with two decimals."""

MEANINGS = {
    "drift_counts": "observations up to each bound, in the window that is current and in those that are the reference",
    "drift_bins": "observations in each bin",
    "drift_shares": "parts of them in each bin, each count larger by `prior` before it is divided",
    "drift_samples": "observations in the window",
    "drift_psi": "population stability index, each count half an observation larger (Jeffreys)",
    "drift_kl_divergence": "KL(current, reference) in nats, smoothed the same",
    "drift_js_divergence": "Jensen-Shannon divergence in nats, 0 to ln 2",
    "drift_hellinger": "Hellinger distance, 0 to 1",
    "drift_tvd": "total variation distance: the part that moved, 0 to 1",
    "drift_ks_statistic": "widest gap between the cumulative distributions, 0 to 1",
    "drift_psi_noise_floor": "what the index is on average without any drift",
    "drift_psi_z": "how far the index is above that, in standard deviations",
    "drift_vote": "1 where the index, its z and the observations are all as large as the alert wants them, otherwise 0",
}
"""What rules record: the middle of its name, and what it is."""


class Notice(NamedTuple):
    """How an alert is told.

    Attributes:
        wait: how long it is pending first, for example `10m`.
        severity: the label of that name.
        runbook: where to read on, an address or a path; empty for nowhere.
    """

    wait: str = "10m"
    severity: str = "warning"
    runbook: str = ""


NOTICE = Notice()
"""Of a rule: a warning, since a model that drifts still answers."""


class Histogram(NamedTuple):
    """A classic histogram whose drift is asked for.

    Attributes:
        metric: its name, without `_bucket`.
        edges: its bounds, growing; infinity is added if it is missing.
        by: labels that tell apart what drifts by itself; all others are summed before anything is computed.
        window: what is compared, for example `1h`.
        match: further matchers of a selector, for example `job="vision"`.
        weeks: how many of the weeks before, at the same hour, are the reference.
    """

    metric: str
    edges: Sequence[float]
    by: Sequence[str] = ("service", "model")
    window: str = "1h"
    match: str = ""
    weeks: int = _WEEKS

    def rule(self, what: str) -> str:
        """The name of a rule, for example `service_model:drift_psi:1h`."""
        return f"{'_'.join(self.by)}:{what}:{self.window}"

    def series(self, what: str, keep: str = "", **labels: str) -> str:
        """What a rule recorded of this histogram, of those of its series that have these labels.

        Labels that are asked for are dropped, but the one to keep, so that series that have others can be compared.
        """
        matchers = ", ".join(f'{name}="{value}"' for name, value in {"feature": self.metric, **labels}.items())
        recorded = f"{self.rule(what)}{{{matchers}}}"
        dropped = [name for name in labels if name != keep]
        return f"sum without ({', '.join(dropped)}) ({recorded})" if dropped else recorded


def checked(histogram: Histogram) -> Histogram:
    """The same, its edges ending in infinity.

    Raises:
        ValueError: something in it cannot work.
    """
    if not _NAME.fullmatch(histogram.metric) or histogram.metric.endswith("_bucket"):
        raise ValueError(f"the metric is {histogram.metric!r}, expected the name of a histogram without _bucket")
    edges = [float(edge) for edge in histogram.edges if edge != math.inf]
    if not edges or not all(math.isfinite(edge) for edge in edges):
        raise ValueError("no finite bound is given, expected those of the histogram, for example 0.5,0.9,0.99")
    if any(after <= before for before, after in pairwise(edges)):
        raise ValueError(f"the bounds are {', '.join(f'{edge:g}' for edge in edges)}, expected growing ones")
    if not _DURATION.fullmatch(histogram.window):
        raise ValueError(f"the window is {histogram.window!r}, expected a time, for example 1h")
    if not histogram.by or not all(_NAME.fullmatch(name) and name not in {"le", "bin"} for name in histogram.by):
        raise ValueError(f"the labels are {', '.join(histogram.by) or 'none'}, expected some, none of them le or bin")
    if not 1 <= histogram.weeks <= _WEEKS:
        raise ValueError(f"{histogram.weeks} weeks are asked for, expected 1 to {_WEEKS}")
    return histogram._replace(edges=[*edges, math.inf])


def seconds(duration: str) -> int:
    """How long a time of one unit is that Prometheus reads, for example `1h`."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def rules(histogram: Histogram, gates: Gates = USUAL, notice: Notice = NOTICE) -> dict[str, Any]:
    """The content of a file of rules: one group, its alert the last, to be written as YAML.

    Recorded is, for each combination of the labels in `by`, each of `MEANINGS` as `LEVEL:NAME:WINDOW` with the labels
    `feature` and `baseline`; but `drift_counts`, `drift_bins` and `drift_shares`, which are on the way, have the labels
    `bin` and `window` instead of a baseline. Formulas are those of the modules of this package; a series without a
    reference has none of them.

    Raises:
        ValueError: something in the histogram cannot work.
    """
    asked = checked(histogram)
    bins = len(asked.edges)
    q, p = (asked.series("drift_bins", window=window) for window in _WINDOWS)
    n, m = (asked.series("drift_counts", window=window, bin=_bin(bins)) for window in _WINDOWS)

    def share(counts: str, total: str, prior: float) -> str:
        if prior:
            return f"({counts} + {prior}) / ignoring (bin) group_left () ({total} + {bins * prior})"
        return f"{counts} / ignoring (bin) group_left () ({total} > 0)"

    def recorded(what: str, expression: str, **labels: str) -> dict[str, Any]:
        return {"record": asked.rule(what), "expr": expression, "labels": {"feature": asked.metric, **labels}}

    def shown(what: str, expression: str) -> dict[str, Any]:
        return recorded(what, expression, baseline="seasonal")

    made = [
        recorded("drift_counts", _cumulative(asked, [""]), window="current"),
        recorded(
            "drift_counts",
            _cumulative(asked, [f" offset {week}w" for week in range(1, asked.weeks + 1)]),
            window="reference",
        ),
    ]
    for window, counts, total in zip(_WINDOWS, (q, p), (n, m), strict=True):
        made.append(recorded("drift_bins", _differences(asked, window), window=window))
        made += [
            recorded("drift_shares", share(counts, total, prior), window=window, prior=f"{prior:g}")
            for prior in (JEFFREYS, 0.0)
        ]
    qs, ps, q0, p0 = (
        asked.series("drift_shares", window=window, prior=f"{prior:g}")
        for prior in (JEFFREYS, 0.0)
        for window in _WINDOWS
    )
    half = f"(({q0} + {p0}) / 2)"

    def of_half(part: str) -> str:
        # What is 0 adds nothing, but its logarithm would make it NaN.
        return f"sum without (bin) (({part} > 0) * ln(({part} > 0) / {half}))"

    noise = f"(1 / {n} + 1 / {m})"
    degrees = bins - 1
    made += [
        shown("drift_samples", n),
        shown("drift_psi", f"sum without (bin) (({qs} - {ps}) * ln({qs} / {ps})) and ({n} > 0) and ({m} > 0)"),
        shown("drift_kl_divergence", f"sum without (bin) ({qs} * ln({qs} / {ps})) and ({n} > 0) and ({m} > 0)"),
        shown("drift_js_divergence", f"clamp_min(({of_half(q0)} + {of_half(p0)}) / 2, 0)"),
        shown("drift_hellinger", f"sqrt(sum without (bin) ((sqrt({q0}) - sqrt({p0})) ^ 2) / 2)"),
        shown("drift_tvd", f"sum without (bin) (abs({q0} - {p0})) / 2"),
        shown(
            "drift_ks_statistic",
            "max without (bin) (abs("
            + " - ".join(
                share(asked.series("drift_counts", window=window), total, 0.0)
                for window, total in zip(_WINDOWS, (n, m), strict=True)
            )
            + "))",
        ),
        shown("drift_psi_noise_floor", f"{degrees} * {noise}"),
        # Wilson and Hilferty (1931), The Distribution of Chi-square: the cube root of it over its degrees is normal.
        shown(
            "drift_psi_z",
            f"(({asked.series('drift_psi', baseline='seasonal')} / {noise} / {degrees}) ^ (1 / 3)"
            f" - {1 - 2 / (9 * degrees)!r}) / {math.sqrt(2 / (9 * degrees))!r}",
        ),
        shown("drift_vote", _vote(asked, gates)),
        _alert(asked, gates, notice),
    ]
    # Votes of earlier windows are looked up where their windows ended, so there has to be an evaluation in each.
    interval = min(_INTERVAL, asked.window, key=seconds)
    return {"groups": [{"name": f"drift_{asked.metric}_{asked.window}", "interval": interval, "rules": made}]}


def _cumulative(asked: Histogram, offsets: Sequence[str]) -> str:
    """How many observations are at most each bound: bins are numbered, since releases write bounds differently."""
    bounds = [_written(edge) for edge in asked.edges]
    matchers = ", ".join(filter(None, [asked.match, f'le=~"{"|".join(bounds)}"']))
    # Weeks have to differ in a label, or the first of them would stand for all.
    buckets = f"{asked.metric}_bucket{{{matchers}}}[{asked.window}]"
    weeks = "\n  or ".join(
        f'label_replace(increase({buckets}{offset}), "week", "{week}", "", "")' for week, offset in enumerate(offsets)
    )
    numbered = f"sum by ({', '.join(asked.by)}, le) (\n  {weeks}\n)"
    for place, bound in enumerate(bounds, start=1):
        numbered = f'label_replace({numbered}, "bin", "{_bin(place)}", "le", "{bound}")'
    return f"sum by ({', '.join(asked.by)}, bin) ({numbered})"


def _written(edge: float) -> str:
    """A regular expression for all ways to write a bound."""
    if edge == math.inf:
        return r"\\+Inf"
    ways = dict.fromkeys([repr(edge), f"{edge:g}", str(int(edge)) if edge == int(edge) else repr(edge)])
    return "|".join(way.replace(".", r"\\.").replace("+", r"\\+") for way in ways)


def _bin(place: int) -> str:
    return f"{place:03}"


def _differences(asked: Histogram, window: str) -> str:
    """How many are in each bin; counters that were extrapolated may differ by a little less than nothing."""
    counts, bins = asked.series("drift_counts", window=window), len(asked.edges)
    first = asked.series("drift_counts", "bin", window=window, bin=_bin(1))
    below = counts.replace("}", f', bin!="{_bin(bins)}"}}')
    # From the last on, so that none is moved twice.
    for place in range(bins - 1, 0, -1):
        below = f'label_replace({below}, "bin", "{_bin(place + 1)}", "bin", "{_bin(place)}")'
    return f"clamp_min(\n  {counts}\n  - (\n    {first} * 0\n    or {below}\n  ),\n  0\n)"


def _vote(asked: Histogram, gates: Gates) -> str:
    limits = {"drift_psi": gates.effect, "drift_psi_z": least_z(gates), "drift_samples": least(gates, len(asked.edges))}
    return " * ".join(f"({asked.series(what)} >= bool {limit})" for what, limit in limits.items())


def least(gates: Gates, bins: int) -> int:
    """How many observations a window needs at least, for so many bins."""
    return max(gates.least, gates.least_per_bin * bins)


def least_z(gates: Gates) -> float:
    """How many standard deviations above what it is without drift the index has to be, for the alpha of gates."""
    return NormalDist().inv_cdf(1 - gates.alpha)


def _alert(asked: Histogram, gates: Gates, notice: Notice) -> dict[str, Any]:
    """Its value is the index of the window that is now, whatever the windows before say."""
    vote = asked.series("drift_vote")
    number, unit = int(asked.window[:-1]), asked.window[-1]
    earlier = [f"({vote} offset {times * number}{unit} or {vote} * 0)" for times in range(1, gates.windows)]
    whose = ", ".join(f"{name} {{{{ $labels.{name} }}}}" for name in asked.by)
    annotations = {
        "summary": f"The distribution of {asked.metric} drifts.",
        "description": (
            f"In at least {gates.agreeing} of the last {gates.windows} windows of {asked.window}, {asked.metric} of "
            f"{whose} differed from the same time of the weeks before by more than chance explains. The population "
            f"stability index of the last {asked.window} is {VALUE}; the limit is {gates.effect:g}."
        ),
    }
    if notice.runbook:
        annotations["runbook_url"] = notice.runbook
    return {
        "alert": ALERT,
        "expr": f"{asked.series('drift_psi')}\nand (\n  "
        + "\n  + ".join([vote, *earlier])
        + f"\n  >= {gates.agreeing}\n)",
        "for": notice.wait,
        "labels": {"severity": notice.severity},
        "annotations": annotations,
    }
