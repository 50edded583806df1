"""Pages in all formats, read back by the parsers of Prometheus' own client."""

from __future__ import annotations

import math
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text

from infermeter_exporters.families import Family, Samples, by_name
from infermeter_exporters.page import Page
from tests.exposition.test_protobuf import decode, messages

if TYPE_CHECKING:
    from infermeter_exporters.accept import Format

__all__ = ["messages"]

FAMILIES = by_name(
    Family("things_total", "counter", "Things that were counted.", ("kind", "place")),
    Family("heat_celsius", "gauge", "How warm it is, in degrees Celsius."),
    Family("maker_info", "info", "Who made it.", ("name",)),
)
NAMES = {
    "things_total": ("counter", "things"),
    "heat_celsius": ("gauge", "heat_celsius"),
    "maker_info": ("info", "maker"),
}
words = st.text(st.characters(codec="utf-8"), max_size=8)
samples = st.fixed_dictionaries(
    {},
    optional={
        "things_total": st.dictionaries(st.tuples(words, words), st.floats(0, allow_infinity=False), max_size=4),
        "heat_celsius": st.dictionaries(st.just(()), st.floats(), max_size=1),
        "maker_info": st.dictionaries(st.tuples(words), st.just(1.0), max_size=3),
    },
)


def same(found: float, expected: float) -> bool:
    """Equal, where nothing is equal to nothing too."""
    return found == expected or (math.isnan(found) and math.isnan(expected))


@given(st.lists(samples, min_size=2, max_size=4), st.sampled_from(["text", "openmetrics", "protobuf"]))
def test_a_page_does_not_depend_on_those_before(pages: list[Samples], format_: Format) -> None:
    """What is as it was is not written again, and all the same right; who asks in another format has no part in it."""
    page = Page(FAMILIES)
    for one in pages:
        page.write(one, "text")
        assert page.write(one, format_) == Page(FAMILIES).write(one, format_)


@given(samples)
def test_text_is_read_back(given_samples: Samples) -> None:
    """Every series with its labels and value, whatever is in them; and nothing else."""
    page = Page(FAMILIES).write(given_samples, "text").decode()
    found = {
        (sample.name, tuple(sample.labels.values())): sample.value for family in text(page) for sample in family.samples
    }
    expected = {(name, labels): value for name, series in given_samples.items() for labels, value in series.items()}
    assert found.keys() == expected.keys()
    assert all(same(value, expected[key]) for key, value in found.items())


@given(samples)
def test_open_metrics_is_read_back(given_samples: Samples) -> None:
    """The same, with the kinds that this format has and the names that families have in it."""
    page = Page(FAMILIES).write(given_samples, "openmetrics").decode()
    families = list(open_metrics(page))
    assert [(family.type, family.name) for family in families] == [
        NAMES[name] for name in FAMILIES if given_samples.get(name)
    ]
    assert sum(len(family.samples) for family in families) == sum(map(len, given_samples.values()))


@given(given_samples=samples)
def test_protobuf_is_read_back(messages: dict[str, Any], given_samples: Samples) -> None:
    """By the runtime of protobuf, with Prometheus' description of its messages."""
    page = Page(FAMILIES).write(given_samples, "protobuf")
    found = {}
    for family in decode(messages, page):
        assert (family.help, family.type) == (FAMILIES[family.name].help, 0 if family.name == "things_total" else 1)
        for metric in family.metric:
            labels = {pair.name: pair.value for pair in metric.label}
            value = metric.counter.value if family.type == 0 else metric.gauge.value
            found[family.name, tuple(labels[name] for name in FAMILIES[family.name].labels)] = value
    expected = {(name, labels): value for name, series in given_samples.items() for labels, value in series.items()}
    assert found.keys() == expected.keys()
    assert all(same(value, expected[key]) for key, value in found.items())


def test_a_page_as_it_is() -> None:
    """In the order of the families, whatever the order of the samples; series sorted, values as floats."""
    shown: Samples = {
        "heat_celsius": {(): math.inf},
        "things_total": {("b", 'say "hi"\\'): 3, ("a", "two\nlines"): 1e21},
        "maker_info": {},
    }
    assert Page(FAMILIES).write(shown, "text").decode() == (
        "# HELP things_total Things that were counted.\n"
        "# TYPE things_total counter\n"
        'things_total{kind="a",place="two\\nlines"} 1e+21\n'
        'things_total{kind="b",place="say \\"hi\\"\\\\"} 3.0\n'
        "# HELP heat_celsius How warm it is, in degrees Celsius.\n"
        "# TYPE heat_celsius gauge\n"
        "heat_celsius +Inf\n"
    )


@pytest.mark.parametrize("format_", ["text", "openmetrics", "protobuf"])
def test_what_is_no_text_is_written_all_the_same(format_: Format) -> None:
    """A process may be called by bytes that are no UTF-8."""
    page = Page(FAMILIES).write({"maker_info": {("\udcff",): 1.0}}, format_)
    assert b"?" in page


def test_the_linter_of_prometheus_is_content(promtool: str) -> None:
    """With names and helps as ours."""
    page = Page(FAMILIES).write(
        {"things_total": {("a", "b"): 1}, "heat_celsius": {(): 2}, "maker_info": {("m",): 1}}, "text"
    )
    found = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False, timeout=60)
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


def test_two_families_of_one_name() -> None:
    """Are a mistake where they are written down."""
    with pytest.raises(ValueError, match="more than one family is called a"):
        by_name(Family("a", "gauge", "A."), Family("b", "gauge", "B."), Family("a", "gauge", "A."))
