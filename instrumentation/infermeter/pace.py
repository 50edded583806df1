"""Long work that lets other threads run in between."""

import time
from time import perf_counter

# A thread that is busy keeps those that infer waiting for up to 5 ms, Python's switch interval; so a scrape of many
# series would be seen in their latency. After so long we step aside; long enough for a waiting thread to wake up.
_WORK_SECONDS = 0.001
_ASIDE_SECONDS = 0.00005
# Where many threads want to run it takes long to be back, with a lock that others wait for; then we hurry on.
_MOST_ASIDE_SECONDS = 0.25


class Pace:
    """The pace of one piece of work."""

    __slots__ = ("_aside", "_since")

    def __init__(self) -> None:
        self._since = perf_counter()
        self._aside = 0.0

    def step(self) -> None:
        """Let others run, if this one has been busy for a while."""
        now = perf_counter()
        if now - self._since > _WORK_SECONDS and self._aside < _MOST_ASIDE_SECONDS:
            time.sleep(_ASIDE_SECONDS)
            self._since = perf_counter()
            self._aside += self._since - now
