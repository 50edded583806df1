"""Statistics agree with SciPy on anything, for many series as for one, and keep their promises without drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats

from infermeter_exporters.drift.bins import Bins, Categories, even_bins, quantile_bins
from infermeter_exporters.drift.chi_square import chi_square, pooled_chi_square, psi_test
from infermeter_exporters.drift.counts import checked
from infermeter_exporters.drift.distances import hellinger, js_divergence, total_variation
from infermeter_exporters.drift.estimated_accuracy import estimated_accuracy
from infermeter_exporters.drift.evidence import Evidence, _log_gamma, log_evalues
from infermeter_exporters.drift.false_discovery import benjamini_hochberg
from infermeter_exporters.drift.gamma import chi_square_tail
from infermeter_exporters.drift.kl import kl
from infermeter_exporters.drift.ks import ks, ks_pvalue
from infermeter_exporters.drift.pooling import ENOUGH, pooled
from infermeter_exporters.drift.psi import noise_floor, psi
from infermeter_exporters.drift.wasserstein import wasserstein
from infermeter_exporters.drift.wilson import wilson

if TYPE_CHECKING:
    from collections.abc import Callable

    from infermeter_exporters.drift.counts import Floats

STATISTICS: list[Callable[..., Floats]] = [psi, kl, js_divergence, hellinger, total_variation, ks]
some_counts = arrays(np.float64, 7, elements=st.integers(0, 500).map(float))
UNIFORM, SKEWED = np.full(10, 0.1), np.array([1, 1, 2, 3, 5, 8, 30, 150, 300, 500]) / 1000


@pytest.mark.parametrize("statistic", STATISTICS)
@given(arrays(np.float64, (3, 2, 7), elements=st.integers(0, 500).map(float)))
def test_many_series_are_as_each(statistic: Callable[..., Floats], counts: Floats) -> None:
    """In one call."""
    before, now = counts[:, 0], counts[:, 1]
    together = statistic(before, now)
    for place in range(3):
        one = statistic(before[place], now[place])
        assert together[place] == pytest.approx(float(one), nan_ok=True)


@pytest.mark.parametrize("statistic", STATISTICS)
@given(some_counts)
def test_no_drift_is_zero(statistic: Callable[..., Floats], counts: Floats) -> None:
    """Of a sample and itself, however often it was counted; of nothing it is not known."""
    found = float(statistic(counts, counts))
    assert found == pytest.approx(0 if counts.sum() else np.nan, nan_ok=True, abs=1e-12)


@given(some_counts, some_counts)
def test_inequalities(before: Floats, now: Floats) -> None:
    """Those that hold between all of them: Pinsker's, Le Cam's, and that coarser bins see less."""
    if not before.sum() or not now.sum():
        return
    variation, distance = float(total_variation(before, now)), float(hellinger(before, now))
    assert 2 * variation**2 <= float(kl(before, now, 0.0)) + 1e-9
    assert distance**2 <= variation + 1e-12
    assert variation <= distance * np.sqrt(2) + 1e-12
    assert float(js_divergence(before, now)) <= np.log(2) + 1e-12
    assert float(ks(before, now)) <= variation + 1e-12
    coarse = [np.add.reduceat(counts, [0, 2, 4]) for counts in (before, now)]
    for statistic in (js_divergence, hellinger, total_variation, ks):
        assert float(statistic(coarse[0], coarse[1])) <= float(statistic(before, now)) + 1e-12
    assert float(psi(before, now, 0.0)) == pytest.approx(float(kl(before, now, 0.0) + kl(now, before, 0.0)))


@given(some_counts, some_counts)
def test_pearson_as_scipy_has_it(before: Floats, now: Floats) -> None:
    """Without the bins that are empty on both sides."""
    used = before + now > 0
    test = chi_square(before, now)
    if not before.sum() or not now.sum() or used.sum() < 2:
        assert np.isnan(float(test.pvalue))
        return
    found = stats.chi2_contingency(np.stack([before[used], now[used]]), correction=False)
    assert float(test.statistic) == pytest.approx(found.statistic, abs=1e-9)
    assert int(test.degrees) == found.dof
    assert float(test.pvalue) == pytest.approx(found.pvalue, rel=1e-9)


@given(st.floats(0, 2000), st.integers(1, 400))
def test_the_tail_of_chi_square(statistic: float, degrees: int) -> None:
    """To ten digits, wherever it is not too small to matter."""
    expected = stats.chi2.sf(statistic, degrees)
    assert float(chi_square_tail(statistic, degrees)) == pytest.approx(expected, rel=1e-10, abs=1e-300)


def test_the_tail_of_nothing() -> None:
    """Where nothing is tested there is no p-value."""
    found = chi_square_tail([np.nan, 1.0, np.inf, 0.0], [3, 0, 3, 3])
    assert found.tolist() == pytest.approx([np.nan, np.nan, 0, 1], nan_ok=True)


@given(st.floats(0, 1), st.integers(1, 10_000), st.integers(1, 10_000))
def test_the_probability_of_a_gap(gap: float, n: int, m: int) -> None:
    """Kolmogorov's limit."""
    expected = stats.kstwobign.sf(np.sqrt(n * m / (n + m)) * gap)
    assert float(ks_pvalue(gap, n, m)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(arrays(np.float64, st.integers(1, 8), elements=st.floats(0, 1)))
def test_many_tests_at_once(pvalues: Floats) -> None:
    """As SciPy adjusts them; tests that were not made do not count."""
    expected = stats.false_discovery_control(pvalues)
    assert benjamini_hochberg(pvalues) == pytest.approx(expected)
    padded = np.concatenate((pvalues, [np.nan]))
    assert benjamini_hochberg(padded) == pytest.approx([*expected, np.nan], nan_ok=True)


@given(st.integers(0, 200), st.integers(1, 200))
def test_bounds_of_a_ratio(right: int, total: int) -> None:
    """As SciPy has them."""
    right = min(right, total)
    low, high = wilson(right, total)
    expected = stats.binomtest(right, total).proportion_ci(method="wilson")
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(arrays(np.float64, 20, elements=st.floats(0.01, 1e7)))
def test_the_gamma_function(values: Floats) -> None:
    """Its logarithm."""
    assert _log_gamma(values) == pytest.approx(special.gammaln(values), rel=1e-12, abs=1e-12)


@given(arrays(np.float64, (4, 2, 9), elements=st.integers(0, 60).map(float)))
def test_bins_are_put_together(counts: Floats) -> None:
    """Nothing is lost, each has enough, and only neighbours are together."""
    before, now = counts[:, 0], counts[:, 1]
    made = pooled(before, now)
    for place in range(4):
        bins = int(made.bins[place])
        b, c = made.reference[place], made.current[place]
        assert (b.sum(), c.sum()) == (before[place].sum(), now[place].sum())
        assert not b[bins:].any()
        assert not c[bins:].any()
        smaller = min(b.sum(), c.sum()) / max(b.sum() + c.sum(), 1)
        if bins > 1:
            assert ((b + c)[:bins] * smaller >= ENOUGH - 1e-9).all()
        edges = np.cumsum(before[place] + now[place])
        assert all(np.isclose(edges, total).any() for total in np.cumsum(b + c)[:bins])


@pytest.mark.parametrize("mean", [UNIFORM, SKEWED], ids=["uniform", "skewed"])
@pytest.mark.parametrize(("n", "m"), [(50, 50), (200, 200), (100_000, 100), (100_000, 1000)])
def test_healthy_windows_are_rejected_as_often_as_was_asked(mean: Floats, n: int, m: int) -> None:
    """One in a hundred at a level of one in a hundred, give or take what chance does to 20,000 windows."""
    chance = np.random.default_rng(1)
    before, now = chance.multinomial(n, mean, 20_000), chance.multinomial(m, mean, 20_000)
    for test in (pooled_chi_square(before, now), psi_test(before, now)):
        assert 0.004 <= (test.pvalue < 0.01).mean() <= 0.014


def test_the_floor_of_the_index() -> None:
    """Without drift it is that on average, which with few observations is no small number."""
    chance = np.random.default_rng(2)
    before, now = chance.multinomial(500, UNIFORM, 5000), chance.multinomial(1000, UNIFORM, 5000)
    assert float(psi(before, now).mean()) == pytest.approx(float(noise_floor(10, 500, 1000)), rel=0.02)
    assert float(noise_floor(10, 100, 100)) == pytest.approx(0.18)
    assert np.isinf(noise_floor(10, 100, 0))


def test_evidence_does_not_grow_without_drift() -> None:
    """What a window says is at most 1 on average, if the baseline is known well."""
    chance = np.random.default_rng(3)
    baseline = 1e6 * SKEWED
    found = np.exp(log_evalues(baseline, chance.multinomial(200, SKEWED, 20_000)))
    assert found.shape == (4, 20_000)
    assert (found.mean(axis=1) <= 1.02).all()


def test_evidence_goes_on_where_it_was() -> None:
    """After a restart, and of many series as of each."""
    chance = np.random.default_rng(5)
    windows = chance.multinomial(200, UNIFORM * np.linspace(0.7, 1.3, 10), (6, 3))
    whole, each = Evidence(), [Evidence() for _ in range(3)]
    for window in windows:
        whole = Evidence(whole.sums)
        whole.update(np.full(10, 1000.0), window)
        for place, one in enumerate(each):
            one.update(np.full(10, 1000.0), window[place])
    assert whole.log.tolist() == pytest.approx([float(one.log) for one in each])
    assert whole.log.max() > 5


def test_evidence_finds_what_no_window_shows() -> None:
    """A drift of an index of 0.02, over some windows of 200; each of them alone finds it rarely."""
    chance = np.random.default_rng(4)
    drifted = UNIFORM * np.linspace(0.79, 1.21, 10)
    evidence = Evidence()
    alone = []
    windows = 0
    while np.median(evidence.log) < np.log(1000):  # at an alpha of one in a thousand
        now = chance.multinomial(200, drifted, 50)
        evidence.update(np.full((50, 10), 10_000.0), now)
        alone.append(float((psi_test(np.full(10, 10_000.0), now).pvalue < 0.001).mean()))
        windows += 1
        assert windows < 60

    assert 5 < windows < 40
    assert np.mean(alone) < 0.2


def test_accuracy_by_confidence() -> None:
    """What each bin was once, weighed by how often it is now; not known of a bin that nobody labelled."""
    assert float(estimated_accuracy([10, 30], [0.5, 0.9])) == pytest.approx(0.8)
    assert float(estimated_accuracy([0, 30], [np.nan, 0.9])) == pytest.approx(0.9)
    assert np.isnan(float(estimated_accuracy([10, 30], [np.nan, 0.9])))
    assert np.isnan(float(estimated_accuracy([0, 0], [0.5, 0.9])))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("made", [quantile_bins, even_bins])
@given(st.lists(st.floats(width=32), max_size=80), st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40))
def test_whatever_is_counted(
    made: Callable[..., Bins], dtype: type[np.floating], values: list[float], reference: list[float]
) -> None:
    """Each value is in one bin, or is told of; a value that equals an edge is below it, whatever its type."""
    bins = made(np.array(reference), 10)
    counts, outside = bins.counted(np.array(values, dtype=dtype))
    finite = [value for value in values if np.isfinite(value)]
    expected = np.zeros(bins.number)
    for value in finite:
        expected[sum(value > edge for edge in bins.edges)] += 1
    assert counts.tolist() == expected.tolist()
    assert outside == (
        sum(np.isnan(value) for value in values),
        values.count(np.inf),
        values.count(-np.inf),
        sum(value < min(reference) for value in finite),
        sum(value > max(reference) for value in finite),
    )
    many = Bins(np.linspace(-1e6, 1e6, 200), -1e6, 1e6)
    assert many.counted(np.array(values, dtype=dtype))[0].sum() == len(finite)


