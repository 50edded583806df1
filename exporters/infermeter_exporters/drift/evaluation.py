"""What statistics say of many windows and their references at once."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from infermeter_exporters.drift.chi_square import drift_pvalue, pooled_chi_square, psi_test
from infermeter_exporters.drift.counts import Floats
from infermeter_exporters.drift.decision import Gates, Status
from infermeter_exporters.drift.distances import hellinger, js_divergence, total_variation
from infermeter_exporters.drift.embeddings import Space, shift
from infermeter_exporters.drift.evidence import log_evalues
from infermeter_exporters.drift.false_discovery import benjamini_hochberg
from infermeter_exporters.drift.kl import kl
from infermeter_exporters.drift.ks import ks, ks_pvalue
from infermeter_exporters.drift.layout import Histogram, aligned
from infermeter_exporters.drift.psi import noise_floor, psi
from infermeter_exporters.drift.wasserstein import wasserstein

_INFINITE = 3  # no number, infinite, minus infinite: bins of their own where there are any


class Key(NamedTuple):
    """What drifts by itself.

    Attributes:
        service: as everywhere.
        model: of the service.
        feature: the histogram, or what it was called by who sent it.
    """

    service: str
    model: str
    feature: str


class Comparison(NamedTuple):
    """A window, and what it is compared with.

    Attributes:
        key: of what.
        baseline: with which kind or name of reference.
        reference: None if there is none.
        current: None if nothing was observed.
        age: seconds since the end of the reference; NaN where it has none.
        learnt: observations that wait for more, to become the reference.
        dispersion: how much more the reference varies than independent observations would, 1 or more.
    """

    key: Key
    baseline: str
    reference: Histogram | None
    current: Histogram | None
    age: float = math.nan
    learnt: float = 0.0
    dispersion: float = 1.0


class Finding(NamedTuple):
    """What is known of a window; statistics are NaN where they are not.

    Attributes:
        comparison: of what.
        status: whether statistics could be made.
        bins: of which they were made.
        samples: observations in the window.
        reference: observations in the reference.
        statistics: by the names of their metrics, without `drift_`.
        effect: the index, or what it would be of embeddings: as far beyond its limit as the discrepancy is.
        pvalue: of `drift_pvalue`, or of the discrepancy.
        adjusted: the same, adjusted for all features of the model.
        evalues: logarithms of what the window adds to the evidence, one for each strength; None for nothing.
    """

    comparison: Comparison
    status: Status
    bins: int
    samples: float
    reference: float
    statistics: dict[str, float]
    effect: float
    pvalue: float
    adjusted: float
    evalues: Floats | None


def evaluated(comparisons: Iterable[Comparison], gates: Gates) -> list[Finding]:
    """Findings in the order of the comparisons.

    Statistics of windows that say too little are left out: an index of a few observations is far from 0 without drift.
    """
    findings: list[Finding | None] = []
    groups: dict[tuple[int, bool], list[_Pair]] = defaultdict(list)
    for place, comparison in enumerate(comparisons):
        pair = _pair(place, comparison)
        if isinstance(pair, _Pair) and not gates.enough(min(pair.before.sum(), pair.now.sum()), len(pair.now)):
            status: Status = "insufficient" if pair.before.sum() else "no_baseline"
            findings.append(_nothing(comparison, status, len(pair.now)))
        elif isinstance(pair, _Pair) and isinstance(pair.current.layout, Space):
            findings.append(_embedded(pair, pair.current.layout, gates))
        elif isinstance(pair, _Pair):
            findings.append(None)
            groups[len(pair.now), pair.ordered].append(pair)
        else:
            findings.append(_nothing(comparison, pair))
    for pairs in groups.values():
        for pair, finding in zip(pairs, _computed(pairs), strict=True):
            findings[pair.place] = finding
    return _adjusted([finding for finding in findings if finding is not None])


class _Pair(NamedTuple):
    place: int
    comparison: Comparison
    reference: Histogram
    current: Histogram
    before: Floats
    now: Floats
    ordered: bool


def _pair(place: int, comparison: Comparison) -> _Pair | Status:
    before, now = comparison.reference, comparison.current
    if before is None:
        return "no_baseline"
    if now is None:
        return "insufficient"
    both = aligned(before, now)
    if both is None:
        return "layout_mismatch"
    before, now = both
    layout = now.layout
    cut = [layout.cut(one.counts) for one in (before, now)]
    # What is no number is a bin of its own, but only where there is any: an empty bin is no news and dilutes.
    outside = [one.counts[layout.bins : layout.bins + _INFINITE] for one in (before, now)]
    some = (outside[0] + outside[1]) > 0
    ordered = layout.numeric and not some.any()
    if not layout.numeric and not (cut[0][-1] or cut[1][-1]):
        cut = [counts[:-1] for counts in cut]  # all words are known
    if some.any():
        cut = [np.concatenate((counts, extra[some])) for counts, extra in zip(cut, outside, strict=True)]
    return _Pair(place, comparison, before, now, cut[0], cut[1], ordered)


def _nothing(comparison: Comparison, status: Status, bins: int = 0) -> Finding:
    samples = [0.0 if one is None else one.samples for one in (comparison.current, comparison.reference)]
    current = comparison.current
    ratios = _ratios(current) if current is not None and comparison.reference is not None else {}
    return Finding(comparison, status, bins, samples[0], samples[1], ratios, math.nan, math.nan, math.nan, None)


def _embedded(pair: _Pair, space: Space, gates: Gates) -> Finding:
    found = shift(space, pair.reference.counts, pair.current.counts, gates.alpha)
    everything = pair.current.samples + pair.current.non_finite
    statistics = {
        "mmd": found.mmd,
        "mmd_pvalue": found.pvalue,
        "dimensions_moved_ratio": found.moved,
        "largest_move": found.largest,
        "non_finite_ratio": pair.current.non_finite / everything,
    }
    effect = found.mmd * gates.effect / gates.mmd if gates.mmd else math.inf
    sizes = pair.current.samples, pair.reference.samples
    return Finding(pair.comparison, "ok", 1, *sizes, statistics, effect, found.pvalue, math.nan, None)


def _computed(pairs: Sequence[_Pair]) -> list[Finding]:
    before, now = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("before", "now"))
    # For tests, as many as there were independent ones.
    varies = np.array([pair.comparison.dispersion for pair in pairs])[:, None]
    before_alone, now_alone = before / varies, now / varies
    n, m = before_alone.sum(axis=-1), now_alone.sum(axis=-1)
    chi, index = pooled_chi_square(before_alone, now_alone), psi_test(before_alone, now_alone)
    found = {
        "psi": psi(before, now),
        "psi_noise_floor": noise_floor(before.shape[-1], n, m),
        "psi_pvalue": index.pvalue,
        "kl_divergence": kl(before, now),
        "js_divergence": js_divergence(before, now),
        "hellinger": hellinger(before, now),
        "tvd": total_variation(before, now),
        "chi2": chi.statistic,
        "chi2_pvalue": chi.pvalue,
    }
    if pairs[0].ordered:
        found["ks_statistic"] = ks(before, now)
        found["ks_pvalue"] = ks_pvalue(found["ks_statistic"], n, m)
    evalues, pvalues = log_evalues(before_alone, now_alone), drift_pvalue(before_alone, now_alone, chi).tolist()
    columns = {name: values.tolist() for name, values in found.items()}
    findings = []
    for place, pair in enumerate(pairs):
        statistics = {name: values[place] for name, values in columns.items()}
        layout = pair.current.layout
        if layout.numeric and len(layout.edges):
            then, since = pair.reference.counts[: layout.bins], pair.current.counts[: layout.bins]
            statistics["wasserstein"] = float(wasserstein(then, since, layout.ends()))
        statistics |= _ratios(pair.current) | {"dispersion": pair.comparison.dispersion}
        # Of one value then and now there is nothing to test.
        constant = (before[place] > 0).sum() == 1 and ((before[place] > 0) == (now[place] > 0)).all()
        findings.append(
            Finding(
                pair.comparison,
                "constant" if constant else "ok",
                now.shape[-1],
                pair.current.samples,
                pair.reference.samples,
                {name: value for name, value in statistics.items() if not math.isnan(value)},
                statistics["psi"],
                pvalues[place],
                math.nan,
                evalues[:, place],
            )
        )
    return findings


def _ratios(current: Histogram) -> dict[str, float]:
    """What part is outside of the bins, as far as anybody can know."""
    samples, layout = current.samples, current.layout
    everything = samples + current.non_finite
    if not everything or not (math.isfinite(layout.lowest) or not layout.numeric):
        return {}  # buckets of Prometheus know nothing of it
    found = {"non_finite_ratio": current.non_finite / everything}
    if layout.numeric:
        found["out_of_range_ratio"] = current.out_of_range / samples if samples else 0.0
    else:
        found["new_category_ratio"] = current.new_words / samples if samples else 0.0
    return found


def _adjusted(findings: list[Finding]) -> list[Finding]:
    families: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, one in enumerate(findings):
        families[one.comparison.key.service, one.comparison.key.model, one.comparison.baseline].append(place)
    for places in families.values():
        pvalues = benjamini_hochberg([findings[place].pvalue for place in places])
        for place, pvalue in zip(places, pvalues.tolist(), strict=True):
            findings[place] = findings[place]._replace(adjusted=pvalue)
    return findings
