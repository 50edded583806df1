"""Statistics have the values that NumPy and SciPy agreed on, to nine digits, on samples that everybody can make."""

from __future__ import annotations

import json
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from infermeter_exporters.drift.bins import Categories, even_bins, quantile_bins
from infermeter_exporters.drift.chi_square import chi_square
from infermeter_exporters.drift.counts import JEFFREYS, Floats
from infermeter_exporters.drift.distances import hellinger, js_divergence, total_variation
from infermeter_exporters.drift.kl import kl
from infermeter_exporters.drift.ks import ks
from infermeter_exporters.drift.psi import psi
from infermeter_exporters.drift.wasserstein import wasserstein
from tests.drift.samples import NUMBERS, Sample, outlier_shift, words

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="utf-8"))
CASES: dict[str, dict[str, Any]] = VECTORS["cases"]
CLOSE = 1e-9
PRIORS = {"none": 0.0, "jeffreys": JEFFREYS, "laplace": 1.0}


def counts_of(case: str) -> tuple[Floats, Floats]:
    """Counts over deciles of the reference, or over its names."""
    if case == "cat_missing":
        before, now = words()
        bins = Categories(sorted(set(before)))
        return bins.counted(before)[0][:-1], bins.counted(now)[0][:-1]
    reference, current = NUMBERS[case]()
    deciles = quantile_bins(reference)
    return deciles.counted(reference)[0], deciles.counted(current)[0]


def exact(reference: Sample, current: Sample) -> tuple[float, float]:
    """KS and W1 of the values themselves: bins that hold one value each, and between them bins that hold none."""
    finite = [sample[np.isfinite(sample)] for sample in (reference, current)]
    values = np.unique(np.concatenate(finite))
    edges = np.stack([values, np.nextafter(values, inf)], axis=1).reshape(-1)
    counts = []
    for sample in finite:
        held = np.zeros(len(edges) - 1)
        held[::2] = np.bincount(np.searchsorted(values, sample), minlength=len(values))
        counts.append(held)
    return float(ks(counts[0], counts[1])), float(wasserstein(counts[0], counts[1], edges))


@pytest.mark.parametrize("case", NUMBERS)
def test_samples_are_the_same_everywhere(case: str) -> None:
    """Bit for bit."""
    assert [sha256(sample.tobytes()).hexdigest()[:16] for sample in NUMBERS[case]()] == VECTORS["hashes"][case]


@pytest.mark.parametrize("case", CASES)
def test_counts(case: str) -> None:
    """Bins are those of the reference; what is not finite is in none."""
    expected = CASES[case]
    before, now = counts_of(case)
    assert (before.tolist(), now.tolist()) == (expected["ref_counts"], expected["cur_counts"])
    if case in NUMBERS:
        reference, current = NUMBERS[case]()
        deciles = quantile_bins(reference)
        assert deciles.edges == pytest.approx(expected["edges"], rel=CLOSE)
        outside = deciles.counted(current)[1]
        assert outside.nan + outside.positive + outside.negative == expected["non_finite_dropped"]


@pytest.mark.parametrize("case", CASES)
def test_statistics(case: str) -> None:
    """All that are of counts; where a bin is empty on both sides, it has no part in them."""
    expected = {key: float(value) for key, value in CASES[case].items() if isinstance(value, (int, float, str))}
    before, now = counts_of(case)
    test = chi_square(before, now)
    found: dict[str, float] = {
        "jsd_nats": float(js_divergence(before, now)),
        "js_distance_nats": float(np.sqrt(js_divergence(before, now))),
        "hellinger": float(hellinger(before, now)),
        "tvd": float(total_variation(before, now)),
        "ks_binned": float(ks(before, now)),
        "chi2": float(test.statistic),
        "chi2_df": float(test.degrees),
        "chi2_p": float(test.pvalue),
    }
    for name, prior in PRIORS.items():
        found[f"psi_{name}"] = float(psi(before, now, prior))
        found[f"kl_cur_ref_{name}"] = float(kl(before, now, prior))
        found[f"kl_ref_cur_{name}"] = float(kl(now, before, prior))
    compared = {key for key in found if key in expected and not np.isnan(expected[key])}
    assert len(compared) >= 13
    for key in compared:
        assert found[key] == pytest.approx(expected[key], rel=CLOSE, abs=1e-15), key


@pytest.mark.parametrize("case", NUMBERS)
def test_statistics_of_values(case: str) -> None:
    """Of bins that are as narrow as can be, they are those of the values."""
    expected = CASES[case]
    gap, distance = exact(*NUMBERS[case]())
    assert gap == pytest.approx(expected["ks_exact"], rel=CLOSE, abs=1e-15)
    assert distance == pytest.approx(expected["wasserstein_exact"], rel=1e-7, abs=1e-15)


@pytest.mark.parametrize("case", ["gauss", "beta"])
def test_distances_on_fine_bins(case: str) -> None:
    """A hundred of them are enough for a hundredth."""
    reference, current = NUMBERS[case]()
    fine = even_bins(reference)
    edges = np.concatenate(([fine.lowest], fine.edges, [fine.highest]))
    inside = np.clip(current, fine.lowest, fine.highest)
    found = float(wasserstein(fine.counted(reference)[0], fine.counted(inside)[0], edges))
    assert found == pytest.approx(stats.wasserstein_distance(reference, inside), rel=0.01)


def test_one_value_far_out_hides_nothing() -> None:
    """A shift by one standard deviation is seen as well as without it: its bins are not those of both samples."""
    reference, current = outlier_shift()
    deciles = quantile_bins(reference)
    counts, outside = deciles.counted(current)
    found = float(psi(deciles.counted(reference)[0], counts))
    alone = float(psi(deciles.counted(reference)[0], deciles.counted(current[1:])[0]))
    assert found == pytest.approx(alone, rel=1e-3)
    assert found > 0.9
    assert outside.above >= 1
