"""What a command says that lacks what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = (
    "import sys; sys.modules[{missing!r}] = None; from infermeter_exporters.cli import main; sys.exit(main({line!r}))"
)


@pytest.mark.parametrize(
    ("line", "missing", "extra"),
    [
        (["gpu-exporter"], "starlette", "gpu"),
        (["drift-exporter"], "httpx", "drift"),
        (["drift", "baseline", "list"], "httpx", "drift"),
    ],
)
def test_an_extra_that_is_missing(line: list[str], missing: str, extra: str) -> None:
    """One sentence that says what to install."""
    program = PROGRAM.format(missing=missing, line=line)
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    sentence = f"infermeter: {line[0]} needs {missing}: pip install 'infermeter[{extra}]'\n"
    assert (found.returncode, found.stderr) == (2, sentence)
