"""What the framework tests share."""

import pytest
from prometheus_client import CollectorRegistry

import infermeter


@pytest.fixture
def recorder() -> infermeter.Recorder:
    """A recorder of the test's own."""
    return infermeter.Recorder(service="test", registry=CollectorRegistry())
