"""Messages against the protobuf runtime, which decodes them, and foreign families against their page of text."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Metric, Summary, core
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import BucketSpan, Exemplar, NativeHistogram, Timestamp

from infermeter import protobuf
from infermeter.native import Native, Sparse, width

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTO = Path(__file__).with_name("metrics.proto")
HIGHEST = 2**64 - 1
NUMBERS = {"counter": 0, "gauge": 1, "summary": 2, "untyped": 3, "histogram": 4}


@pytest.fixture(scope="session")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The message classes of `metrics.proto` by name; without the packages skipped, and in CI failed."""
    try:
        import_module("grpc_tools.protoc")
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{error}: install protobuf and grpcio-tools")
    compiled = tmp_path_factory.mktemp("protobuf") / "metrics.desc"
    # A description instead of a module, which would insist on the runtime of the compiler's own version.
    command = [
        sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}", "--include_imports",
        f"--descriptor_set_out={compiled}", PROTO.name,
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=60)
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        pool.Add(file)
    found = message_factory.GetMessageClassesForFiles([PROTO.name], pool)
    return {name.rpartition(".")[2]: message for name, message in found.items()}


def decode(messages: dict[str, Any], page: bytes) -> Iterator[Any]:
    """The families of a page, each after its length."""
    while page:
        length = shift = 0
        while True:
            byte, page = page[0], page[1:]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        assert length <= len(page)
        yield messages["MetricFamily"].FromString(page[:length])
        page = page[length:]


def the_series(messages: dict[str, Any], kind: str, series: bytes) -> Any:
    """The only series of a family of its own."""
    (family,) = decode(messages, protobuf.family("f", "help", kind, [series]))
    assert (family.name, family.help, family.type) == ("f", "help", NUMBERS[kind])
    (one,) = family.metric
    return one


LABELS = {"service": "a", "model": 'b"\\\n', "version": "ü\U0001f600", "empty": ""}
numbers = st.floats(allow_nan=False)
counts = st.one_of(st.integers(0, 300), st.integers(0, HIGHEST), st.sampled_from([127, 128, 2**14, 2**63, HIGHEST]))
times = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
moments = st.one_of(
    st.none(),
    st.builds(Timestamp, st.integers(0, 2**40), st.integers(0, 10**9 - 1)),
    st.integers(0, 2**33).map(lambda quarters: quarters / 4),
)
exemplars = st.builds(Exemplar, st.dictionaries(st.sampled_from(["trace_id", "span"]), texts), numbers, moments)


def pairs(labels: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in sorted(labels.items())]


def shown(exemplar: Exemplar | None) -> Any:
    """The fields of an exemplar."""
    if exemplar is None:
        return None
    time: Any = exemplar.timestamp
    if isinstance(time, float):
        time = Timestamp(int(time), time % 1 * 10**9)
    moment = time and {"seconds": time.sec, "nanos": time.nsec}
    return {"label": pairs(exemplar.labels), "value": exemplar.value, "timestamp": moment}


@settings(max_examples=100, deadline=None)
@given(
    value=numbers,
    timestamp=times,
    exemplar=st.one_of(st.none(), exemplars),
    count=counts,
    quantiles=st.lists(st.tuples(st.floats(0, 1), numbers), max_size=4),
)
def test_counters_gauges_and_summaries(
    messages: dict[str, Any],
    value: float,
    timestamp: int | None,
    exemplar: Exemplar | None,
    count: int,
    quantiles: list[tuple[float, float]],
) -> None:
    """Every kind has its field, which is there whatever its value."""
    encoded = protobuf.labels(LABELS)
    parts = [{"quantile": quantile, "value": number} for quantile, number in quantiles]
    counted = protobuf.counter(encoded, value, exemplar, timestamp)
    summed = protobuf.summary(encoded, count, value, quantiles, timestamp)
    for kind, expected, series in (
        ("gauge", {"value": value}, protobuf.gauge(encoded, value, timestamp)),
        ("untyped", {"value": value}, protobuf.untyped(encoded, value, timestamp)),
        ("counter", {"value": value, "exemplar": shown(exemplar)}, counted),
        ("summary", {"sample_count": count, "sample_sum": value, "quantile": parts}, summed),
    ):
        metric = messages["Metric"](label=pairs(LABELS), timestamp_ms=timestamp, **{kind: expected})
        assert the_series(messages, kind, series) == metric


