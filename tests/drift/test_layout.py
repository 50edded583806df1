"""Counts over different bins are brought to common ones exactly, whatever the bins are."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.drift.layout import (
    OUTSIDE,
    Histogram,
    Layout,
    added,
    aligned,
    common,
    cut_anew,
    from_cumulative,
    from_native,
    learnt,
    read_layout,
)

EDGES = st.lists(st.integers(-8, 8).map(float), min_size=1, max_size=6, unique=True).map(sorted)
VALUES = st.lists(st.floats(-9, 9) | st.sampled_from([nan, inf, -inf]), max_size=60).map(np.array)
WORDS = st.lists(st.sampled_from([*"abcdef", None]), min_size=1, max_size=40)


def of(layout: Layout, values: object) -> Histogram:
    """Counts of values."""
    return Histogram(layout, layout.counted(values))


@given(EDGES, EDGES, VALUES)
def test_common_bins_hold_what_they_would_have_held(
    first: list[float], second: list[float], values: np.ndarray
) -> None:
    """Bringing counts to them is the same as having counted over them."""
    one, other = Layout(first), Layout(second)
    shared = common(one, other)
    if shared is None:
        assert not set(first) & set(second)
        return
    assert shared.edges == tuple(sorted(set(first) & set(second)))
    assert of(one, values).over(shared).counts.tolist() == of(shared, values).counts.tolist()
    assert of(other, values).over(shared).counts.tolist() == of(shared, values).counts.tolist()


@given(WORDS, WORDS, WORDS)
def test_common_words(first: list[str | None], second: list[str | None], values: list[str | None]) -> None:
    """Of words that only one of them has, nothing can be said but that they are others."""
    names = [sorted({word for word in words if word is not None}) for words in (first, second)]
    one, other = Layout(names=names[0]), Layout(names=names[1])
    shared = common(one, other)
    if shared is None:
        assert names[0] != names[1]
        assert not set(names[0]) & set(names[1])
        return
    assert of(one, values).over(shared).counts.tolist() == of(shared, values).counts.tolist()


@given(EDGES, VALUES)
def test_nothing_is_lost(edges: list[float], values: np.ndarray) -> None:
    """Each value is in one bin, or is none or infinite."""
    found = of(Layout(edges), values)
    assert found.samples + found.non_finite == len(values)
    assert found.counts.size == len(edges) + 1 + OUTSIDE


@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(1, 9)), max_size=8), VALUES)
def test_sparse_bins_are_as_exact(present: list[tuple[int, int]], values: np.ndarray) -> None:
    """Edges in an empty bin, or beyond the last one, divide nothing: bins that only one side has are not lost."""
    first = [(float(low), float(low + 1), float(count)) for low, count in dict(present).items()]
    whole = np.floor(values[np.isfinite(values)])
    second = [(low, low + 1, float((whole == low).sum())) for low in np.unique(whole).tolist()]
    if not first or not second:
        return
    pair = aligned(from_native(first), from_native(second))
    assert pair is not None
    for histogram, buckets in zip(pair, (first, second), strict=True):
        assert histogram.layout.edges == pair[0].layout.edges
        assert histogram.samples == sum(count for *_, count in buckets)
        at_most = np.cumsum(histogram.counts)
        for place, edge in enumerate(histogram.layout.edges):
            assert at_most[place] == sum(count for _, high, count in buckets if high <= edge)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300).map(np.array))
def test_what_a_reference_fixes(reference: np.ndarray) -> None:
    """It survives being written; tested bins hold about as many each, and are part of the others."""
    layout = learnt(reference)
    assert read_layout(layout.written()) == layout
    found = of(layout, reference)
    assert found.samples == len(reference)
    assert found.out_of_range == 0
    assert set(layout.tested) <= set(layout.edges)
    cut = layout.cut(found.counts)
    assert (len(cut), cut.sum()) == (len(layout.tested) + 1, len(reference))


def test_one_value_for_ever() -> None:
    """Each other one is news, also a smaller one."""
    layout = learnt(np.full(1000, 0.7))
    found = of(layout, np.array([0.7, 0.6, 0.8, 0.7]))
    assert found.counts[: layout.bins].tolist() == [1, 2, 1]
    assert found.out_of_range == 2


def test_a_word_for_each_value() -> None:
    """Bins of one observation each say nothing: the rarest are others."""
    words = [f"word-{number}" for number in range(500)] + ["often"] * 50
    layout = learnt(words)
    assert layout.names is not None
    assert (len(layout.names), "often" in layout.names) == (200, True)
    assert of(layout, words).new_words == 301


@pytest.mark.parametrize("values", [np.array([]), np.array([nan, inf]), [None, None]])
def test_nothing_to_learn_from(values: object) -> None:
    """Is said."""
    with pytest.raises(ValueError, match="the reference has no"):
        learnt(values)


def test_buckets_of_prometheus() -> None:
    """What falls by a little where it was extrapolated is 0; the last bound has to be infinite."""
    found = from_cumulative([0.5, 0.9, inf], [10, 9.999, 20])
    assert found.counts[:3].tolist() == pytest.approx([10, 0, 10.001])
    for bounds in ([inf], [0.5, 0.9]):
        with pytest.raises(ValueError, match="expected both"):
            from_cumulative(bounds, [1] * len(bounds))


def test_a_reference_of_counts_is_cut_anew() -> None:
    """Tested bins follow where its values are, not where those of another time were."""
    chance = np.random.default_rng(1)
    layout = learnt(chance.normal(0, 1, 10_000))
    moved = of(layout, chance.normal(1, 0.5, 10_000))
    again = cut_anew(moved)
    before, after = layout.cut(moved.counts), again.layout.cut(again.counts)
    assert (before.sum(), after.sum()) == (10_000, 10_000)
    assert (before.min(), after.min() > 100) == (0, True)
    bounds = from_cumulative([0.5, 0.9, inf], [1, 2, 3])
    assert cut_anew(bounds) is bounds


def test_sums() -> None:
    """Are over what all have; of nothing in common there is none."""
    first, second = of(Layout((1.0, 2.0)), np.array([0.5, 1.5])), of(Layout((2.0, 3.0)), np.array([2.5, 3.5]))
    total = added([first, second])
    assert total is not None
    assert (total.layout.edges, total.counts[:2].tolist()) == ((2.0,), [2, 2])
    assert added([]) is None
    assert added([first, of(Layout((7.0,)), np.array([1.0]))]) is None
