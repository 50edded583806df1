"""`infermeter gpu-exporter` in a process of its own, beside a stub of the driver and a made-up /proc and /sys."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.page import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE = 30.0
"""Seconds, after which something will not happen any more."""
QUICK = ("--collect.fast-interval=100ms", "--collect.interval=200ms", "--collect.slow-interval=1s")


class Root:
    """A host's /proc and /sys, as far as the exporter looks at them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("proc", "sys/bus/pci/devices"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def process(self, pid: int, service: str = "", container: str = "", program: str = "python") -> None:
        """A process; `container` is the 64 digits of the id of its container."""
        home = self.folder / "proc" / str(pid)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        (home / "stat").write_text(f"{pid} ({program}) S 1 " + " ".join(["0"] * 17) + f" {pid} " + "0 " * 30)
        (home / "cgroup").write_text(f"0::/system.slice/docker-{container}.scope\n" if container else "0::/\n")
        (home / "cmdline").write_bytes(program.encode() + b"\0")
        (home / "comm").write_text(program + "\n")
        (home / "environ").write_bytes(f"INFERMETER_SERVICE={service}\0".encode() if service else b"")
        (home / "status").write_text("Uid:\t0\t0\t0\t0\n")

    def refuse(self, pid: int) -> None:
        """Nothing of a process can be read any more."""
        self.end(pid)
        for name in ("stat", "cgroup", "comm", "environ"):
            (self.folder / "proc" / str(pid) / name).mkdir(parents=True)

    def end(self, pid: int) -> None:
        """A process is gone."""
        shutil.rmtree(self.folder / "proc" / str(pid))

    def gpu(self, pci: str, runtime: str = "active") -> None:
        """A GPU on the bus."""
        home = self.folder / "sys/bus/pci/devices" / pci
        (home / "power").mkdir(parents=True, exist_ok=True)
        (home / "vendor").write_text("0x10de\n")
        (home / "class").write_text("0x030200\n")
        (home / "power/runtime_status").write_text(runtime + "\n")


class Exporting:
    """An exporter that runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.url = self.until(self._address)

    def _address(self) -> str:
        assert self.process.poll() is None, self.said
        found = re.search(r"metrics are on (http://\S+)/metrics", self.said)
        return found[1] if found else ""

    @property
    def said(self) -> str:
        """Its log so far."""
        return self._log.read_text()

    @property
    def worker(self) -> int:
        """The process that talks to the driver; 0 if there is none."""
        return next(iter(self.workers()), 0)

    def workers(self) -> list[int]:
        """Its workers, the oldest first."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sorted(int(child) for task in tasks for child in (task / "children").read_text().split())

    def text(self, accept: str = "text/plain") -> str:
        """The page."""
        answer = httpx.get(self.url + "/metrics", headers={"Accept": accept}, timeout=PATIENCE)
        assert answer.status_code == 200
        return answer.text

    def page(self) -> Page:
        """The page, read."""
        return Page(self.text())

    def ready(self) -> tuple[int, str]:
        """What it says of its readiness."""
        answer = httpx.get(self.url + "/-/ready", timeout=PATIENCE)
        return answer.status_code, answer.text

    def until(self, look: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """What `look` finds, once it finds something."""
        deadline = time.monotonic() + patience
        while not (found := look()):
            assert time.monotonic() < deadline, f"in vain for {patience:.0f} s, having said:\n{self.said}"
            time.sleep(0.05)
        return found

    def until_page(self, holds: Callable[[Page], object], patience: float = PATIENCE) -> Page:
        """The first page for which something holds."""

        def look() -> Page | None:
            page = self.page()
            return page if holds(page) else None

        found: Page = self.until(look, patience)
        return found

    def end(self) -> int:
        """Have it end as a service manager does; gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end()


@contextmanager
def exporting(
    folder: Path, environment: dict[str, str], *flags: str, prefix: Sequence[str] = ()
) -> Iterator[Exporting]:
    """An exporter that listens on a free port, whose log is in a folder; `prefix` is a program that starts it."""
    command = [
        *prefix,
        sys.executable,
        "-m",
        "infermeter_exporters",
        "gpu-exporter",
        "--web.listen-address=127.0.0.1:0",
        *flags,
    ]
    log = folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(command, env=environment, stdout=written, stderr=written)
    try:
        with Exporting(process, log) as exporter:
            yield exporter
    finally:
        process.kill()  # which does nothing to a process that has ended
        process.wait()
