"""Long work that lets other threads run in between."""

import time
from time import perf_counter

# A thread that is busy keeps those that infer waiting for up to 5 ms, Python's switch interval; so a scrape of many
# series would be seen in their latency. After so long we step aside; long enough for a waiting thread to wake up.
_WORK_SECONDS = 0.001
_ASIDE_SECONDS = 0.00005


class Pace:
    """The pace of one piece of work."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = perf_counter()

    def step(self) -> None:
        """Let others run, if this one has been busy for a while."""
        if perf_counter() - self._since > _WORK_SECONDS:
            time.sleep(_ASIDE_SECONDS)
            self._since = perf_counter()
