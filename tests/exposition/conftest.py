"""The folder of the expected pages."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the expected pages; those of this library begin with `instrumentation-`."""
    return Path(__file__).parents[1] / "golden"
