"""Native histograms against exact arithmetic: every value is in the bucket whose bounds, as real numbers, hold it."""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermeter.native import MAX_BUCKETS, SCHEMA, Native, merge, width

ZERO = 2.0**-128
SCHEMAS = range(-4, 9)
LARGEST = 1.7976931348623157e308


@lru_cache(None)
def bound(index: int, schema: int) -> Fraction:
    """The upper bound of a bucket: exact if it is a power of two, else to sixty digits, far nearer than any float64."""
    exponent = index / Fraction(2) ** schema
    whole = math.floor(exponent)
    rest = exponent - whole
    with localcontext(prec=60):
        factor = Decimal(2) ** (Decimal(rest.numerator) / rest.denominator)
    return Fraction(2) ** whole * Fraction(factor)


def bucket(value: float, schema: int) -> int:
    """The bucket of a value above zero, found from the logarithm, which may be wrong by one, by exact comparison."""
    guess = math.ceil(math.log2(value) * 2.0**schema)
    exact = Fraction(value)
    return next(
        index for index in range(guess - 2, guess + 3) if bound(index - 1, schema) < exact <= bound(index, schema)
    )


class Oracle:
    """One value after another, in a dictionary."""

    def __init__(self, schema: int, most: int) -> None:
        self.schema, self.most, self.threshold = schema, most, ZERO
        self.zeros = 0
        self.buckets: Counter[int] = Counter()

    def add(self, values: list[float]) -> None:
        for value in values:
            if value <= self.threshold:
                self.zeros += 1
            else:
                self.buckets[bucket(value, self.schema)] += 1
        self.limit()

    def limit(self) -> None:
        while len(self.buckets) > self.most and self.schema > -4:
            self.schema -= 1
            finer, self.buckets = self.buckets, Counter()
            for index, count in finer.items():
                self.buckets[math.ceil(index / 2)] += count
        while len(self.buckets) > self.most:
            lowest = min(self.buckets)
            self.zeros += self.buckets.pop(lowest)
            self.threshold = float(bound(lowest, self.schema))


def counted(histogram: Native) -> tuple[int, float, int, dict[int, int]]:
    """Schema, width and count of the zero bucket, and the counts by bucket, read as Prometheus reads the message."""
    sparse = histogram.sparse()
    assert len(sparse.deltas) == sum(length for _, length in sparse.spans)
    deltas = iter(sparse.deltas.tolist())
    buckets, index, count = {}, 0, 0
    for offset, length in sparse.spans:
        index += offset
        for _ in range(length):
            count += next(deltas)
            buckets[index] = count
            index += 1
    return sparse.schema, sparse.zero_threshold, sparse.zero_count, buckets


def new(most: int = MAX_BUCKETS, schema: int = SCHEMA) -> Native:
    return Native(np.zeros(width(most)), schema)


def neighbourhood(index: int, schema: int) -> list[float]:
    """The float64 nearest to a bound, and those beside it."""
    nearest = float(bound(index, schema))
    return [nearest, math.nextafter(nearest, 0), math.nextafter(nearest, LARGEST)]


near_a_bound = st.builds(neighbourhood, st.integers(-127 * 8, 127 * 8), st.just(3)).flatmap(st.sampled_from)
special = st.sampled_from(
    [0.0, 5e-324, 1e-310, 2.0**-1022, ZERO, math.nextafter(ZERO, 1), 0.5, 1.0, 2.0, 1e308, LARGEST]
)
latency = st.floats(1e-4, 1e2)
values_of_all_kinds = st.lists(
    st.one_of(near_a_bound, special, latency, st.floats(0, LARGEST), st.integers(-1074, 1023).map(lambda n: 2.0**n)),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(
    batches=st.lists(values_of_all_kinds, max_size=5),
    schema=st.sampled_from(SCHEMAS),
    most=st.sampled_from([1, 2, 3, 10, 80, MAX_BUCKETS]),
)
def test_every_value_is_in_its_bucket(batches: list[list[float]], schema: int, most: int) -> None:
    """Whatever the resolution and the limit, in however many batches, the counts are those of exact arithmetic."""
    histogram, oracle = new(most, schema), Oracle(schema, most)
    for values in batches:
        histogram.add(np.array(values, np.float64))
        oracle.add(values)

    total = sum(map(len, batches))
    assert counted(histogram) == (oracle.schema, oracle.threshold, oracle.zeros, dict(oracle.buckets))
    assert histogram.count == total == oracle.zeros + sum(oracle.buckets.values())


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_bound_and_its_neighbours(schema: int) -> None:
    """A value on a bound belongs below it, the next float64 above; also where the bound itself is no float64."""
    indices = range(math.ceil(-127 * 2.0**schema), math.floor(1023 * 2.0**schema), int(2.0 ** (schema + 1)) | 1)
    values = [value for index in indices for value in neighbourhood(index, schema) if value > ZERO]
    histogram = new(len(values), schema)
    histogram.add(np.array(values))

    assert counted(histogram) == (schema, ZERO, 0, Counter(bucket(value, schema) for value in values))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, float(np.finfo(np.float32).max), width=32), max_size=50))
