"""A worker as the exporter sees it: a process that is started, listened to, and killed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from infermeter_exporters.gpu.readings import Beat, Machine, Message, unpacked
from infermeter_exporters.gpu.worker import Task

_PIECE = 1 << 16
# A line may be so long; what is longer was not written by a worker that is well.
_MOST = 1 << 24


class Child:
    """A worker.

    Args:
        task: what it is to do.

    Attributes:
        descriptor: becomes readable when it says something, and when it ends.
        started: when, by `time.monotonic()`.
        heard: when it last said something.
        ended: when it was killed.
        machine: what it said of the machine.
        units: what it reads; None until its source is open.
        reading: what it was reading when it was last heard, and for how many seconds.
        reason: why its source could not be used.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        # -S and -E would be lighter, and would not find what is installed.
        command = [sys.executable, "-m", "infermeter_exporters.gpu.worker", json.dumps(task._asdict())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdout is not None
        self.descriptor = self._process.stdout.fileno()
        os.set_blocking(self.descriptor, False)
        self._rest = b""
        self.started = self.heard = time.monotonic()
        self.ended = 0.0
        self.machine: Machine | None = None
        self.units: Sequence[str] | None = None
        self.reading: Sequence[tuple[str, float]] = ()
        self.reason = ""

    def messages(self) -> Iterator[Message]:
        """What it has said since the last call."""
        while not self.ended:
            try:
                piece = os.read(self.descriptor, _PIECE)
            except BlockingIOError:
                return
            if not piece:
                return
            self.heard = time.monotonic()
            *lines, self._rest = (self._rest + piece).split(b"\n")
            if len(self._rest) > _MOST:
                self.reason = "its worker wrote nonsense"
                self.kill()
                return
            for line in lines:
                try:
                    yield unpacked(line)
                except (ValueError, TypeError):  # half a line of a process that was killed
                    continue

    def beat(self, beat: Beat) -> None:
        """It lives."""
        self.reading = beat.reading

    def running(self) -> bool:
        """Whether the process is there; a process that hangs in the driver may be, after it was killed."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it; it may take its time."""
        self._process.kill()

    def end(self) -> None:
        """Have nothing to do with it any more."""
        if not self.ended:
            self.ended = time.monotonic()
            self.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
