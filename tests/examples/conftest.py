"""The examples, run as their README says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.run.conftest import PATIENCE, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1"
CLIENTS = 4


def command(example: str, program: str) -> list[str]:
    """The one line of an example's README that begins with `program`, as words."""
    text = (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (line,) = (line for block in blocks for line in block.splitlines() if line.startswith(f"{program} "))
    return shlex.split(line)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """That of whoever runs an example: its programs are found, nothing is written but in `folder`, nobody is asked."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INFERMETER_", "OTEL_"))}
    return inherited | {
        "HOME": str(folder),  # gunicorn puts a socket there
        "ORT_DISABLE_TELEMETRY": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }


class Service(Running):
    """An example that serves, and those who ask it.

    Attributes:
        port: where it listens.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        super().__init__(process)
        self.port = port

    def until_it_listens(self) -> None:
        """Wait until it does; no request is made."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.said
            try:
                socket.create_connection((ADDRESS, self.port)).close()
            except ConnectionRefusedError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"it never listened: {self.said}")

    def post(self, path: str, bodies: list[bytes], kind: str) -> list[httpx.Response]:
        """The answers to `bodies`, asked for by several clients at once."""

        def one(body: bytes) -> httpx.Response:
            url = f"http://{ADDRESS}:{self.port}{path}"
            return httpx.post(url, content=body, headers={"Content-Type": kind}, timeout=PATIENCE)

        with ThreadPoolExecutor(CLIENTS) as pool:
            return list(pool.map(one, bodies))

    def stop(self) -> int:
        """End it as a supervisor does; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.code()


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[Service]]:
    """Runs the `infermeter run` line of an example's README, on free ports of this host."""

    @contextmanager
    def running(example: str, folder: Path, **more: str) -> Iterator[Service]:
        with socket.socket() as probe:
            probe.bind((ADDRESS, 0))
            port = probe.getsockname()[1]
        infermeter, run, *rest = command(example, "infermeter run")
        assert (infermeter, run) == ("infermeter", "run")
        assert sum("8000" in word for word in rest) == 1
        process = subprocess.Popen(
            [sys.executable, "-m", "infermeter_exporters", "run", "--addr", ADDRESS, "--port", "0"]
            + [word.replace("8000", str(port)) for word in rest],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT / "examples" / example,
            env=environment(folder, **more),
            start_new_session=True,
        )
        try:
            service = Service(process, port)
            service.until_it_listens()
            yield service
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(PATIENCE)

    return running


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve pictures of a street, two of them by night."""
    from demo.scenes import DAY, NIGHT, Camera

    image = pytest.importorskip("PIL.Image", reason="make test installs pillow")
    folder = tmp_path_factory.mktemp("street")
    for exposure, number in ((DAY, 10), (NIGHT, 2)):
        for index, frame in enumerate(islice(Camera(seed=1, exposure=exposure).frames(), number)):
            image.fromarray(frame.pixels).save(folder / f"{exposure}-{index:02}.png")
    return folder
