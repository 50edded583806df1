"""Which format a scraper gets: what the library's own pages give it, for every header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter import negotiation
from infermeter_exporters.accept import CONTENT_TYPES, negotiate

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
RANGES = (
    "text/plain",
    "text/*",
    "application/*",
    "*/*",
    "text/html",
    "application/openmetrics-text",
    "application/openmetrics-text;version=1.0.0",
    "application/openmetrics-text;version=2.0.0",
    "text/plain;version=0.0.4",
    "text/plain;version=1.0.0;escaping=allow-utf-8",
    PROTOBUF,
    "application/vnd.google.protobuf;proto=other",
    "",
)
QUALITIES = ("", ";q=0", ";q=0.3", ";q=0.5", "; q=1")
headers = st.lists(st.tuples(st.sampled_from(RANGES), st.sampled_from(QUALITIES)), max_size=6)


@given(headers)
def test_the_same_as_the_library(written: list[tuple[str, str]]) -> None:
    """Two pages of one service come in one format."""
    header = ",".join(kind + quality for kind, quality in written)
    assert negotiate(header) == negotiation.negotiate(header)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "text"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "openmetrics",
        ),
        (PROTOBUF + ";q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1", "protobuf"),
    ],
)
def test_what_servers_and_browsers_say(header: str, expected: str) -> None:
    """Prometheus 3, one that takes native histograms, and browsers."""
    assert negotiate(header) == expected


def test_types_are_those_of_the_library() -> None:
    """The answer says what it is in the same words."""
    assert CONTENT_TYPES == negotiation.CONTENT_TYPES
