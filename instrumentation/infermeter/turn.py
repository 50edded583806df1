"""Whose turn it is to fold: a lock that lets those who wait for it come before those who would take it in passing."""

import _thread
import time
from _thread import get_ident
from collections.abc import Iterator
from contextlib import contextmanager

# What those who wait already are given to take it.
_FIRST_COME_SECONDS = 0.001


class Turn:
    """Who folds.

    Attributes:
        lock: held by whoever has the turn.
    """

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Nobody's turn, as in a forked child."""
        self.lock = _thread.allocate_lock()
        self._waiters: list[None] = []  # one for each thread that waits
        self._holder = 0

    @property
    def mine(self) -> bool:
        """Whether this thread has it: a signal handler may interrupt a fold."""
        return self._holder == get_ident()

    @contextmanager
    def at_once(self) -> Iterator[bool]:
        """Have the turn if nobody has it or waits for it, without waiting; gives whether it is had."""
        lock = self.lock  # a fork in the middle, by the user's own objects, gives the child another
        # Locks are not fair: threads that fold again and again would keep a scrape out for seconds.
        held = not self._waiters and lock.acquire(blocking=False)
        with self._used(lock, held=held):
            yield held

    @contextmanager
    def within(self, seconds: float) -> Iterator[bool]:
        """Have the turn if it can be had in so many seconds; gives whether it is had."""
        lock, waiters = self.lock, self._waiters
        if waiters:
            time.sleep(_FIRST_COME_SECONDS)  # whoever just had the lock would have it again before they wake up
        waiters.append(None)
        try:
            held = lock.acquire(timeout=seconds)
        finally:
            waiters.pop()
        with self._used(lock, held=held):
            yield held

    @contextmanager
    def _used(self, lock: _thread.LockType, *, held: bool) -> Iterator[None]:
        try:
            if held:
                self._holder = get_ident()
            yield
        finally:
            if held:
                self._holder = 0
                lock.release()
