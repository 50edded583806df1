"""What the linter of Prometheus says about the expected pages."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PAGES = sorted(Path(__file__).parents[1].joinpath("golden").glob("*.prom"))


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_promtool_finds_nothing(promtool: str, page: Path) -> None:
    """`promtool check metrics` ends with code 0 and says nothing."""
    found = subprocess.run(
        [promtool, "check", "metrics"], input=page.read_bytes(), capture_output=True, check=False, timeout=60
    )

    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")
