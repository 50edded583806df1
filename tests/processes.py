"""Processes for tests: recorders that share a folder, and forks that end as they are told to."""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from typing import TYPE_CHECKING, Unpack

from prometheus_client import CollectorRegistry

from infermeter import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from infermeter.config import Options


def recorder_in(folder: Path, **options: Unpack[Options]) -> Recorder:
    """A recorder of the service `test` in a folder that others share, found in a registry of its own."""
    merged: Options = {"service": "test", "registry": CollectorRegistry(), "multiprocess_dir": folder, **options}
    recorder = Recorder(**merged)
    recorder.wsgi_app()  # it is found in its registry from now on
    return recorder


def start(work: Callable[[], object], patience: int = 120, *, stay: bool = False) -> int:
    """Have a forked process work; gives its id.

    Args:
        work: ends the process by what it raises, with code 1.
        patience: seconds after which it is ended by a signal, lest it hang.
        stay: whether it waits for that, or to be killed, when the work is done.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a parent may have threads
        pid = os.fork()
    if pid == 0:
        signal.alarm(patience)
        try:
            work()
            if stay:
                time.sleep(2 * patience)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def kill(pid: int) -> None:
    """End a process that lives without any chance to say goodbye."""
    os.kill(pid, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def in_another(work: Callable[[], object]) -> None:
    """Have a forked process work and die."""

    def work_and_die() -> None:
        work()
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(os.waitpid(start(work_and_die), 0)[1]) == signal.SIGKILL
