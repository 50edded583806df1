"""Whether a feature drifts: not because one window says so, nor because it is certain of something small."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Status = Literal["ok", "insufficient", "no_baseline", "layout_mismatch", "constant"]
STATUSES: tuple[Status, ...] = ("ok", "insufficient", "no_baseline", "layout_mismatch", "constant")


class Gates(NamedTuple):
    """What has to be true of a window that counts as drifted.

    Attributes:
        effect: the index is at least that; from the least of its usual limits on, since bins keep only part of a drift.
        alpha: the p-value, adjusted for all features of the model, is below that.
        least: observations in it, at least.
        least_per_bin: and so many for each bin.
        windows: of so many windows,
        agreeing: so many have to say the same before the verdict changes.
        hysteresis: drift ends below that part of `effect`.
        mmd: what `effect` is for embeddings, of the maximum mean discrepancy.
    """

    effect: float = 0.1
    alpha: float = 0.001
    least: int = 200
    least_per_bin: int = 5
    windows: int = 3
    agreeing: int = 2
    hysteresis: float = 0.8
    mmd: float = 0.1

    def enough(self, samples: float, bins: int) -> bool:
        """Whether so many observations in so many bins say anything."""
        return samples >= max(self.least, self.least_per_bin * bins)


USUAL = Gates()


class State(NamedTuple):
    """What is remembered of a feature, also over a restart.

    Attributes:
        active: whether it drifts.
        votes: what the last windows said that had enough observations, the newest last.
        episodes: how often it began to drift.
    """

    active: bool = False
    votes: Sequence[bool] = ()
    episodes: int = 0


def decided(state: State, gates: Gates, effect: float, pvalue: float) -> State:
    """The state after a window that had enough observations; those that had not change nothing.

    Args:
        state: before.
        gates: as they are now.
        effect: the statistic; NaN is none.
        pvalue: adjusted; NaN is not certain of anything.
    """
    certain = pvalue < gates.alpha
    wanted = gates.effect * (gates.hysteresis if state.active else 1.0)
    votes = (*state.votes, certain and effect >= wanted)[-gates.windows :]
    against = votes.count(not state.active)
    active = state.active != (against >= gates.agreeing)
    if active == state.active:
        return State(active, votes, state.episodes)
    # A new verdict is not undone by the windows that led to it.
    return State(active, votes[-1:], state.episodes + active)