extremes = st.sampled_from([2**63 - 1, -(2**63), 63, 64, -64, -65])
deltas = st.lists(st.one_of(st.integers(-70, 70), st.integers(-(2**62), 2**62), extremes), max_size=20)
spans = st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1)), max_size=4)
arrays = deltas.map(lambda listed: np.array(listed, np.int64))
widths = st.floats(0, 1, exclude_min=True)
sparse = st.builds(Sparse, st.integers(-4, 8), widths, counts, spans, arrays, spans, arrays)
edges = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(
    buckets=st.lists(st.tuples(edges, counts, st.one_of(st.none(), exemplars)), max_size=4),
    total=numbers,
    last=st.one_of(st.none(), exemplars),
    native=st.one_of(st.none(), sparse),
    beside=st.lists(exemplars, max_size=2),
)
def test_histograms(
    messages: dict[str, Any],
    buckets: list[tuple[float, int, Exemplar | None]],
    total: float,
    last: Exemplar | None,
    native: Sparse | None,
    beside: list[Exemplar],
) -> None:
    """Classic, native, and both in one message, with exemplars."""
    all_buckets = [*buckets, *([] if last is None else [(math.inf, 400, last)])]
    classic = [
        {"upper_bound": edge, "cumulative_count": number, "exemplar": shown(exemplar)}
        for edge, number, exemplar in all_buckets
    ]
    fields: dict[str, Any] = {"sample_count": 400, "sample_sum": total, "bucket": classic}
    if native is not None:
        fields |= {"schema": native.schema, "zero_threshold": native.zero_threshold, "zero_count": native.zero_count}
        for sign, runs, changes in (
            ("positive", native.spans, native.deltas),
            ("negative", native.negative_spans, native.negative_deltas),
        ):
            fields[f"{sign}_span"] = [{"offset": offset, "length": length} for offset, length in runs]
            fields[f"{sign}_delta"] = changes.tolist()
        fields["exemplars"] = list(map(shown, beside))
    expected = messages["Metric"](label=pairs(LABELS), histogram=fields)
    series = protobuf.histogram(
        protobuf.labels(LABELS),
        400,
        total,
        edges=[edge for edge, _, _ in buckets],
        cumulative=[number for _, number, _ in buckets],
        exemplars=[*(exemplar for _, _, exemplar in buckets), last],
        sparse=native,
        native_exemplars=beside,
    )
    assert the_series(messages, "histogram", series) == expected


def test_a_recorded_histogram(messages: dict[str, Any]) -> None:
    """The buckets that a scraper finds hold what was recorded, and an empty one is still native."""
    histogram = Native(np.zeros(width()))
    empty = the_series(messages, "histogram", protobuf.histogram(b"", 0, 0.0, sparse=histogram.sparse())).histogram
    assert (empty.sample_count, empty.schema, empty.zero_threshold, len(empty.positive_span)) == (0, 3, 2.0**-128, 0)

    nothing = Sparse(3, 0.0, 0, [], np.zeros(0, np.int64))  # without a span it would pass for a classic histogram
    empty = the_series(messages, "histogram", protobuf.histogram(b"", 0, 0.0, sparse=nothing)).histogram
    assert [(span.offset, span.length) for span in empty.positive_span] == [(0, 0)]

    histogram.add(np.array([0.0, 0.3, 0.3, 1.0, 1.5]))
    encoded = protobuf.histogram(b"", histogram.count, histogram.total, sparse=histogram.sparse())
    found = the_series(messages, "histogram", encoded).histogram
    assert (found.sample_count, found.zero_count) == (5, 1)
    assert found.sample_sum == pytest.approx(3.1)
    assert [(span.offset, span.length) for span in found.positive_span] == [(-13, 1), (12, 1), (4, 1)]
    assert list(found.positive_delta) == [2, -1, 0]


def test_names_and_texts_that_no_message_can_carry(messages: dict[str, Any]) -> None:
    """One illegal name would cost the whole scrape: it is spelt as in the text format; lone surrogates are replaced."""
    series = protobuf.gauge(protobuf.labels({"1a.b:c": "\ud800"}), 1)
    (family,) = decode(messages, protobuf.family("2x.y:z", "\udfff", "info", [series]))

    assert (family.name, family.help, family.type) == ("_x_y:z", "?", 1)
    assert [(label.name, label.value) for label in family.metric[0].label] == [("_a_b_c", "?")]


# --- foreign families -------------------------------------------------------------------------------------------------

Stored = dict[tuple[str, frozenset[tuple[str, str]]], str]


def spelt(number: float) -> str:
    """An edge as Go prints it: shortest digits, an exponent from 1e+06 and below 1e-04."""
    if math.isinf(number) or number == 0:
        return "0.0" if number == 0 else "+Inf" if number > 0 else "-Inf"
    if 1e-4 <= abs(number) < 1e6:
        return np.format_float_positional(number, trim="0")
    return np.format_float_scientific(number, trim="-", exp_digits=2)


