"""A small exporter in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator

PATIENCE = 30.0


class Served:
    """`watched.py`, with its files in a folder."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.out = folder / "out"
        command = [sys.executable, str(Path(__file__).with_name("watched.py")), str(folder)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with self.log.open("ab") as log, self.out.open("ab") as out:
            self.process = subprocess.Popen([*command, *flags], stdout=out, stderr=log, env=environment)

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    @property
    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    @property
    def urls(self) -> list[str]:
        """Where it listens."""
        self.until(lambda: self.process.poll() is not None or "metrics are on" in self.said)
        return re.findall(r"metrics are on (\S+)/metrics", self.said)

    @property
    def url(self) -> str:
        """Where it listens first."""
        assert self.urls, self.said
        return self.urls[0]

    @property
    def port(self) -> int:
        """The port of that."""
        return int(self.url.rpartition(":")[2])

    def says(self, name: str, text: str) -> None:
        """Have it say something; see `watched.py`."""
        (self.folder / name).write_text(text)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts it with flags, on a free port unless they name another."""
    started: list[Served] = []

    def start(*flags: str) -> Served:
        own = () if any("listen-address" in flag for flag in flags) else ("--web.listen-address=127.0.0.1:0",)
        started.append(Served(tmp_path, *own, *flags))
        return started[-1]

    yield start
    for served in started:
        served.process.kill()
        served.process.wait()


@pytest.fixture
def served(serving: Callable[..., Served]) -> Served:
    """It runs."""
    found = serving()
    assert found.url
    return found
