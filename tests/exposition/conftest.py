"""The folder of the expected pages, and the linter of Prometheus."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the expected pages; those of this library begin with `instrumentation-`."""
    return Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def promtool() -> str:
    """Where promtool is; without it these tests are skipped, and in CI fail."""
    found = shutil.which("promtool")
    if found is None:
        reason = "promtool is not installed: apt-get install --no-install-recommends prometheus"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return found
