"""Parts of a GPU add up to the GPU: exactly, whatever processes say."""

from __future__ import annotations

from itertools import permutations
from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.gpu.partition import memory_shares, time_shares

percents = st.dictionaries(st.integers(0, 20), st.floats(0, 100), max_size=12)


@given(st.integers(0, 100), percents)
def test_time_adds_up_in_floats(percent: int, used: dict[int, float]) -> None:
    """The sum is what the device says, in any order, without rounding."""
    parts, rest = time_shares(percent / 100, used)
    values = [*parts.values(), rest]
    assert sum(values) == sum(reversed(values)) == fsum(values) == percent
    assert min(values) >= 0
    assert set(parts) == set(used)


@given(st.floats(0, 1), percents)
def test_parts_keep_their_proportions(busy: float, used: dict[int, float]) -> None:
    """Each is at most what it said, less at most 1/64; where they say too much, all are made smaller alike."""
    parts, rest = time_shares(busy, used)
    said = sum(used.values())
    scale = min(1.0, busy * 100 / said) if said else 0.0
    for key, percent in used.items():
        assert percent * scale - 2 / 64 <= parts[key] <= percent * scale + 1 / 64
    assert rest >= -1e-9


@pytest.mark.parametrize(
    ("busy", "used", "expected", "rest"),
    [
        (0.5, {"a": 20, "b": 10}, {"a": 20, "b": 10}, 20),
        (0.5, {"a": 60, "b": 40}, {"a": 30, "b": 20}, 0),
        (0.0, {"a": 60}, {"a": 0}, 0),
        (1.0, {}, {}, 100),
        (0.01, {"a": 1 / 3}, {"a": 21 / 64}, 43 / 64),
    ],
)
def test_time(busy: float, used: dict[str, float], expected: dict[str, float], rest: float) -> None:
    """What nobody claims is nobody's; what is claimed twice is divided."""
    assert time_shares(busy, used) == (expected, rest)
    for order in permutations(used):
        assert time_shares(busy, {key: used[key] for key in order})[1] == rest


@given(st.integers(0, 2**37), st.dictionaries(st.integers(0, 20), st.integers(0, 2**37), max_size=12))
def test_memory_adds_up(used: int, held: dict[int, int]) -> None:
    """To the byte; nobody gets more than it said."""
    parts, rest = memory_shares(used, held)
    assert sum(parts.values()) + rest == used
    assert rest >= 0
    assert all(0 <= parts[key] <= size for key, size in held.items())
    if sum(held.values()) <= used:
        assert parts == held
