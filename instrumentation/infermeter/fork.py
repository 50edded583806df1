"""What happens to recorders when the process forks.

A child starts from zero: it exposes what it did itself, and the parent what it did before, so that nothing is counted
twice or lost when both are scraped. Calls that are open at the fork belong to the parent and end unseen in the child.
"""

import os
import weakref
from _thread import LockType, get_ident
from typing import Protocol


class Forkable(Protocol):
    """A recorder, as far as a fork is concerned."""

    @property
    def lock(self) -> LockType:
        """Held by whoever folds."""

    def after_fork_in_child(self) -> None:
        """Start from zero with a fresh lock."""


# A fork waits so long for a running fold, lest the child copy half of one; the child starts from zero either way.
_WAIT_SECONDS = 0.1

_recorders: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
# What each forking thread holds; several may fork at once.
_held: dict[int, list[LockType]] = {}


def watch(recorder: Forkable) -> None:
    """See `recorder` through every fork, for as long as it lives."""
    _recorders.add(recorder)


def _before() -> None:
    locks = [recorder.lock for recorder in list(_recorders)]
    _held[get_ident()] = [lock for lock in locks if lock.acquire(timeout=_WAIT_SECONDS)]


def _after_in_parent() -> None:
    for lock in _held.pop(get_ident(), ()):
        lock.release()


def _after_in_child() -> None:
    _held.clear()
    for recorder in list(_recorders):
        recorder.after_fork_in_child()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
