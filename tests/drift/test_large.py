"""What is quick for many values or many series is as right as for few."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from infermeter_exporters.drift import bins as drift_bins
from infermeter_exporters.drift.bins import quantile_bins
from infermeter_exporters.drift.distances import hellinger, js_divergence, total_variation
from infermeter_exporters.drift.kl import kl
from infermeter_exporters.drift.ks import ks
from infermeter_exporters.drift.psi import psi

if TYPE_CHECKING:
    from collections.abc import Callable

    from infermeter_exporters.drift.counts import Floats


@pytest.mark.parametrize("statistic", [psi, kl, js_divergence, hellinger, total_variation, ks])
@pytest.mark.parametrize("prior", [False, True])
def test_one_reference_of_many_windows(statistic: Callable[..., Floats], prior: bool) -> None:  # noqa: FBT001
    """Either side may be one for all, with empty bins too."""
    chance = np.random.default_rng(1)
    one, many = chance.poisson(2, 8).astype(float), chance.poisson(2, (3, 5, 8)).astype(float)
    more = (0.0,) if prior and statistic in (psi, kl) else ()
    copies = one.copy(), many.copy()
    for before, now in ((one, many), (many, one)):
        every = np.broadcast_arrays(before, now)
        each = [float(statistic(every[0][place], every[1][place], *more)) for place in np.ndindex(*many.shape[:-1])]
        assert statistic(before, now, *more).reshape(-1) == pytest.approx(each)
    assert one.tolist() == copies[0].tolist()
    assert many.tolist() == copies[1].tolist()


def test_bins_of_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its part, also of values that come in a rhythm; they are the same each time, and nothing is lost."""
    rhythm = np.arange(1_000_000) % 128 + np.linspace(0, 1, 1_000_000)
    bins = quantile_bins(rhythm)
    counts, outside = bins.counted(rhythm)
    assert counts == pytest.approx(np.full(10, 100_000), rel=0.03)
    assert not any(outside)
    assert (bins.lowest, bins.highest) == (rhythm.min(), rhythm.max())
    assert bins.edges.tolist() == quantile_bins(rhythm).edges.tolist()
    monkeypatch.setattr(drift_bins, "_LEARNT", len(rhythm))
    assert quantile_bins(rhythm).edges == pytest.approx(np.quantile(rhythm, np.arange(1, 10) / 10))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces(dtype: type[np.floating]) -> None:
    """What is outside is found in whichever piece it is."""
    values = np.random.default_rng(2).uniform(size=200_000).astype(dtype)
    bins = quantile_bins(values)
    values[[0, 70_000, 199_999]] = np.nan, np.inf, -np.inf
    values[[1, 2, 150_000]] = -1, -2, 3
    counts, outside = bins.counted(values)
    assert outside == (1, 1, 1, 2, 1)
    assert counts.sum() == 200_000 - 3
    finite = values[np.isfinite(values)]
    assert counts.tolist() == np.bincount(np.searchsorted(bins.edges, finite), minlength=10).tolist()
