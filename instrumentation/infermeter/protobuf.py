"""Metrics as `io.prometheus.client.MetricFamily` messages, the only format in which native histograms travel.

The functions named after kinds give one series, tag and length included, which a caller may keep for as long as the
series does not change; `family` puts series under a name. `convert` does all of it for what a foreign collector gives.
"""

import math
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Metric
from prometheus_client.samples import Exemplar, NativeHistogram, Sample, Timestamp
from prometheus_client.utils import floatToGoString

from infermeter.native import Sparse

_TYPES = {
    "counter": 0,
    "gauge": 1,
    "summary": 2,
    "untyped": 3,
    "histogram": 4,
    # What Prometheus has no type for.
    "info": 1,
    "stateset": 1,
    "unknown": 3,
}
# The text format shows samples that end so as families of their own.
_GAUGES_BESIDE = {"_created", "_gsum", "_gcount"}
# Kinds whose samples make up one series together: what the parts are called, and the label that tells them apart.
_PARTS = {"histogram": ("_bucket", "le"), "summary": ("", "quantile")}
# The others: what their samples are called, and what they are to Prometheus.
_PLAIN = {
    "counter": ("_total", "counter"),
    "gauge": ("", "gauge"),
    "stateset": ("", "gauge"),
    "info": ("_info", "gauge"),
    "gaugehistogram": ("_bucket", "gauge"),
}
_SHIFTS = np.arange(0, 70, 7, dtype=np.uint64)
_LAST = np.uint64(0x80)  # of the groups of 7 bits that a number is written in, only the last one is below this
_ILLEGAL_IN_NAME = re.compile(r"^[0-9]|[^a-zA-Z0-9_:]")
_ILLEGAL_IN_LABEL = re.compile(r"^[0-9]|[^a-zA-Z0-9_]")

_double = struct.Struct("<d").pack
_spelt: Callable[[float], str] = floatToGoString


def labels(pairs: Mapping[str, str]) -> bytes:
    """The labels of a series; what no label name may contain becomes an underscore, as in the text format."""
    return b"".join(
        _framed(b"\x0a", _text(b"\x0a", _ILLEGAL_IN_LABEL.sub("_", name)) + _text(b"\x12", value))
        for name, value in sorted(pairs.items())
    )


def counter(encoded: bytes, value: float, exemplar: Exemplar | None = None, timestamp: int | None = None) -> bytes:
    """A series of a counter; `encoded` is what `labels` gave, `timestamp` in milliseconds since 1970."""
    shown = b"" if exemplar is None else _exemplar(b"\x12", exemplar)
    return _series(encoded, b"\x1a", b"\x09" + _double(value) + shown, timestamp)


def gauge(encoded: bytes, value: float, timestamp: int | None = None) -> bytes:
    """A series of a gauge, or of an info or state set, which are gauges to Prometheus."""
    return _series(encoded, b"\x12", b"\x09" + _double(value), timestamp)


def untyped(encoded: bytes, value: float, timestamp: int | None = None) -> bytes:
    """A series of an unknown kind."""
    return _series(encoded, b"\x2a", b"\x09" + _double(value), timestamp)


def summary(
    encoded: bytes,
    count: int,
    total: float,
    quantiles: Iterable[tuple[float, float]] = (),
    timestamp: int | None = None,
) -> bytes:
    """A series of a summary, with pairs of a quantile and its value."""
    body = b"\x08" + _varint(count) + b"\x11" + _double(total)
    body += b"".join(b"\x1a\x12\x09" + _double(quantile) + b"\x11" + _double(value) for quantile, value in quantiles)
    return _series(encoded, b"\x22", body, timestamp)


def histogram(
    encoded: bytes,
    count: int,
    total: float,
    *,
    edges: Sequence[float] = (),
    cumulative: Sequence[int] = (),
    exemplars: Sequence[Exemplar | None] = (),
    sparse: Sparse | None = None,
    native_exemplars: Iterable[Exemplar] = (),
    timestamp: int | None = None,
) -> bytes:
    """A series of a histogram: classic, native, or both.

    Args:
        encoded: what `labels` gave.
        count: number of values.
        total: sum of values.
        edges: inclusive upper bounds, increasing, without infinity.
        cumulative: number of values up to each edge.
        exemplars: one for each edge and one for infinity, None where there is none; or nothing.
        sparse: the native buckets; between them they hold `count` values.
        native_exemplars: Prometheus leaves out those without a time.
        timestamp: in milliseconds since 1970.
    """
    body = [b"\x08", _varint(count), b"\x11", _double(total)]
    if exemplars:
        for edge, number, exemplar in zip((*edges, math.inf), (*cumulative, count), exemplars, strict=True):
            shown = b"" if exemplar is None else _exemplar(b"\x1a", exemplar)
            if shown or edge != math.inf:  # the bucket of infinity is there without being told
                body.append(_framed(b"\x1a", b"\x08" + _varint(number) + b"\x11" + _double(edge) + shown))
    else:
        for edge, number in zip(edges, cumulative, strict=True):
            body.append(_framed(b"\x1a", b"\x08" + _varint(number) + b"\x11" + _double(edge)))
    if sparse is not None:
        spans = sparse.spans
        if not spans and not sparse.zero_threshold:
            spans = [(0, 0)]  # without any of both it would pass for a classic histogram
        body += (
            b"\x28",
            _varint(_zigzag(sparse.schema)),
            b"\x31",
            _double(sparse.zero_threshold),
            b"\x38",
            _varint(sparse.zero_count),
        )
        body += [_span(b"\x4a", offset, length) for offset, length in sparse.negative_spans]
        if len(sparse.negative_deltas):
            body.append(_framed(b"\x52", _packed(sparse.negative_deltas)))
        body += [_span(b"\x62", offset, length) for offset, length in spans]
        if len(sparse.deltas):
            body.append(_framed(b"\x6a", _packed(sparse.deltas)))
        body += [_exemplar(b"\x82\x01", exemplar) for exemplar in native_exemplars]
    return _series(encoded, b"\x3a", b"".join(body), timestamp)


