"""Services that `infermeter run` starts, as they are."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.page import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

PATIENCE = 60
"""Seconds that anything may take before a test fails."""
ROOT = Path(__file__).parents[2]
OPTIONS = ("--service", "gate", "--port", "0", "--addr", "127.0.0.1")


class Running:
    """A command that `infermeter run` runs.

    Attributes:
        process: `infermeter run` itself.
        said: what it and the service have written to standard error so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            self._lines.put(line)
        self.process.stderr.close()
        self._lines.put("")

    def heard(self, pattern: str) -> str:
        """The first group of the first line on standard error, of those not looked at yet, that matches `pattern`."""
        while line := self._lines.get(timeout=PATIENCE):
            found = re.search(pattern, line)
            if found:
                return found[1] if found.groups() else found[0]
        raise AssertionError(f"nothing said {pattern!r}: {self.said}")

    def told(self) -> str:
        """The next line on standard output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.said
        return line.strip()

    def page(self) -> Page:
        """What Prometheus would get now."""
        if not hasattr(self, "url"):
            self.url = self.heard(r"metrics of .* are on (http://\S+)")
        answer = httpx.get(self.url, timeout=PATIENCE)
        assert answer.status_code == 200
        return Page(answer.text)

    def page_with(self, name: str, total: float) -> Page:
        """What Prometheus would get when the samples of `name` add up to `total`: processes tell once a second."""
        deadline = time.monotonic() + PATIENCE
        while True:
            page = self.page()
            found = sum(value for other, _, value in page.samples if other == name)
            if found == total:
                return page
            assert found < total, f"{name} is {found}, more than {total}"
            assert time.monotonic() < deadline, f"{name} is {found}, and never {total}: {self.said}"
            time.sleep(0.05)

    def go_on(self) -> None:
        """Let a service go on that waits for a line on standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def code(self) -> int:
        """The exit code, once it has ended; all that it said is known then."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code


@pytest.fixture(scope="session")
def run() -> Callable[..., AbstractContextManager[Running]]:
    """Runs `infermeter run OPTIONS -- COMMAND`, which is killed if it does not end with the test."""

    @contextmanager
    def running(
        *command: str,
        options: tuple[str, ...] = OPTIONS,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> Iterator[Running]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INFERMETER_", "OTEL_"))}
        process = subprocess.Popen(
            [sys.executable, "-m", "infermeter_exporters", "run", *options, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=inherited | {"ORT_DISABLE_TELEMETRY": "1"} | (environment or {}),
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509  (only asks the kernel for something)
        )
        try:
            yield Running(process)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(PATIENCE)
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()

    return running


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Writes a program; gives its path."""

    def written(source: str, name: str = "service.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return str(path)

    return written


@pytest.fixture
def mended(tmp_path: Path) -> dict[str, str]:
    """An environment in which ultralytics works beside a torch for the CPU, offline, by a `sitecustomize`.

    It mends torchvision when ultralytics is imported: that takes torch, which not every process needs.
    """
    site = tmp_path / "site" / "sitecustomize.py"
    site.parent.mkdir()
    site.write_text(
        "import sys\n"
        "class Mend:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'ultralytics':\n"
        "            sys.meta_path.remove(Mend)\n"
        "            from tests.integrations import torchvision_shim\n"
        "            torchvision_shim.mend()\n"
        "sys.meta_path.insert(0, Mend)\n"
    )
    return {
        "PYTHONPATH": os.pathsep.join([str(site.parent), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(tmp_path),
        "YOLO_OFFLINE": "1",
    }
