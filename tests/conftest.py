"""The options of the tests, which pytest reads here however few it is asked to run, and what several folders need."""

from __future__ import annotations

import os
import shutil

import pytest


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