def family(name: str, documentation: str, kind: str, series: Iterable[bytes]) -> bytes:
    """Series of one kind under a name, the length of the message before it: what a page is made of, end to end.

    Args:
        name: as Prometheus shall store it, so with `_total` and `_info`, but without `_bucket`.
        documentation: the help text.
        kind: of the series, in the words of the catalogue or of Prometheus.
        series: what the functions named after the kinds gave.
    """
    head = _text(b"\x0a", _ILLEGAL_IN_NAME.sub("_", name)) + _text(b"\x12", documentation)
    return _framed(b"", b"".join((head, b"\x18", _varint(_TYPES[kind]), *series)))


def convert(metric: Metric) -> bytes:
    """A family of a foreign collector, as one message or several.

    Prometheus stores of them what it stores of the text format: the same names, labels and values. A histogram or
    summary that a message of its kind would change (no sum, counts with fractions, edges spelt `1` instead of `1.0`)
    becomes families of unknown kind, one for each name.
    """
    apart: defaultdict[str, list[Sample]] = defaultdict(list)
    own: list[Sample] = []
    for sample in metric.samples:
        if sample.name.removeprefix(metric.name) in _GAUGES_BESIDE and sample.name.startswith(metric.name):
            apart[sample.name].append(sample)
        else:
            own.append(sample)
    pages = [_own(metric, own)]
    pages += [_plain(metric, name, "gauge", samples) for name, samples in sorted(apart.items())]
    return b"".join(pages)


