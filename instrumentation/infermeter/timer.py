"""Work that is done once a second, in a thread that keeps nobody alive and holds up no exit; and at the end."""

import _thread
import atexit
import logging
import os
import sys
import time
import weakref
from typing import Protocol

log = logging.getLogger("infermeter")

_EVERY_SECONDS = 1.0


class Busy(Protocol):
    """Who has work for a timer."""

    def keep_up(self) -> None:
        """Do what has to be done now and then."""


class Timer:
    """Has its owner keep up, from the moment that it is started.

    Args:
        owner: who is forgotten by the timer when everybody else forgets it.
    """

    def __init__(self, owner: Busy) -> None:
        self._owner = weakref.ref(owner)
        self._runs = False

    def start(self, *, at_once: bool = False) -> None:
        """Run from now on, the first time `at_once` or a second later; again is nothing."""
        if not self._runs:
            self._runs = True
            try:
                # Not threading.Thread: its start() waits for a lock, and a signal handler may be what got us here.
                _thread.start_new_thread(_run, (self._owner, 0.0 if at_once else _EVERY_SECONDS))
            except RuntimeError:  # no more threads: scrapes and full buffers still fold
                log.warning("cannot start the thread that folds; scrapes will do its work")

    def end(self) -> None:
        """Do not start any more: the interpreter ends, and makes no thread."""
        self._runs = True

    def after_fork_in_child(self) -> None:
        """Run in the child, which has no other thread, if it ran in the parent."""
        if self._runs:
            self._runs = False
            self.start()


def _run(reference: "weakref.ref[Busy]", pause: float) -> None:
    pid = os.getpid()
    while True:
        time.sleep(pause)
        pause = _EVERY_SECONDS
        owner = reference()
        if owner is None or sys.is_finalizing() or os.getpid() != pid:
            return
        owner.keep_up()
        del owner


class Folder(Protocol):
    """Who has something to fold when the process ends."""

    timer: Timer

    def waits(self) -> bool:
        """Whether there is something to fold."""

    def fold(self) -> None:
        """Fold it."""


def at_exit(owner: Folder) -> None:
    """Have `owner`, if anybody else still knows it, fold what is left when the interpreter ends."""
    atexit.register(_fold_the_rest, weakref.ref(owner))


def _fold_the_rest(reference: "weakref.ref[Folder]") -> None:
    owner = reference()
    if owner is not None and owner.waits():
        owner.timer.end()
        owner.fold()
