"""A verdict takes windows that agree, a size that matters, and certainty; it is given once for each episode."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.drift.decision import Gates, State, decided

GATES = Gates(effect=0.2)
DRIFT, HEALTHY = (0.25, 1e-6), (0.05, 0.4)


def after(*windows: tuple[float, float], state: State = State()) -> State:  # noqa: B008
    """The state after some windows."""
    for effect, pvalue in windows:
        state = decided(state, GATES, effect, pvalue)
    return state


@pytest.mark.parametrize(
    ("windows", "active"),
    [
        ([DRIFT], False),
        ([DRIFT, DRIFT], True),
        ([DRIFT, HEALTHY, DRIFT], True),
        ([DRIFT, HEALTHY, HEALTHY, DRIFT], False),
        ([HEALTHY] * 5, False),
    ],
)
def test_two_of_three(windows: list[tuple[float, float]], active: bool) -> None:  # noqa: FBT001
    """One window is not enough, whatever it says."""
    assert after(*windows).active is active


@pytest.mark.parametrize("window", [(0.19, 1e-9), (5.0, 0.01), (nan, 1e-9), (5.0, nan), (inf, 0.5)])
def test_size_and_certainty(window: tuple[float, float]) -> None:
    """Both are needed; what is not known is neither."""
    assert after(*[window] * 5) == State(votes=(False,) * 3)


def test_drift_ends_where_it_is_well_below() -> None:
    """It does not flicker about its limit."""
    begun = after(DRIFT, DRIFT)
    assert begun == State(active=True, votes=(True,), episodes=1)
    held = after(*[(0.17, 1e-6)] * 9, state=begun)
    assert (held.active, held.episodes) == (True, 1)
    once = after((0.15, 1e-6), state=held)
    assert once.active
    ended = after((0.15, 1e-6), state=once)
    assert (ended.active, ended.votes, ended.episodes) == (False, (False,), 1)
    assert after(DRIFT, DRIFT, state=ended) == State(active=True, votes=(True,), episodes=2)


def test_few_observations_say_nothing() -> None:
    """Two hundred, or five for each bin."""
    assert [GATES.enough(samples, bins) for samples, bins in ((199, 10), (200, 10), (499, 100), (500, 100))] == [
        False,
        True,
        False,
        True,
    ]


@given(st.lists(st.sampled_from([DRIFT, HEALTHY, (0.17, 1e-6)]), max_size=40))
def test_episodes_are_counted_where_they_begin(windows: list[tuple[float, float]]) -> None:
    """Once each, and a verdict holds for two windows at least."""
    state = State()
    begun, since = 0, 9
    for window in windows:
        before, state = state, after(window, state=state)
        begun += state.active and not before.active
        if state.active != before.active:
            assert since >= 2
            since = 0
        since += 1
        assert state.episodes == begun
        assert len(state.votes) <= GATES.windows
