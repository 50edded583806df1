"""The options of the tests, which pytest reads here however few it is asked to run, and what several folders need."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infermeter.catalogue import FAMILIES
from infermeter_exporters.drift.catalogue import FAMILIES as DRIFT
from infermeter_exporters.gpu.catalogue import FAMILIES as GPU

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

ROOT = Path(__file__).parents[1]
PATIENCE = 120
"""Seconds that the demo has to start: its services import and build their models first."""
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring", "group_left", "group_right"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden`."""
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the expected pages in tests/golden instead of comparing"
    )


@pytest.fixture(scope="session")
def promtool() -> str:
    """Where promtool is; without it these tests are skipped, and in CI fail."""
    found = shutil.which("promtool")
    if found is None:
        reason = "promtool is not installed: apt-get install --no-install-recommends prometheus"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return found


@pytest.fixture(scope="session")
def program() -> str:
    """Where Prometheus is; without it these tests are skipped, and in CI fail."""
    found = shutil.which("prometheus")
    if found is None:
        reason = "prometheus is not installed: apt-get install --no-install-recommends prometheus"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return found


@pytest.fixture(scope="session")
def exposed() -> set[str]:
    """The names that the families of the library and of the exporters have in Prometheus."""
    library = {name + suffix for name, family in FAMILIES.items() for suffix in SUFFIXES.get(family.kind, ("",))}
    return library | DRIFT.keys() | GPU.keys()


@pytest.fixture(scope="session")
def metrics() -> Callable[[str], set[str]]:
    """The metrics that an expression names."""
    return metrics_of


def metrics_of(expression: str) -> set[str]:
    """What is left of an expression without strings, matchers, ranges, label lists and functions."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    text = re.sub(r"\boffset\s+\w+", "", text)
    return set(re.findall(r"(?<![\w.:])[a-zA-Z_:][\w:]*\b(?!\s*\()", text)) - WORDS


@pytest.fixture(scope="session")
def running_demo() -> Callable[[Path], AbstractContextManager[dict[str, str]]]:
    """Runs `python -m demo`, its files in a folder, and gives the addresses that it prints, by name."""
    return run_demo


@contextmanager
def run_demo(folder: Path) -> Iterator[dict[str, str]]:
    """Start the demo with its Prometheus, both on free ports, and end it."""
    from demo.__main__ import PACKAGES
    from demo.services import SERVICES

    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if shutil.which("prometheus") is None:
        missing.append("prometheus (apt-get install --no-install-recommends prometheus)")
    if missing:
        reason = f"not installed, which the demo needs: {', '.join(missing)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    names = [*(service.name for service in SERVICES), "GPUs", "Prometheus", "drift"]
    ports = [f"--{name.lower()}-port=0" for name in names]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo", *ports], cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
    try:
        found: dict[str, str] = {}
        deadline = time.monotonic() + PATIENCE
        while len(found) < len(names):
            said_so_far = (folder / "said").read_text()
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the demo did not get ready, having said:\n{said_so_far}")
            found = dict(re.findall(rf"^({'|'.join(names)}): (http://[^/\s]+)", said_so_far, re.MULTILINE))
            time.sleep(0.1)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()  # which does nothing to a process that has ended
