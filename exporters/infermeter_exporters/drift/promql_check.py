"""What `promtool test rules` checks rules of `promql` with: some hours of weeks before, and the same hours now.

What the rules have to say of it is worked out by the statistics of this package, not by the rules.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from infermeter_exporters.drift.counts import JEFFREYS, Floats, shares
from infermeter_exporters.drift.decision import USUAL, Gates
from infermeter_exporters.drift.distances import hellinger, js_divergence, total_variation
from infermeter_exporters.drift.kl import kl
from infermeter_exporters.drift.ks import ks
from infermeter_exporters.drift.promql import (
    ALERT,
    NOTICE,
    VALUE,
    Histogram,
    Notice,
    checked,
    least,
    least_z,
    rules,
    seconds,
)
from infermeter_exporters.drift.psi import noise_floor, psi

# Relative; rules lose a little where a rate is extrapolated.
_PRECISION = 1e-6
_STEPS = 12
"""Scrapes in a window."""
_EQUAL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"([^"]*)"')


def check(histogram: Histogram, file: str, gates: Gates = USUAL, notice: Notice = NOTICE) -> dict[str, Any]:
    """The content of a test, to be written as YAML beside the rules.

    Two instances, whose counts have to be summed, observe the same in each of the weeks before and now; one of them is
    restarted on the way. Looked at are the window in which an alert has to fire that fires at all, and the one before,
    in which none fires yet. In one test the distribution becomes its mirror image; in the others, which know one week
    before and no more, it stays, or changes by little, or in too few observations.

    Args:
        histogram: of the rules; its window is one that a week has a whole number of, and enough for an alert.
        file: the name of the rules, beside the test.
        gates: with which the rules were made.
        notice: the same.

    Raises:
        ValueError: something in the histogram cannot work.
    """
    asked = checked(histogram)
    bins = len(asked.edges)
    # More in each bin than in the one before, so that no two of them are taken for each other.
    usual = np.arange(1, bins + 1) * max(1, math.ceil(200 / bins))
    few = np.zeros(bins, dtype=int)
    few[0] = max(1, (least(gates, bins) - 1) // (2 * _STEPS))
    # promtool evaluates every window from the first on, so weeks are what takes its time.
    cases: dict[str, tuple[int, Any, Any]] = {
        "the distribution becomes its mirror image": (asked.weeks, usual, usual[::-1]),
        "the distribution stays": (1, usual, usual),
        "the distribution changes for certain, and by little": (1, 10 * usual, 9 * usual + usual[::-1]),
        "the distribution becomes its mirror image, of too few observations to say so": (1, few, few[::-1]),
    }
    return {
        "rule_files": [file],
        "evaluation_interval": asked.window,
        "tests": [_changed(asked, name, *case, gates, notice) for name, case in cases.items()],
    }


def expected(reference: Floats, current: Floats) -> dict[str, float]:
    """What the statistics say, by the names of rules.

    Args:
        reference: counts of shape (bins,).
        current: the same now.
    """
    n, m, bins = float(current.sum()), float(reference.sum()), len(current)
    index = float(psi(reference, current))
    scaled, degrees = index / (1 / n + 1 / m), bins - 1
    return {
        "drift_psi": index,
        "drift_kl_divergence": float(kl(reference, current)),
        "drift_js_divergence": float(js_divergence(reference, current)),
        "drift_hellinger": float(hellinger(reference, current)),
        "drift_tvd": float(total_variation(reference, current)),
        "drift_ks_statistic": float(ks(reference, current)),
        "drift_psi_noise_floor": float(noise_floor(bins, n, m)),
        "drift_psi_z": ((scaled / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees)),
        "drift_samples": n,
    }


def _changed(
    asked: Histogram, name: str, weeks: int, usual: Any, now: Any, gates: Gates, notice: Notice
) -> dict[str, Any]:
    window, week = seconds(asked.window), seconds("1w")
    step = window // _STEPS
    # The windows that agree, and those after them that the alert waits for.
    windows = gates.agreeing + math.ceil(seconds(notice.wait) / window)
    if week % window or not step or week // window <= windows:
        raise ValueError(
            f"the window is {asked.window}, expected one of which a week has a whole number, more than {windows}, "
            "to be tested"
        )
    # Each week more than the one before, so that none is taken for another.
    before = [number * usual for number in range(1, weeks + 1)]
    reference, current = (2.0 * _STEPS * np.asarray(counts) for counts in (sum(before), now))
    values = expected(reference, current)
    votes = (
        gates.enough(values["drift_samples"], len(asked.edges))
        and values["drift_psi"] >= gates.effect
        and values["drift_psi_z"] >= least_z(gates)
    )
    agreed, last = (weeks * week + number * window for number in (gates.agreeing, windows))
    by = dict(_labels(asked)[: len(asked.by)])
    shown = {**by, "feature": asked.metric, "baseline": "seasonal"}
    distributions = {"current": current, "reference": reference}
    asks = [
        *(_asked(asked, what, {"": value}, last) for what, value in values.items()),
        *(
            _asked(asked, "drift_counts", _by_bin(np.cumsum(counts), window=which), last)
            for which, counts in distributions.items()
        ),
        *(_asked(asked, "drift_bins", _by_bin(counts, window=which), last) for which, counts in distributions.items()),
        *(
            _asked(asked, "drift_shares", _by_bin(shares(counts, prior), window=which, prior=f"{prior:g}"), last)
            for which, counts in distributions.items()
            for prior in (JEFFREYS, 0.0)
        ),
        {
            "expr": asked.rule("drift_vote"),
            "eval_time": f"{last}s",
            "exp_samples": [{"labels": asked.rule("drift_vote") + _written(shown), "value": int(votes)}],
        },
        # Pending, though there may not have been as many windows before as are asked.
        {
            "expr": f'count(ALERTS{{alertname="{ALERT}"}}) or vector(0)',
            "eval_time": f"{agreed}s",
            "exp_samples": [{"labels": "{}", "value": int(votes)}],
        },
    ]
    fired = {
        "exp_labels": {**shown, "severity": notice.severity},
        "exp_annotations": _told(asked, gates, notice, by, values["drift_psi"]),
    }
    return {
        "name": name,
        "interval": f"{step}s",
        "input_series": _observed(asked, before, now, week // step, windows * _STEPS),
        "promql_expr_test": asks,
        "alert_rule_test": [
            {"alertname": ALERT, "eval_time": f"{last - window}s", "exp_alerts": []},
            {"alertname": ALERT, "eval_time": f"{last}s", "exp_alerts": [fired] if votes else []},
        ],
    }


def _observed(asked: Histogram, before: Sequence[Any], now: Any, week: int, steps: int) -> list[dict[str, str]]:
    """The buckets of both instances, for so many steps from the beginning of each week on."""
    found = []
    half = _STEPS // 2
    for instance in ("a", "b"):
        for place, edge in enumerate(asked.edges):
            then = int(now[: place + 1].sum())
            le = "+Inf" if edge == math.inf else f"{edge:g}" if instance == "a" else repr(edge)
            labels = dict([*_labels(asked), ("instance", instance), ("le", le)])
            weeks = [f"0+{int(usual[: place + 1].sum())}x{steps} _x{week - steps - 1}" for usual in before]
            # A counter that begins again in the middle of the last window.
            weeks += [f"0+{then}x{steps - half} {then}+{then}x{half - 1}" if instance == "b" else f"0+{then}x{steps}"]
            found.append({"series": f"{asked.metric}_bucket{_written(labels)}", "values": " ".join(weeks)})
    return found


def _by_bin(values: Any, **labels: str) -> dict[str, float]:
    """Values by the matchers of their series."""
    return {
        _written({**labels, "bin": f"{place:03}"}): float(value) for place, value in enumerate(values.tolist(), start=1)
    }


def _asked(asked: Histogram, what: str, values: Mapping[str, float], moment: int) -> dict[str, Any]:
    """Whether what was recorded is that, for each of the matchers."""
    # Fewer digits than a float has, since machines differ in the last ones.
    close = [
        f"abs({asked.rule(what)}{matchers} - {value:.9g}) <= bool {max(abs(value), 1e-6) * _PRECISION:.1g}"
        for matchers, value in values.items()
    ]
    label, value = _labels(asked)[0]
    return {
        "expr": f"sum by ({label}) ({' or '.join(close)})",
        "eval_time": f"{moment}s",
        "exp_samples": [{"labels": _written({label: value}), "value": len(values)}],
    }


def _told(asked: Histogram, gates: Gates, notice: Notice, by: Mapping[str, str], index: float) -> dict[str, str]:
    """The annotations of the alert as they are read."""
    annotations: dict[str, str] = rules(asked, gates, notice)["groups"][0]["rules"][-1]["annotations"]
    found = {}
    for name, template in annotations.items():
        text = template.replace(VALUE, f"{index:.2f}")
        for label, value in by.items():
            text = text.replace(f"{{{{ $labels.{label} }}}}", value)
        found[name] = text
    return found


def _written(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _labels(asked: Histogram) -> list[tuple[str, str]]:
    """Labels of a series that the rules look at, those in `by` first, as far as their matchers ask for equality."""
    fixed = dict(_EQUAL.findall(asked.match))
    return [(name, fixed.get(name, f"a-{name}")) for name in dict.fromkeys([*asked.by, *fixed])]
