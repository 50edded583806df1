"""Which format who gets, with the headers that real scrapers send."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infermeter.negotiation import negotiate

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
OPEN_METRICS = "application/openmetrics-text"
# What each Prometheus sends, and what it gets.
SCRAPERS = {
    "2.42": (
        f"{OPEN_METRICS};version=1.0.0,{OPEN_METRICS};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "openmetrics",
    ),
    "2.42 with native histograms": (
        f"{PROTOBUF},{OPEN_METRICS};version=1.0.0;q=0.8,{OPEN_METRICS};version=0.0.1;q=0.75,"
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "protobuf",
    ),
    "2.53": (
        f"{OPEN_METRICS};version=1.0.0;q=0.5,{OPEN_METRICS};version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "openmetrics",
    ),
    "2.53 with native histograms": (
        f"{PROTOBUF};q=0.5,{OPEN_METRICS};version=1.0.0;q=0.4,{OPEN_METRICS};version=0.0.1;q=0.3,"
        "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        "protobuf",
    ),
    "3": (
        f"{OPEN_METRICS};version=1.0.0;escaping=allow-utf-8;q=0.6,{OPEN_METRICS};version=0.0.1;q=0.5,"
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "openmetrics",
    ),
    "3 with native histograms": (
        f"{PROTOBUF};escaping=allow-utf-8;q=0.6,{OPEN_METRICS};version=1.0.0;escaping=allow-utf-8;q=0.5,"
        f"{OPEN_METRICS};version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
        "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        "protobuf",
    ),
    "3 told to scrape text": ("text/plain;version=0.0.4;q=0.6,*/*;q=0.5", "text"),
    "before 2.5": ("text/plain;version=0.0.4;q=1,*/*;q=0.1", "text"),
    "a browser": ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", "text"),
    "curl": ("*/*", "text"),
}


@pytest.mark.parametrize(("accept", "expected"), SCRAPERS.values(), ids=SCRAPERS)
def test_scrapers_get_what_they_like_best(accept: str, expected: str) -> None:
    """The header as it is sent, in one line."""
    assert negotiate(accept) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (f"{PROTOBUF};q=0.3,{OPEN_METRICS};q=0.9", "openmetrics"),
        (f"{OPEN_METRICS};q=0.3,text/plain;q=0.4", "text"),
        (f"{OPEN_METRICS};q=0.30,text/plain;q=.4", "text"),
        (f"text/plain;q=0.9,{PROTOBUF}", "protobuf"),
        (f"{OPEN_METRICS};q=0,text/plain;q=0.001", "text"),
        (f"{PROTOBUF};q=0", "text"),
        (f"{PROTOBUF};q=0.000,{OPEN_METRICS};q=0.0", "text"),
    ],
)
def test_quality_decides(accept: str, expected: str) -> None:
    """Whatever the order; 0 is never."""
    assert negotiate(accept) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (f"{OPEN_METRICS};q=0.5,*/*;q=0.8", "text"),
        (f"*/*,{OPEN_METRICS}", "openmetrics"),
        ("*/*,text/plain;q=0", "openmetrics"),
        (f"*/*,text/plain;q=0,{OPEN_METRICS};q=0", "protobuf"),
        ("application/*", "openmetrics"),
        (f"application/*;q=0.5,{PROTOBUF}", "protobuf"),
        (f"application/*,{OPEN_METRICS};q=0", "protobuf"),
        ("text/*,application/*;q=0.9", "text"),
        (f"{OPEN_METRICS};version=1.0.0;q=0.2,{OPEN_METRICS};q=0.9,text/plain;q=0.5", "text"),
        ("application/vnd.google.protobuf", "protobuf"),
    ],
)
def test_the_most_specific_range_decides(accept: str, expected: str) -> None:
    """What is said about a type goes before what a wildcard says, and a type with its version before one without."""
    assert negotiate(accept) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (f"{OPEN_METRICS},text/plain", "openmetrics"),
        (f"text/plain,{OPEN_METRICS}", "text"),
        (f"text/plain;version=0.0.4,{OPEN_METRICS};version=1.0.0", "text"),
        (f"{OPEN_METRICS},{PROTOBUF}", "openmetrics"),
    ],
)
def test_of_equals_the_first_is_taken(accept: str, expected: str) -> None:
    """As those do who ignore qualities and take the first."""
    assert negotiate(accept) == expected


@pytest.mark.parametrize(
    "accept",
    [
        f"{OPEN_METRICS};version=2.0.0",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=compact-text",
        "application/vnd.google.protobuf;proto=io.prometheus.write.v2.Request;encoding=delimited",
    ],
)
def test_a_version_that_is_not_here_is_not_given(accept: str) -> None:
    """Neither instead of text, nor for all its quality."""
    assert negotiate(accept) == "text"
    assert negotiate(f"{accept},{OPEN_METRICS};version=0.0.1;q=0.1") == "openmetrics"


@pytest.mark.parametrize(
    "accept",
    [
        f" {OPEN_METRICS} ; version = 1.0.0 ; charset=utf-8 , text/plain ; q = 0.5",
        f'{OPEN_METRICS};version="1.0.0"',
        f"{OPEN_METRICS.upper()};VERSION=1.0.0;Q=1.000",
        f"{OPEN_METRICS};charset=utf-8;escaping=underscores;foo",
        f'{OPEN_METRICS};note="a, b; q=0",text/plain;q=0.5',
        f"nonsense,,;;,{OPEN_METRICS}",
        f"{OPEN_METRICS};;;q=0.1",
    ],
)
def test_how_it_is_written_does_not_matter(accept: str) -> None:
    """Blanks, capitals, quotes and parameters of others are tolerated."""
    assert negotiate(accept) == "openmetrics"


@pytest.mark.parametrize("quality", ["", "x", "2", "-1", "1.5", "nan", "inf", "0_1", "\u0660", "1e-3"])
def test_a_range_of_no_quality_is_no_range(quality: str) -> None:
    """It is as if it had not been written."""
    assert negotiate(f"{OPEN_METRICS};q={quality}") == "text"
    assert negotiate(f"{OPEN_METRICS};q={quality},{PROTOBUF};q=0.1") == "protobuf"


@given(
    st.one_of(
        st.none(),
        st.text(),
        st.text(alphabet=',;=*/" \\q01.'),
        st.lists(st.sampled_from([PROTOBUF, OPEN_METRICS, "*/*", "text/plain", ";q=", "0.5", ",", ";", '"', "\\"])).map(
            "".join
        ),
    )
)
@example(None)
@example("")
@example(";")
@example('"')
@example("\ud800")
def test_anything_gets_something(accept: str | None) -> None:
    """No header is an error."""
    assert negotiate(accept) in {"protobuf", "openmetrics", "text"}


@pytest.mark.parametrize(
    "piece",
    [",", ";", '"', '\\"', "a", "a,", ";q=0.1", '",', "*/*,", f"{OPEN_METRICS};q=1,", "text/plain;q=0.", "0", '"\\'],
)
def test_a_hostile_header_takes_no_longer_than_its_length(piece: str) -> None:
    """64 KiB are read in less than half a second, where a few milliseconds are usual."""
    accept = piece * (65536 // len(piece))
    started = time.perf_counter()
    for start in ("", f"{OPEN_METRICS};", f"{OPEN_METRICS};q=0.", '"'):
        negotiate(start + accept)

    assert time.perf_counter() - started < 4 * 0.5