def test_floats_are_counted_like_the_doubles_of_the_same_value(values: list[float]) -> None:
    """float32 values are not rounded to bounds, nor summed, with less precision than float64."""
    floats, doubles = new(), new()
    floats.add(np.array(values, np.float32))
    doubles.add(np.array(values, np.float64))

    assert counted(floats) == counted(doubles)
    assert floats.total == doubles.total == pytest.approx(math.fsum(values), rel=1e-12, abs=0)


@settings(max_examples=200, deadline=None)
@given(
    shares=st.lists(
        st.tuples(values_of_all_kinds, st.sampled_from([-4, 0, 3, 5]), st.sampled_from([1, 4, 160])), max_size=4
    ),
    most=st.sampled_from([2, 40, 160]),
)
def test_merged_processes_are_one_histogram(shares: list[tuple[list[float], int, int]], most: int) -> None:
    """Every value is still counted once, in the bucket of the resolution that is left, whatever the order."""
    histograms = [
        (Native(view, schema), view, values) for values, schema, limit in shares for view in [np.zeros(width(limit))]
    ]
    for histogram, _, values in histograms:
        histogram.add(np.array(values))
    views = [view for _, view, _ in histograms]
    before = [view.copy() for view in views]
    merged = Native(merge([np.zeros(width()), *views], most))
    backwards = Native(merge(views[::-1], most))
    every = [value for _, _, values in histograms for value in values]

    assert all(np.array_equal(view, old) for view, old in zip(views, before, strict=True))
    assert counted(merged) == counted(backwards)
    schema, threshold, zeros, buckets = counted(merged)
    assert len(buckets) <= most
    assert zeros == sum(value <= threshold for value in every)
    assert buckets == Counter(bucket(value, schema) for value in every if value > threshold)
    assert merged.count == len(every)
    assert merged.total == pytest.approx(sum(every), rel=1e-12, abs=0)


def test_the_resolution_falls_no_further_than_it_must() -> None:
    """160 buckets in a row are twenty doublings at the first resolution; one bucket more halves it."""
    histogram = new()
    histogram.add(np.array([float(bound(index, 3)) * 0.99 for index in range(MAX_BUCKETS)]))
    assert counted(histogram)[0] == 3
    histogram.add(np.array([1e9]))
    schema, _, _, buckets = counted(histogram)
    assert (schema, len(buckets)) == (2, 82)


def test_the_zero_bucket_widens_only_at_the_lowest_resolution() -> None:
    """All that a float64 can be takes 72 buckets there; where there is no place for them, the smallest join 0."""
    values = 2.0 ** np.arange(-127, 1024)
    roomy, narrow = new(72), new(10)
    roomy.add(values)
    narrow.add(values)

    assert counted(roomy)[:3] == (-4, ZERO, 0)
    assert counted(narrow)[:3] == (-4, 65536.0**54, 127 + 16 * 54 + 1)
    assert sorted(counted(narrow)[3]) == list(range(55, 65))


def test_all_state_is_in_the_array() -> None:
    """A copy of the array is a copy of the histogram, and an array taken up again goes on."""
    view = np.zeros(width(40))
    Native(view, 5).add(np.array([0.1, 0.2]))
    copy = view.copy()
    Native(copy).add(np.array([0.0, 0.3]))

    assert (Native(view).count, Native(copy).count) == (2, 4)
    assert counted(Native(copy))[:3] == (5, ZERO, 1)
    assert Native(copy).total == pytest.approx(0.6, rel=1e-12)


@pytest.mark.parametrize("values", [[], [0.0]])
def test_an_empty_histogram(values: list[float]) -> None:
    """Before the first value above zero there is no bucket, and nothing to merge."""
    view = np.zeros(width())
    Native(view).add(np.array(values))

    assert counted(Native(view)) == counted(Native(merge([view]))) == (SCHEMA, ZERO, len(values), {})
    assert counted(Native(merge([]))) == (SCHEMA, ZERO, 0, {})


def test_a_sum_beyond_all_floats_is_infinite_without_a_warning() -> None:
    """As a classic histogram's."""
    histogram = new()
    histogram.add(np.array([LARGEST, LARGEST]))

    assert (histogram.count, histogram.total) == (2, math.inf)
