"""A child process that writes to a log file, ends when told to, and does not outlive its parent."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from demo import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

PR_SET_PDEATHSIG = 1
PATIENCE = 5.0
"""Seconds that a child has to end after SIGTERM before it is killed."""

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """A running program; as a context manager it is ended on the way out.

    Its output goes to `log`. It runs in a session of its own, so that the Ctrl-C of a terminal reaches the parent
    only, which then ends its children in order.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, cwd: Path | None = None) -> None:
        """Start `command`; `DemoError` if it cannot even be started."""
        self.name = name
        self._log = log
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    command,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_end_with_parent if _libc else None,  # noqa: PLW1509 - no threads run this early
                )
        except OSError as error:
            message = f"{name} cannot be started ({error}): check that {command[0]} can be run."
            raise DemoError(message) from error

    def __enter__(self) -> Self:
        """Return the child itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the child: SIGTERM, and SIGKILL if that is not heeded."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def require_alive(self, advice: str) -> None:
        """Raise `DemoError`, with the child's last words and `advice`, if it has ended by itself."""
        code = self._process.poll()
        if code is None:
            return
        lines = self._log.read_text(errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended by itself with code {code}"
        message = f"{self.name} {end}, having said last: {words} - {advice}"
        raise DemoError(message)

    def wait_for(self, url: str, stopped: Callable[[], bool], seconds: float, advice: str) -> None:
        """Return when `url` answers with success, or when `stopped` says that nobody waits any more.

        `DemoError` if the child ends first or the seconds pass.
        """
        deadline = time.monotonic() + seconds
        while not stopped():
            self.require_alive(advice)
            if _answers(url):
                return
            if time.monotonic() > deadline:
                message = f"{self.name} runs, but {url} did not answer within {seconds:.0f} s - {advice}"
                raise DemoError(message)
            time.sleep(0.05)


def _answers(url: str) -> bool:
    """Return whether a GET of `url` succeeds within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - always http://127.0.0.1
            return True
    except (urllib.error.URLError, OSError):
        return False


def _end_with_parent() -> None:
    """Ask Linux, in the child, for SIGTERM when the parent is gone, even by SIGKILL."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
