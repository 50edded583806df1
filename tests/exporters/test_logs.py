"""A record is one line, whatever it says."""

from __future__ import annotations

import json
import logging
import shlex
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.logs import FORMATS, _Lines


def record(message: str, *, failed: bool = False) -> logging.LogRecord:
    """A record of a moment in 2030."""
    error = None
    if failed:
        try:
            int(message + "x", 3)
        except ValueError:
            error = sys.exc_info()
    made = logging.LogRecord("infermeter.gpu", logging.WARNING, "", 0, "%s", (message,), error)
    made.created, made.msecs = 1_893_456_000.25, 250
    return made


def test_logfmt() -> None:
    """Quotes where something could be taken for something else."""
    assert _Lines("logfmt").format(record("well")) == (
        "ts=2030-01-01T00:00:00.250Z level=warning logger=infermeter.gpu msg=well"
    )
    assert _Lines("logfmt").format(record('two "words"\n')).endswith(r'msg="two \"words\"\n"')


def test_json() -> None:
    """One object."""
    assert json.loads(_Lines("json").format(record("a b"))) == {
        "ts": "2030-01-01T00:00:00.250Z",
        "level": "warning",
        "logger": "infermeter.gpu",
        "msg": "a b",
    }


@pytest.mark.parametrize("kind", FORMATS)
@given(st.text())
def test_whatever_is_said(kind: str, text: str) -> None:
    """Stays on its line, with its traceback, and can be read back."""
    line = _Lines(kind).format(record(text, failed=True))
    assert "\n" not in line
    assert "\r" not in line
    if kind == "json":
        found = json.loads(line)
        assert found["msg"] == text
        assert found["exception"].startswith("Traceback")
    else:
        assert len(shlex.split(line.replace("'", "_"))) == 5
