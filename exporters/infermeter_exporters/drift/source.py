"""What all sources are to the exporter: counts of any period."""

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from infermeter_exporters.drift.dispersion import PARTS
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.layout import Histogram


class SourceError(Exception):
    """A source cannot answer now.

    Args:
        reason: a word, as it stands in metrics.
        text: a sentence.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


REASONS = ("unreachable", "refused", "invalid", "stale", "store")
"""Of `SourceError`: nobody answers; the answer is an error; it makes no sense; it is an old one; the store failed."""


def parts(source: "Source", begin: float, end: float) -> list[Mapping[Key, Histogram]]:
    """What was observed in each of `PARTS` parts of a time.

    Raises:
        SourceError: the source cannot answer.
    """
    size = (end - begin) / PARTS
    return [source.counted(begin + place * size, begin + (place + 1) * size) for place in range(PARTS)]


class Source(Protocol):
    """Where observations come from.

    Attributes:
        name: as in the configuration; unique.
        baselines: what its windows are compared with: `seasonal`, `previous`, or the name of a reference.
        learn: observations in a window that makes the first version of a named reference; 0 if none does.
        waited: seconds for which others were waited for, since it was made.
    """

    name: str
    baselines: Sequence[str]
    learn: int
    waited: float

    def counted(self, begin: float, end: float) -> Mapping[Key, Histogram]:
        """What was observed after `begin` and up to `end`, in seconds since 1970.

        Raises:
            SourceError: it cannot answer.
        """

    def learning(self) -> Mapping[Key, float]:
        """Features whose bins are not known yet, and how many observations of them wait for more.

        Raises:
            SourceError: it cannot answer.
        """

    def require_fresh(self, end: float) -> None:
        """Nothing, if what it says of times up to `end` is not older than it should be.

        Raises:
            SourceError: it is, or it cannot answer.
        """

    def close(self) -> None:
        """End what was opened; it opens again when it is asked again."""

    def feed(self, end: threading.Event) -> None:
        """Fetch what it has to fetch by itself, until `end` is set; returns at once if there is nothing to fetch."""
