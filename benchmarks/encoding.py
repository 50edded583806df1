"""What it costs to encode native histograms as protobuf, beside the protobuf runtime, whose encoder is written in C.

All cases run in one process, in random order in every round. The table gives medians of the rounds, and as ratios the
medians of the ratios within each round, which a machine that changes its speed does not disturb. Absolute times belong
to the machine that ran it, the ratios are the promise.

    python -m benchmarks.encoding [--series N] [--rounds N] [--json FILE] [--check]

Both encode the same 1,000 series of 160 populated buckets in up to 5 runs, from the same arrays: spans and deltas of
the buckets, then the message. `10 % changed` is a scrape that encodes a tenth of the series, another one in every
round, and takes what it kept of the others. What both write is compared before anything is timed.
"""

import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from operator import truediv
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation

from benchmarks.promises import conclude, parser
from infermeter import protobuf
from infermeter.native import MAX_BUCKETS, Native, width

NAME, HELP = "inference_duration", "Time one inference took, in seconds."
PROTO = Path(__file__).resolve().parents[1] / "tests" / "exposition" / "metrics.proto"
WARM_UP = 2  # rounds
BOUND = 2.0


def message_class() -> Any:
    """`MetricFamily` of the protobuf runtime."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "metrics.desc"
        command = [
            sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}", "--include_imports",
            f"--descriptor_set_out={compiled}", PROTO.name,
        ]  # fmt: skip
        subprocess.run(command, check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    return message_factory.GetMessageClassesForFiles([PROTO.name], pool)["io.prometheus.client.MetricFamily"]


def record(number: int) -> tuple[dict[str, str], Native]:
    """A series whose 160 buckets hold a handful to thousands of values each."""
    source = np.random.default_rng(number)
    histogram = Native(np.zeros(width()))
    ranks = np.arange(MAX_BUCKETS)
    gaps = np.sort(source.integers(1, MAX_BUCKETS, 4))
    places = ranks + gaps.searchsorted(ranks) - 120
    bell = 3000 * np.exp(-0.5 * ((ranks - 80) / 25) ** 2)
    histogram.add(np.repeat(2.0 ** ((places - 0.5) / 8), source.poisson(bell) + 1))
    return {"service": "bench", "model": f"model-{number}", "version": "2"}, histogram


class Bench:
    """The series, and the ways of encoding them."""

    def __init__(self, series: int) -> None:
        self._family = message_class()
        self._series = [record(number) for number in range(series)]
        self._labels = [protobuf.labels(labels) for labels, _ in self._series]
        self._kept = [self._encode(number) for number in range(series)]
        self._turn = 0

    def ours(self) -> bytes:
        """A page for which every series is encoded."""
        series = [self._encode(number) for number in range(len(self._series))]
        return protobuf.family(NAME, HELP, "histogram", series)

    def ours_changed(self) -> bytes:
        """A page for which every tenth series is encoded."""
        self._turn += 1
        for number in range(self._turn % 10, len(self._series), 10):
            self._kept[number] = self._encode(number)
        return protobuf.family(NAME, HELP, "histogram", self._kept)

    def ours_unchanged(self) -> bytes:
        """A page of series that were encoded before."""
        return protobuf.family(NAME, HELP, "histogram", self._kept)

    def peer(self) -> bytes:
        """The message by the protobuf runtime."""
        family = self._family(name=NAME, help=HELP, type=4)
        for labels, histogram in self._series:
            metric = family.metric.add()
            for name, value in sorted(labels.items()):
                metric.label.add(name=name, value=value)
            shown, sparse = metric.histogram, histogram.sparse()
            shown.sample_count, shown.sample_sum = histogram.count, histogram.total
            shown.schema, shown.zero_threshold, shown.zero_count = sparse[:3]
            for offset, length in sparse.spans:
                shown.positive_span.add(offset=offset, length=length)
            shown.positive_delta.extend(sparse.deltas.tolist())
        encoded: bytes = family.SerializeToString()
        return encoded

    def agree(self) -> None:
        """Raise unless all ways give the same, and every series has all its buckets."""
        expected = self._family.FromString(self.peer())
        assert all(len(metric.histogram.positive_delta) == MAX_BUCKETS for metric in expected.metric)
        for page in (self.ours(), self.ours_changed(), self.ours_unchanged()):
            start = next(place for place, byte in enumerate(page) if byte < 0x80) + 1  # noqa: PLR2004 - of the length
            assert self._family.FromString(page[start:]) == expected

    def _encode(self, number: int) -> bytes:
        histogram = self._series[number][1]
        return protobuf.histogram(self._labels[number], histogram.count, histogram.total, sparse=histogram.sparse())


def measure(cases: dict[str, Callable[[], bytes]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every case in every round."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for turn in range(WARM_UP + rounds):
        random.shuffle(order)
        for name in order:
            started = perf_counter()
            cases[name]()
            seconds = perf_counter() - started
            if turn >= WARM_UP:
                taken[name].append(seconds)
    return taken


def main() -> int:
    options = parser(__doc__, rounds=31)
    options.add_argument("--series", type=int, default=1000)
    arguments = options.parse_args()

    bench = Bench(arguments.series)
    bench.agree()
    cases = {
        "peer": bench.peer,
        "ours": bench.ours,
        "ours 10 % changed": bench.ours_changed,
        "ours unchanged": bench.ours_unchanged,
    }
    sizes = {name: len(encode()) for name, encode in cases.items()}
    times = measure(cases, arguments.rounds)

    print(f"| {arguments.series} native histograms of {MAX_BUCKETS} buckets | time | of the runtime's | size |")
    print("|---|---:|---:|---:|")
    ratios: dict[str, float] = {}
    for row, label in (
        ("peer", f"protobuf runtime ({api_implementation.Type()})"),
        ("ours", "infermeter, every series encoded"),
        ("ours 10 % changed", "infermeter, 10 % changed"),
        ("ours unchanged", "infermeter, nothing changed"),
    ):
        ratios[row] = float(statistics.median(map(truediv, times[row], times["peer"])))
        milliseconds = statistics.median(times[row]) * 1000
        print(f"| {label} | {milliseconds:.2f} ms | {ratios[row]:.2f} | {sizes[row] / 1000:.0f} kB |")

    kind = api_implementation.Type()
    return conclude(
        arguments,
        {"seconds": {name: statistics.median(case) for name, case in times.items()}, "ratios": ratios, "bytes": sizes},
        [
            ("every series encoded", ratios["ours"], "<=", BOUND),
            ("10 % changed", ratios["ours 10 % changed"], "<=", 1.0),
        ],
        [f"the protobuf runtime is {kind}, not the one written in C"] if kind != "upb" else [],
    )


if __name__ == "__main__":
    sys.exit(main())