class _Compound:
    """The samples of one series of a histogram or summary."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float, Sample]] = []  # the label that tells them apart, and what it says
        self.numbers: dict[str, float] = {}
        self.native: NativeHistogram | None = None
        self.timestamps: set[int | None] = set()

    def encode(self, kind: str, encoded: bytes) -> bytes | None:
        """The series, unless it would come out as something else than what the samples say."""
        if len(self.timestamps) != 1:
            return None
        (timestamp,) = self.timestamps
        native = self.native
        sparse = None if native is None else _sparse(native)
        if native is not None and not self.parts and not self.numbers:
            count = _whole(native.count_value)
            exemplars = getattr(native, "nh_exemplars", None) or ()  # which prometheus_client 0.22 does not have
            if sparse is None or count is None:
                return None
            return histogram(
                encoded, count, native.sum_value, sparse=sparse, native_exemplars=exemplars, timestamp=timestamp
            )
        count = _whole(self.numbers.get("_count"))
        total = self.numbers.get("_sum")
        if count is None or total is None or any(label != _canonical(edge) for label, edge, _ in self.parts):
            return None
        edges = [edge for _, edge, _ in self.parts]
        if kind == "summary":
            quantiles = [(edge, sample.value) for _, edge, sample in self.parts]
            return summary(encoded, count, total, quantiles, timestamp)
        cumulative = [_whole(sample.value) for _, _, sample in self.parts]
        counts = [number for number in cumulative if number is not None]
        increasing = all(lower < upper for lower, upper in pairwise(edges))
        if len(counts) < len(cumulative) or not increasing or edges[-1:] != [math.inf] or counts[-1] != count:
            return None
        shown = [sample.exemplar for _, _, sample in self.parts]
        return histogram(
            encoded,
            count,
            total,
            edges=edges[:-1],
            cumulative=counts[:-1],
            exemplars=shown if any(shown) else (),
            sparse=sparse,
            timestamp=timestamp,
        )


def _own(metric: Metric, samples: list[Sample]) -> bytes:
    """What has no other place than under the name of the family."""
    if metric.type in _PARTS:
        series = _compounds(metric, samples)
        if series is not None:
            return family(metric.name, metric.documentation, metric.type, series)
    suffix, kind = _PLAIN.get(metric.type, ("", "untyped"))
    named = metric.name + suffix
    groups: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.name].append(sample)
    return b"".join(_plain(metric, name, kind if name == named else "untyped", group) for name, group in groups.items())


def _compounds(metric: Metric, samples: list[Sample]) -> list[bytes] | None:
    """The series of a histogram or summary; None if one of them does not come out as it should."""
    suffix, label = _PARTS[metric.type]
    compounds: defaultdict[tuple[tuple[str, str], ...], _Compound] = defaultdict(_Compound)
    for sample in samples:
        own = dict(sample.labels)
        ending = sample.name.removeprefix(metric.name)
        told = own.pop(label, None) if ending == suffix and not sample.native_histogram else None
        compound = compounds[tuple(own.items())]
        compound.timestamps.add(_milliseconds(sample))
        if sample.native_histogram:
            compound.native = sample.native_histogram
        elif told is not None:
            try:
                compound.parts.append((told, float(told), sample))
            except ValueError:
                return None
        elif ending in {"_count", "_sum"} and ending not in compound.numbers:
            compound.numbers[ending] = sample.value
        else:
            return None
    series = [compound.encode(metric.type, labels(dict(own))) for own, compound in compounds.items()]
    encoded = [one for one in series if one is not None]
    return encoded if len(encoded) == len(series) else None


def _plain(metric: Metric, name: str, kind: str, samples: list[Sample]) -> bytes:
    """A family of samples that stand alone; native histograms are none."""
    series = []
    for sample in samples:
        encoded, timestamp = labels(sample.labels), _milliseconds(sample)
        if sample.native_histogram:
            continue
        if kind == "counter":
            series.append(counter(encoded, sample.value, sample.exemplar, timestamp))
        else:
            series.append((gauge if kind == "gauge" else untyped)(encoded, sample.value, timestamp))
    return family(name, metric.documentation, kind, series) if series else b""


def _sparse(native: NativeHistogram) -> Sparse | None:
    """The buckets of `native`, unless they hold fractions."""
    zeros = _whole(native.zero_count)
    if zeros is None:
        return None
    return Sparse(
        native.schema,
        native.zero_threshold,
        zeros,
        [(span.offset, span.length) for span in native.pos_spans or ()],
        np.array(native.pos_deltas or (), np.int64),
        [(span.offset, span.length) for span in native.neg_spans or ()],
        np.array(native.neg_deltas or (), np.int64),
    )


def _milliseconds(sample: Sample) -> int | None:
    return None if sample.timestamp is None else int(float(sample.timestamp) * 1000)


def _whole(number: float | None) -> int | None:
    """`number` if it is a count, and exactly that."""
    if number is None or not 0 <= number < 1 << 64 or number != int(number):
        return None
    return int(number)


def _canonical(number: float) -> str:
    """How Prometheus spells the edge or quantile of a message in a label."""
    if number < 0:
        return "-" + _spelt(-number)
    return _spelt(number) if number else "0.0"


def _series(encoded: bytes, tag: bytes, body: bytes, timestamp: int | None) -> bytes:
    time = b"" if timestamp is None else b"\x30" + _varint(timestamp)
    return _framed(b"\x22", encoded + tag + _varint(len(body)) + body + time)


def _exemplar(tag: bytes, exemplar: Exemplar) -> bytes:
    body = labels(exemplar.labels) + b"\x11" + _double(exemplar.value)
    if exemplar.timestamp is not None:
        seconds, nanoseconds = divmod(_nanoseconds(exemplar.timestamp), 10**9)
        body += _framed(b"\x1a", b"\x08" + _varint(seconds) + b"\x10" + _varint(nanoseconds))
    return _framed(tag, body)


def _nanoseconds(time: float | Timestamp) -> int:
    if isinstance(time, Timestamp):
        return time.sec * 10**9 + time.nsec
    fraction, seconds = math.modf(time)
    return int(seconds) * 10**9 + round(fraction * 1e9)


def _text(tag: bytes, text: str) -> bytes:
    return _framed(tag, text.encode("utf-8", "replace"))


def _framed(tag: bytes, body: bytes) -> bytes:
    return tag + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    """`number` in groups of 7 bits, the lowest first; a negative one as its 64-bit complement."""
    if 0 <= number < 0x80:  # noqa: PLR2004 - one group
        return bytes((number,))
    number &= 0xFFFF_FFFF_FFFF_FFFF
    groups = bytearray()
    while number >= 0x80:  # noqa: PLR2004
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _zigzag(number: int) -> int:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
    return number << 1 if number >= 0 else ~(number << 1)


@lru_cache(4096)
def _span(tag: bytes, offset: int, length: int) -> bytes:
    return _framed(tag, b"\x08" + _varint(_zigzag(offset)) + b"\x10" + _varint(length))


def _packed(numbers: NDArray[np.int64]) -> bytes:
    """`_varint(_zigzag(number))` of all of them, end to end."""
    folded = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    highest = int(folded.max())
    if highest < 0x80:  # noqa: PLR2004
        return folded.astype(np.uint8).tobytes()
    groups = folded[:, None] >> _SHIFTS[: -(-highest.bit_length() // 7)]
    there = groups > 0
    there[:, 0] = True
    written = (groups.astype(np.uint8) & 0x7F) | ((groups >= _LAST).astype(np.uint8) << 7)
    return written[there].tobytes()
