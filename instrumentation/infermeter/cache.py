"""`cache`: how often an answer was there already."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infermeter.ledger import Ledger


class Cache:
    """Counts the hits and misses of one cache; made by `cache`."""

    __slots__ = ("_recorder", "name")

    def __init__(self, recorder: "Ledger", name: str) -> None:
        self._recorder = recorder
        self.name = name

    def hit(self, count: float = 1) -> None:
        """Report that so many look-ups found their answer."""
        self._recorder.note_cache("cache_hits_total", self.name, count)

    def miss(self, count: float = 1) -> None:
        """Report that so many look-ups found nothing."""
        self._recorder.note_cache("cache_misses_total", self.name, count)
