"""What `promtool test rules` checks rules of `promql` with: a week of one distribution, then some hours of another.

What the rules have to say of it is worked out by the statistics of this package, not by the rules.
"""

import math
import re
from typing import Any

import numpy as np

from infermeter_exporters.drift.counts import Floats
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.distances import hellinger, js_divergence, total_variation
from infermeter_exporters.drift.kl import kl
from infermeter_exporters.drift.ks import ks
from infermeter_exporters.drift.promql import ALERT, GATES, Histogram, checked, least_z
from infermeter_exporters.drift.psi import noise_floor, psi

# Relative; rules lose a little where a rate is extrapolated.
_PRECISION = 1e-6
_STEPS = 12
"""Scrapes in a window."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_WEEK = _SECONDS["w"]
_EQUAL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"([^"]*)"')


def check(histogram: Histogram, file: str, gates: Gates = GATES) -> dict[str, Any]:
    """The content of a test, to be written as YAML beside the rules.

    Two instances, whose counts have to be summed, observe the same; both were restarted when it changed, so that their
    counters begin again. Of three windows after that the last one is looked at. There are two such tests: in one the
    distribution becomes its mirror image, in the other it stays.

    Args:
        histogram: of the rules; its window is one that a week has a whole number of.
        file: the name of the rules, beside the test.
        gates: with which the rules were made.

    Raises:
        ValueError: something in the histogram cannot work.
    """
    asked = checked(histogram)
    bins = len(asked.edges)
    # More in each bin than in the one before, so that no two of them are taken for each other.
    usual = np.arange(1, bins + 1) * max(1, math.ceil(200 / bins))
    return {
        "rule_files": [file],
        "evaluation_interval": asked.window,
        "tests": [_changed(asked, usual, now, gates) for now in (usual[::-1], usual)],
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


def _changed(asked: Histogram, usual: Any, now: Any, gates: Gates) -> dict[str, Any]:
    window = int(asked.window[:-1]) * _SECONDS[asked.window[-1]]
    step = window // _STEPS
    if _WEEK % window or not step:
        raise ValueError(f"the window is {asked.window}, expected one of which a week has a whole number, to be tested")
    before = _WEEK // step
    series = []
    for instance in ("a", "b"):
        for place, edge in enumerate(asked.edges):
            first, then = int(usual[: place + 1].sum()), int(now[: place + 1].sum())
            le = "+Inf" if edge == math.inf else f"{edge:g}" if instance == "a" else repr(edge)
            labels = ",".join(f'{name}="{value}"' for name, value in [*_labels(asked), ("instance", instance)])
            series.append(
                {
                    "series": f'{asked.metric}_bucket{{{labels},le="{le}"}}',
                    "values": f"0+{first}x{before - 1} {then}+{then}x{4 * _STEPS}",
                }
            )
    reference, current = (2.0 * _STEPS * np.asarray(counts) for counts in (usual, now))
    moment = f"{(before + 3 * _STEPS) * step}s"
    first_label, first_value = _labels(asked)[0]
    values = expected(reference, current)
    drifts = (
        gates.enough(values["drift_samples"], len(asked.edges))
        and values["drift_psi"] >= gates.effect
        and values["drift_psi_z"] >= least_z(gates)
    )
    asks: list[dict[str, Any]] = [
        {
            "expr": f"sum by ({first_label}) "
            f"(abs({asked.rule(name)} - {value!r}) <= bool {max(abs(value), 1e-6) * _PRECISION!r})",
            "eval_time": moment,
            "exp_samples": [{"labels": f'{{{first_label}="{first_value}"}}', "value": 1}],
        }
        for name, value in values.items()
    ]
    fired = {
        "expr": f'count(ALERTS{{alertname="{ALERT}"}}) or vector(0)',
        "eval_time": moment,
        "exp_samples": [{"labels": "{}", "value": int(drifts)}],
    }
    return {"interval": f"{step}s", "input_series": series, "promql_expr_test": [*asks, fired]}


def _labels(asked: Histogram) -> list[tuple[str, str]]:
    """Labels of a series that the rules look at, as far as their matchers ask for equality."""
    fixed = dict(_EQUAL.findall(asked.match))
    return [(name, fixed.get(name, f"a-{name}")) for name in dict.fromkeys([*asked.by, *fixed])]
