"""Children of multiprocessing and concurrent.futures: the page of their parent shows what they did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_page_of_the_parent_shows_its_children(method: str, tmp_path: Path) -> None:
    """Complete as soon as they have ended, however they did, and soon while they live."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INFERM", "PROM"))}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("batch.py"), method],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env={**inherited, "INFERMETER_SERVICE": "test", "INFERMETER_MULTIPROC_DIR": str(tmp_path / "shared")},
        timeout=90,
    )
    assert (done.returncode, done.stderr) == (0, "")
    inferences = 200.0
    page = [inferences, inferences, 4.5 * inferences, inferences, 4.5 * inferences]
    assert json.loads(done.stdout) == {
        "in_processes": [[*page, 1], [*page, 1]],
        "in_pool": [page, [*(2 * number for number in page), 1]],
        "in_executor": [[*page, 1]],
        "parent": [[1, 1, 1, 1, 1, 1]],
    }
