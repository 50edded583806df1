"""Every test has a recorder of its own; what it watches is given back when the test ends."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from infermeter import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.register_assert_rewrite("tests.integrations.contract")

# Before any of the libraries is imported: no test talks to the world.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "1",
}


@pytest.fixture
def new_recorder() -> Iterator[Callable[[], Recorder]]:
    """For tests that need several recorders."""
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder(service="test", registry=CollectorRegistry()))
        return made[-1]

    yield make
    for one in made:
        one.uninstrument()


@pytest.fixture
def recorder(new_recorder: Callable[[], Recorder]) -> Recorder:
    """A recorder that watches nothing yet."""
    return new_recorder()


class Clock:
    """What the library takes for the time, which passes only when the test says so."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def passes(self, seconds: float) -> None:
        """So many seconds pass."""
        self.time += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """For what is to be exact; asked for before anything is watched."""
    made = Clock()
    for name, module in list(sys.modules.items()):
        if name.startswith("infermeter.") and "now" in vars(module):
            monkeypatch.setattr(module, "now", made)
    return made
