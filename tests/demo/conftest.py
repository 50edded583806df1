"""The tests of the demo need what the demo needs; without it they skip, and say so, but in CI they fail."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest

from demo.__main__ import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MISSING = [package for package in PACKAGES if importlib.util.find_spec(package) is None]


class NotInstalled(pytest.Module):
    """A file of tests that cannot be imported."""

    def collect(self) -> Iterator[pytest.Item]:
        """Skip, or in CI fail, naming what is missing."""
        reason = f"the demo's packages are not installed: {', '.join(MISSING)}"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Replace every file of this folder when packages are missing."""
    return NotInstalled.from_parent(parent, path=module_path) if MISSING else None
