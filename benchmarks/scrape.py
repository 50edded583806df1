"""What a scrape costs, beside prometheus_client showing the same samples of the same models.

250 models, each with four histograms (1,000 in all), ten counters and a gauge.
All cases run in one process, in random order in every round; ratios are medians of the ratios within each round.
Before a scrape all models infer, or one in ten, and what they recorded is folded, as it is once a second in another
thread. Memory is what a side takes after all models inferred and were scraped once, divided by its histograms.

    python -m benchmarks.scrape [--rounds N] [--json FILE] [--check]
"""

import gc
import random
import statistics
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from operator import truediv
from time import perf_counter
from typing import Any, Unpack

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

import infermeter
from benchmarks.promises import conclude, parser
from infermeter.catalogue import ANNOUNCED_ERRORS, FAMILIES, TOKEN_TYPES
from infermeter.config import Options

LABELS = ("service", "model", "version")
COUNTERS = ("inferences_total", "model_timeout_total", "model_fallback_total")
OWN_LABELS = {"detections_total": "class", "model_errors_total": "error_type", "inference_tokens_total": "type"}
HISTOGRAMS = ("inference_duration", "detection_confidence", "objects_per_frame", "inference_cost")
MODELS = tuple(f"model-{number:03}" for number in range(250))
FORMATS = {"text": "text/plain;version=0.0.4", "OpenMetrics": "application/openmetrics-text;version=1.0.0"}
SHARES = {"all changed": 1.0, "10 % changed": 0.1}
WARM_UP = 2  # rounds
CONFIDENCES = [0.3, 0.9, 0.95]

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # which would double the peer's work

App = Callable[[dict[str, str], Any], Iterable[bytes]]


class Peer:
    """The same samples as ours, as one writes them with prometheus_client, children cached.

    Args:
        models: whose they are.
    """

    def __init__(self, models: Sequence[str] = MODELS) -> None:
        registry = CollectorRegistry()
        histograms = [Histogram(n, n, LABELS, registry=registry, buckets=FAMILIES[n].edges) for n in HISTOGRAMS]
        total, timeouts, fallbacks = (Counter(n, n, LABELS, registry=registry) for n in COUNTERS)
        in_flight = Gauge("inferences_in_flight", "in flight", LABELS, registry=registry, multiprocess_mode="livesum")
        detections, errors, tokens = (Counter(n, n, (*LABELS, own), registry=registry) for n, own in OWN_LABELS.items())
        self.children: dict[str, list[Any]] = {}
        for model in models:
            labels = ("bench", model, "1")
            self.children[model] = [
                *(family.labels(*labels) for family in (*histograms, total)),
                detections.labels(*labels, ""),
            ]
            # Announced at 0, as ours are.
            for family in (timeouts, fallbacks, in_flight):
                family.labels(*labels)
            for family, values in ((errors, ANNOUNCED_ERRORS), (tokens, TOKEN_TYPES)):
                for value in values:
                    family.labels(*labels, value)
        self.app: App = make_wsgi_app(registry)

    def infer(self, model: str) -> None:
        """Observe one inference."""
        duration, confidence, objects, cost, total, detections = self.children[model]
        duration.observe(0.0373)
        cost.observe(0.0000218)
        objects.observe(len(CONFIDENCES))
        for value in CONFIDENCES:
            confidence.observe(value)
        total.inc()
        detections.inc(len(CONFIDENCES))


class Ours:
    """The families of a recorder.

    Args:
        models: whose they are.
        options: of the recorder, besides those of all.
    """

    def __init__(self, models: Sequence[str] = MODELS, **options: Unpack[Options]) -> None:
        common: Options = {
            "service": "bench",
            "registry": CollectorRegistry(),
            "cost": infermeter.CostModel(usd_per_hour=2.10),
            "max_label_values": len(models),
        }
        self.recorder = infermeter.Recorder(**common | options)
        self.tracks = {model: self.recorder.track(model=model, version="1") for model in models}
        self.app: App = self.recorder.wsgi_app()

    def infer(self, model: str) -> None:
        """Record one inference."""
        track = self.tracks[model]
        call = track.begin()
        call.detections(CONFIDENCES)
        track.finish(call, 0.0373)


def scraped(app: App, accept: str) -> bytes:
    """The page."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "HTTP_ACCEPT": accept}
    return b"".join(app(environ, lambda _status, _headers: None))


def measure(rounds: int) -> dict[tuple[str, str, str], list[float]]:
    """Seconds of a scrape: by side, format and share of what changed."""
    ours = Ours()
    sides: dict[str, Peer | Ours] = {"peer": Peer(), "ours": ours}
    for side in sides.values():
        for model in MODELS:
            side.infer(model)
    cases = [(name, kind, share) for name in sides for kind in FORMATS for share in SHARES]
    times: dict[tuple[str, str, str], list[float]] = {case: [] for case in cases}
    for turn in range(WARM_UP + rounds):
        random.shuffle(cases)
        for case in cases:
            name, kind, share = case
            side = sides[name]
            scraped(side.app, FORMATS[kind])
            for model in random.sample(MODELS, int(len(MODELS) * SHARES[share])):
                side.infer(model)
            ours.recorder.fold()
            gc.collect()
            started = perf_counter()
            scraped(side.app, FORMATS[kind])
            if turn >= WARM_UP:
                times[case].append(perf_counter() - started)
    return times


def bytes_per_series(make: type[Peer | Ours]) -> float:
    """Memory that one histogram and its part of the rest takes after a fold and a scrape, in bytes."""
    scraped(make(MODELS[:1]).app, FORMATS["text"])  # what is imported at the first scrape is no part of a histogram
    gc.collect()
    tracemalloc.start()
    side = make()
    for model in MODELS:
        side.infer(model)
    if isinstance(side, Ours):
        side.recorder.fold()
    scraped(side.app, FORMATS["text"])
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return taken / (len(MODELS) * len(HISTOGRAMS))


def main() -> int:
    arguments = parser(__doc__, rounds=21).parse_args()

    memory = {"peer": bytes_per_series(Peer), "ours": bytes_per_series(Ours)}
    times = measure(arguments.rounds)
    medians = {case: statistics.median(seconds) * 1e3 for case, seconds in times.items()}
    ratios: dict[str, float] = {}
    print("| a scrape of 1,000 histograms | prometheus_client | infermeter | cheaper |")
    print("|---|---:|---:|---:|")
    for kind in FORMATS:
        for share in SHARES:
            peer, ours = ("peer", kind, share), ("ours", kind, share)
            ratios[f"{kind}, {share}"] = statistics.median(map(truediv, times[peer], times[ours]))
            print(f"| {kind}, {share} | {medians[peer]:.1f} ms | {medians[ours]:.2f} ms ", end="")
            print(f"| {ratios[f'{kind}, {share}']:.0f}x |")
    ratios["memory"] = memory["ours"] / memory["peer"]
    print(f"\nmemory per histogram, with its part of the rest: prometheus_client {memory['peer']:.0f} bytes, ", end="")
    print(f"infermeter {memory['ours']:.0f} bytes ({ratios['memory']:.2f})")

    promises = [
        ("text, all changed", ratios["text, all changed"], ">=", 30),
        ("text, 10 % changed", ratios["text, 10 % changed"], ">=", 80),
        ("memory, ratio", ratios["memory"], "<=", 0.5),
    ]
    figures = {
        "milliseconds": {", ".join(case): median for case, median in medians.items()},
        "bytes per histogram": memory,
        "ratios": ratios,
    }
    return conclude(arguments, figures, promises)


if __name__ == "__main__":
    sys.exit(main())
