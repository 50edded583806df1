"""Findings on many windows at once are those on each alone, and say nothing where nothing can be said."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest
from scipy import stats

from infermeter_exporters.drift.chi_square import drift_pvalue
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.evaluation import Comparison, Finding, Key, evaluated
from infermeter_exporters.drift.layout import Histogram, from_cumulative, learnt
from infermeter_exporters.drift.psi import psi

GATES = Gates(least=100, least_per_bin=2)
CHANCE = np.random.default_rng(3)
REFERENCE = CHANCE.normal(0, 1, 5000)


def compared(reference: Any, current: Any, *, key: Key = Key("s", "m", "f")) -> Finding:  # noqa: B008
    """The finding on one window of values."""
    (found,) = evaluated([comparison(reference, current, key)], GATES)
    return found


def comparison(reference: Any, current: Any, key: Key) -> Comparison:
    """Of values over the bins of a reference."""
    layout = learnt(reference)
    before, now = (Histogram(layout, layout.counted(values)) for values in (reference, current))
    return Comparison(key, "frozen", before, now)


def test_many_are_as_each_alone() -> None:
    """Whatever their number of bins, and in their order."""
    several = [
        comparison(reference, current, Key("s", f"model-{place}", "f"))
        for place, (reference, current) in enumerate(
            [
                (REFERENCE, CHANCE.normal(0.5, 1, 800)),
                (["a", "b"] * 400, ["a", "b", "c"] * 200),
                (REFERENCE, CHANCE.normal(0, 1, 50)),
                (np.round(REFERENCE), np.round(CHANCE.normal(0, 1, 700))),
                (REFERENCE, CHANCE.normal(0, 1, 800)),
            ]
        )
    ]
    together = evaluated(several, GATES)
    for one, finding in zip(several, together, strict=True):
        (alone,) = evaluated([one], GATES)
        assert (finding.comparison, finding.status) == (one, alone.status)
        assert finding.statistics == pytest.approx(alone.statistics)
        assert finding.pvalue == pytest.approx(alone.pvalue, nan_ok=True)
    assert [one.status for one in together] == ["ok", "ok", "insufficient", "ok", "ok"]


def test_statistics_of_a_shift() -> None:
    """Are close to those of the values themselves."""
    current = CHANCE.normal(0.5, 1.2, 4000)
    found = compared(REFERENCE, current).statistics
    assert found["wasserstein"] == pytest.approx(stats.wasserstein_distance(REFERENCE, current), rel=0.1)
    assert found["ks_statistic"] == pytest.approx(stats.ks_2samp(REFERENCE, current).statistic, abs=0.02)
    assert found["chi2_pvalue"] < 1e-9


def test_numbers_that_are_none_have_bins_of_their_own() -> None:
    """A tenth of them is drift, whatever the others are; few of them, as always, are not."""
    broken = CHANCE.normal(0, 1, 2000)
    broken[:200], broken[200:220] = nan, inf
    found = compared(REFERENCE, broken)
    assert found.statistics["non_finite_ratio"] == pytest.approx(0.11)
    assert found.statistics["psi"] > 0.3
    assert found.pvalue < 1e-9
    assert "ks_statistic" not in found.statistics
    usual = REFERENCE.copy()
    usual[::10] = nan
    now = CHANCE.normal(0, 1, 2000)
    now[::10] = nan
    again = compared(usual, now)
    assert (again.statistics["psi"] < 0.05, again.pvalue > 0.001) == (True, True)


def test_what_is_out_of_range() -> None:
    """Is counted, and is in the first or the last bin besides."""
    found = compared(REFERENCE, np.concatenate((CHANCE.normal(0, 1, 900), np.full(100, 99.0))))
    assert found.statistics["out_of_range_ratio"] == pytest.approx(0.1, abs=0.005)
    assert found.samples == 1000


def test_new_words() -> None:
    """Have a bin of their own, which is none where there are none."""
    same, other = compared(["a", "b"] * 200, ["a", "b"] * 100), compared(["a", "b"] * 200, ["a", "b", "c", "d"] * 100)
    assert (same.bins, same.statistics["new_category_ratio"], same.statistics["psi"]) == (2, 0, 0)
    assert (other.bins, other.statistics["new_category_ratio"]) == (3, 0.5)
    assert other.statistics["psi"] > 1


def test_nothing_can_be_said() -> None:
    """Statistics are absent then, never 0."""
    bins, others = from_cumulative([1, 2, inf], [200, 400, 600]), from_cumulative([5, inf], [300, 600])
    few, empty = from_cumulative([1, 2, inf], [1, 2, 3]), from_cumulative([1, 2, inf], [0, 0, 0])
    key = Key("s", "m", "f")
    cases: dict[str, list[tuple[Any, Any]]] = {
        "no_baseline": [(None, bins), (empty, bins)],
        "insufficient": [(bins, None), (bins, few), (few, bins), (bins, empty)],
        "layout_mismatch": [(others, bins)],
    }
    for status, pairs in cases.items():
        for before, now in pairs:
            (found,) = evaluated([Comparison(key, "b", before, now)], GATES)
            assert (found.status, found.statistics, found.evalues) == (status, {}, None), (before, now)


def test_one_value_then_and_now() -> None:
    """Does not drift, and there is nothing to test; another value does."""
    same, other = compared(np.ones(500), np.ones(300)), compared(np.ones(500), np.full(300, 2.0))
    assert same.status == "constant"
    assert same.statistics["psi"] == pytest.approx(0, abs=0.01)
    assert np.isnan(same.adjusted)
    assert (other.status, other.statistics["psi"] > 1, other.adjusted < 1e-9) == ("ok", True, True)


def test_many_features_of_a_model_are_many_tests() -> None:
    """P-values hold for all of them; those of another model, or against another baseline, are others."""
    layout = learnt(REFERENCE)
    reference = Histogram(layout, layout.counted(REFERENCE))
    windows = [Histogram(layout, layout.counted(CHANCE.normal(0.05 * place, 1, 600))) for place in range(6)]
    several = [Comparison(Key("s", "one", f"f{place}"), "b", reference, one) for place, one in enumerate(windows)]
    several.append(Comparison(Key("s", "two", "f"), "b", reference, windows[5]))
    found = evaluated(several, GATES)
    assert [one.adjusted for one in found[:6]] == pytest.approx(
        stats.false_discovery_control([one.pvalue for one in found[:6]])
    )
    assert found[6].adjusted == found[6].pvalue == found[5].pvalue


def test_buckets_know_nothing_of_their_range() -> None:
    """Nothing is said of what was outside: the first and the last bucket are open."""
    before, now = from_cumulative([1, 2, inf], [200, 400, 600]), from_cumulative([1, 2, inf], [300, 400, 600])
    (found,) = evaluated([Comparison(Key("s", "m", "f"), "b", before, now)], GATES)
    assert not {name for name in found.statistics if name.endswith("_ratio")}
    # From 0 to the first bound a sixth moved half a bucket on average, between the bounds a sixth went to its left.
    assert found.statistics["wasserstein"] == pytest.approx((1 / 6) / 2 + (1 / 6) / 2)


@pytest.mark.parametrize("bins", [10, 30])
def test_two_resolutions_are_calibrated(bins: int) -> None:
    """Of healthy windows about one in a hundred is below 0.01; a shift is seen in two hundred observations."""
    chance = np.random.default_rng(bins)
    parts = np.full(bins, 1 / bins)
    before, now = chance.multinomial(1000, parts, 20_000), chance.multinomial(200, parts, 20_000)
    found = float((drift_pvalue(before, now) < 0.01).mean())
    assert 0.005 < found < 0.013
    ends = stats.norm.ppf(np.linspace(0, 1, bins + 1))
    shifted = chance.multinomial(200, np.diff(stats.norm.cdf(ends, loc=0.5)), 2000)
    seen = (drift_pvalue(before[:2000], shifted) < 0.001) & (psi(before[:2000], shifted) >= 0.1)
    assert float(seen.mean()) > 0.9


def test_tails_are_seen() -> None:
    """What moves within one bucket of a coarse layout is seen by the fine one."""
    before = np.array([*[1000] * 9, 900, 80, 20.0])
    now = np.array([*[1000] * 9, 700, 150, 150.0])
    assert float(drift_pvalue(before, now)) < 1e-9
