"""What tests of the stack ask programs for, and where its files are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
LOOPBACK = "127.0.0.1"
PATIENCE = 30
"""Seconds; everything here takes less than one."""


def program(*names: str, package: str) -> str:
    """Where a program is, beside this Python or on PATH; without it these tests are skipped, and in CI fail."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    reason = f"{names[0]} is not installed: {package}"
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    raise AssertionError(reason)  # for mypy: neither of them returns


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a command says and how it ends."""
    return subprocess.run(
        command,
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip


def read(path: Path) -> Any:
    """What a YAML file says."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))