def test_words() -> None:
    """Those that the reference did not have are counted together."""
    counts, new = Categories(["a", "b"]).counted(["a", "b", "a", "c", "d"])
    assert (counts.tolist(), new) == ([2, 1, 2], 2)


@pytest.mark.parametrize("wrong", [[], [[]], 3.0, [1, -1], [1, np.nan], [1, np.inf]])
def test_counts_that_are_none(wrong: object) -> None:
    """Are refused."""
    with pytest.raises(ValueError, match="counts"):
        checked(wrong)  # type: ignore[arg-type]


def test_what_does_not_fit() -> None:
    """Is one sentence."""
    with pytest.raises(ValueError, match="the reference has 2 bins and the current 3, expected as many"):
        psi([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="expected 3 that are finite and grow"):
        wasserstein([1, 2], [1, 2], [0, 1])
    with pytest.raises(ValueError, match="the reference has no finite value, expected some"):
        quantile_bins([np.nan, np.inf])
    with pytest.raises(ValueError, match="1 bins are asked for, expected 2 or more"):
        even_bins([1.0], 1)
    with pytest.raises(ValueError, match="a p-value is outside 0 to 1"):
        benjamini_hochberg([1.1])
    with pytest.raises(ValueError, match="successes are below 0 or above the total"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="an accuracy is outside 0 to 1"):
        estimated_accuracy([1], [1.5])