def stored(messages: dict[str, Any], page: bytes) -> Stored:
    """What Prometheus makes of a page of messages."""
    found: list[tuple[str, dict[str, str], float]] = []
    for family in decode(messages, page):
        for one in family.metric:
            labels = {label.name: label.value for label in one.label}
            if one.HasField("histogram"):
                shown = one.histogram
                edges = {bucket.upper_bound: bucket.cumulative_count for bucket in shown.bucket}
                edges.setdefault(math.inf, shown.sample_count)
                found += [(f"{family.name}_bucket", labels | {"le": spelt(edge)}, n) for edge, n in edges.items()]
            elif one.HasField("summary"):
                shown = one.summary
                found += [(family.name, labels | {"quantile": spelt(q.quantile)}, q.value) for q in shown.quantile]
            else:
                (field,) = {"gauge", "counter", "untyped"} & {field.name for field, _ in one.ListFields()}
                found.append((family.name, labels, getattr(one, field).value))
                continue
            found.append((f"{family.name}_count", labels, shown.sample_count))
            found.append((f"{family.name}_sum", labels, shown.sample_sum))
    series = {named(name, labels): repr(float(value)) for name, labels, value in found}
    assert len(series) == len(found), "a series is there twice"
    return series


def named(name: str, labels: dict[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
    """What identifies a series in Prometheus, to which an empty label is none."""
    return name, frozenset((label, value) for label, value in labels.items() if value)


def on_the_page(registry: CollectorRegistry) -> Stored:
    """The samples of the page of text."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = [sample for family in families for sample in family.samples]
    return {named(sample.name, sample.labels): repr(float(sample.value)) for sample in samples}


def foreign_registry() -> CollectorRegistry:
    """One family of each kind that prometheus_client has."""
    registry = CollectorRegistry()
    Counter("jobs", "jobs", ["kind"], registry=registry).labels("a").inc(2.5)
    Gauge("depth", 'with "quotes", a \\ and\na new line', ["label"], registry=registry).labels('"\\\n').set(-3)
    Gauge("nothing", "not a number", registry=registry).set(math.nan)
    histogram = Histogram("taken", "-", ["model"], registry=registry, buckets=[1e-9, 0.0001, 1, 1e6, 12345678.5, 1e22])
    for value in (0.5, 3, 2e6, 1e30):
        histogram.labels("m").observe(value)
    Histogram("idle", "never observed", registry=registry)
    Summary("size", "-", registry=registry).observe(7)
    Info("build", "-", registry=registry).info({"version": "1", "empty": ""})
    Enum("state", "-", states=["on", "off"], registry=registry).state("off")
    return registry


def test_a_foreign_registry_is_stored_as_from_its_page_of_text(messages: dict[str, Any]) -> None:
    """No series comes or goes, and none changes, when a scraper changes the format."""
    registry = foreign_registry()
    page = b"".join(protobuf.convert(family) for family in registry.collect())

    assert stored(messages, page) == on_the_page(registry)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (core.CounterMetricFamily("jobs", "-", 2, created=1), {"jobs_total": "counter", "jobs_created": "gauge"}),
        (core.InfoMetricFamily("build", "-", {"version": "1"}), {"build_info": "gauge"}),
        (core.StateSetMetricFamily("state", "-", {"on": True}), {"state": "gauge"}),
        (core.HistogramMetricFamily("taken", "-", [("0.5", 1), ("+Inf", 3)], 4.5), {"taken": "histogram"}),
        (core.HistogramMetricFamily("spelt", "-", [("1", 1), ("+Inf", 3)], 4.5),
         {"spelt_bucket": "untyped", "spelt_count": "untyped", "spelt_sum": "untyped"}),
        (core.HistogramMetricFamily("negative", "-", [("-1.0", 1), ("+Inf", 3)], 4.5), {"negative_bucket": "untyped"}),
        (core.GaugeHistogramMetricFamily("ages", "-", [("1.0", 1), ("+Inf", 3)], 7.5),
         {"ages_bucket": "gauge", "ages_gcount": "gauge", "ages_gsum": "gauge"}),
        (core.SummaryMetricFamily("size", "-", 2, 3), {"size": "summary"}),
        (core.SummaryMetricFamily("size", "-", 1.5, 3),  # type: ignore[arg-type]
         {"size_count": "untyped", "size_sum": "untyped"}),
    ],
    ids=lambda case: case.name if isinstance(case, Metric) else "",
)  # fmt: skip
def test_kinds_of_foreign_families(messages: dict[str, Any], family: Metric, expected: dict[str, str]) -> None:
    """What can be a message of its kind is one; what Prometheus has no kind for is a gauge, and the rest of none."""
    found = {message.name: message.type for message in decode(messages, protobuf.convert(family))}

    assert found == {name: NUMBERS[kind] for name, kind in expected.items()}


SUFFIXES = ["", "_total", "_created", "_info", "_bucket", "_count", "_sum", "_gcount", "_gsum", "_other"]
EDGES = [
    "1.0",
    "1",
    "+Inf",
    "Inf",
    "inf",
    "0.5",
    "-1.0",
    "0.0",
    "-0.0",
    "1e+06",
    "1000000.0",
    "-1000000.0",
    "x",
    "",
    "NaN",
]
KINDS = ["counter", "gauge", "summary", "histogram", "gaugehistogram", "unknown", "info", "stateset"]


@st.composite
def families(draw: st.DrawFn) -> Metric:
    """A family of samples that hardly fit together, none twice."""
    family = Metric("x", "-", draw(st.sampled_from(KINDS)))
    suffixes = draw(st.sampled_from([["_bucket", "_count", "_sum"], ["", "_count", "_sum"], SUFFIXES]))
    seen = set()
    for _ in range(draw(st.integers(0, 8))):
        label = draw(st.sampled_from(["le", "quantile", "a"]))
        name = "x" + draw(st.sampled_from(suffixes))
        labels = draw(st.sampled_from([{}, {"b": "c"}])) | draw(
            st.sampled_from([{}, {label: draw(st.sampled_from(EDGES))}])
        )
        if named(name, labels) not in seen:
            seen.add(named(name, labels))
            value = draw(st.one_of(st.integers(0, 3), st.sampled_from([0.5, -1, math.nan, math.inf, 2**64])))
            family.add_sample(name, labels, value, draw(st.sampled_from([None, None, None, 1.5])))
    return family


@settings(max_examples=1000, deadline=None)
@given(families())
def test_whatever_a_foreign_family_holds_is_stored_as_it_says(messages: dict[str, Any], family: Metric) -> None:
    """However its samples are named, labelled and valued."""
    expected = {named(sample.name, sample.labels): repr(float(sample.value)) for sample in family.samples}

    assert stored(messages, protobuf.convert(family)) == expected


def test_times_and_exemplars_of_a_foreign_family(messages: dict[str, Any]) -> None:
    """Both go with the series and buckets that they belong to."""
    exemplar = Exemplar({"trace_id": "abc"}, 0.7, 1700000000.25)
    counter = Metric("jobs", "-", "counter")
    counter.add_sample("jobs_total", {}, 3, 1700000001.5, exemplar)
    histogram = core.HistogramMetricFamily("taken", "-", [("0.5", 0), ("1.0", 1, exemplar), ("+Inf", 2, exemplar)], 9)
    (jobs,) = next(decode(messages, protobuf.convert(counter))).metric
    (taken,) = next(decode(messages, protobuf.convert(histogram))).metric

    assert jobs.timestamp_ms == 1700000001500
    assert [bucket.HasField("exemplar") for bucket in taken.histogram.bucket] == [False, True, True]
    for found in (jobs.counter.exemplar, taken.histogram.bucket[1].exemplar, taken.histogram.bucket[2].exemplar):
        assert [(label.name, label.value) for label in found.label] == [("trace_id", "abc")]
        assert (found.value, found.timestamp.seconds, found.timestamp.nanos) == (0.7, 1700000000, 250000000)


@pytest.mark.parametrize("classic", [[], [("_bucket", {"le": "+Inf"}, 6), ("_count", {}, 6), ("_sum", {}, 2.5)]])
def test_native_histograms_of_a_foreign_family(messages: dict[str, Any], classic: list[Any]) -> None:
    """They stay native, beside classic buckets of the same series too."""
    runs = (BucketSpan(-2, 2), BucketSpan(1, 1)), (BucketSpan(0, 1),)
    family = Metric("taken", "-", "histogram")
    family.add_sample("taken", {}, 0, native_histogram=NativeHistogram(6, 2.5, 3, 0.001, 1, *runs, (1, 1, -1), (1,)))
    for ending, labels, value in classic:
        family.add_sample("taken" + ending, labels, value)
    (one,) = next(decode(messages, protobuf.convert(family))).metric
    found = one.histogram

    assert (found.sample_count, found.sample_sum, found.schema, found.zero_count) == (6, 2.5, 3, 1)
    assert [(span.offset, span.length) for span in found.positive_span] == [(-2, 2), (1, 1)]
    assert (list(found.positive_delta), list(found.negative_delta)) == ([1, 1, -1], [1])
