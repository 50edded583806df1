"""The stub of the NVIDIA driver's library, for the tests of the GPU exporter."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.gpu.nvml_stub import Scenario, build

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with libnvidia-ml.so.1; without a compiler these tests are skipped, and in CI fail."""
    if shutil.which("cc") is None:
        reason = "cc is not installed: apt-get install --no-install-recommends gcc libc6-dev"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """A scenario without any GPU, in a file of this test."""
    return Scenario(tmp_path / "scenario")
