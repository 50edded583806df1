"""A real drift exporter, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 60


class Exporting:
    """The exporter.

    Attributes:
        url: where it is.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.until(lambda: process.poll() is not None or "metrics are on" in self.said)
        found = re.search(r"metrics are on (\S+)/metrics", self.said)
        assert found, self.said
        self.url = found[1]
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=PATIENCE)

    @property
    def said(self) -> str:
        """Its log."""
        return self._log.read_text()

    def until(self, holds: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def drift(self) -> list[dict[str, Any]]:
        """What it says of all features."""
        found: list[dict[str, Any]] = self.client.get("/v1/drift").json()["drift"]
        return found

    def value(self, name: str, **labels: str) -> float | None:
        """A sample that has some labels; None if there is none."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(
                f'{key}="{one}"' in line for key, one in labels.items()
            ):
                return float(line.rpartition(" ")[2])
        return None


@contextmanager
def exporting(folder: Path, *flags: str) -> Iterator[Exporting]:
    """An exporter that listens on a free port; its log and its store are in a folder."""
    log = folder / "exporter.log"
    command = [
        sys.executable,
        "-m",
        "infermeter_exporters",
        "drift-exporter",
        "--web.listen-address=127.0.0.1:0",
        *flags,
    ]
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | {"STATE_DIRECTORY": str(folder)}, stdout=written, stderr=written
        )
    exporter: Exporting | None = None
    try:
        exporter = Exporting(process, log)
        yield exporter
    finally:
        if exporter is not None:
            exporter.client.close()
        process.kill()  # which does nothing to a process that has ended
        process.wait()
