"""Every test has a recorder of its own; what it watches is given back when the test ends."""

from __future__ import annotations

import os
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
