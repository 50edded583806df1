"""What a scrape of many processes that count together costs, beside prometheus_client in its multi-process mode.

32 workers, each with the same 125 models, and each model with four histograms (500 in all), ten counters and a gauge;
the page shows their sums, the same samples on either side. All workers live in one process, where each has files of its
own, as it would have in a process of its own, and the scrapes of both sides are timed there in random order in every
round. Ratios are medians of the ratios within each round.

Before a scrape all models infer in every worker, or one in ten, the same ones in all, and every worker folds what it
recorded, as it does once a second in another thread. It is always the same worker that is scraped.

In the end one of the workers records 16 MB, which nobody folds for it. What waits must not make its files grow.

    python -m benchmarks.workers [--rounds N] [--json FILE] [--check]
"""

import gc
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from operator import truediv
from pathlib import Path
from time import perf_counter

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector

from benchmarks.overhead import AS_LIST, peer_in_files
from benchmarks.promises import conclude, parser
from benchmarks.scrape import FORMATS, SHARES, WARM_UP, App, Ours, Peer, scraped
from benchmarks.scrape import MODELS as MORE_MODELS

MODELS = MORE_MODELS[:125]
WORKERS = 32
BURST = 20_000  # inferences of 100 confidences
MIB = 1024 * 1024
Times = dict[tuple[str, str], list[float]]


class Peers:
    """Workers of prometheus_client, and the page of any of them.

    Args:
        folder: that they share, empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers = [self._worker(number) for number in range(WORKERS)]
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
        self.app: App = make_wsgi_app(registry)

    def _worker(self, number: int) -> Peer:
        with peer_in_files(str(self._folder), lambda: number):
            return Peer(MODELS)

    def infer(self, models: list[str]) -> None:
        """Observe one inference of each in every worker."""
        for worker in self._workers:
            for model in models:
                worker.infer(model)

    def sizes(self) -> list[int]:
        """Bytes of the files of each worker."""
        return sizes(self._folder, lambda name: name.removesuffix(".db").rpartition("_")[2])


class OurWorkers:
    """Recorders of one folder, and the page of the first of them.

    Args:
        folder: that they share, empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers = [Ours(MODELS, multiprocess_dir=folder) for _ in range(WORKERS)]
        self.app = self._workers[0].app

    def infer(self, models: list[str]) -> None:
        """Record one inference of each in every worker, and fold."""
        for worker in self._workers:
            for model in models:
                worker.infer(model)
            worker.recorder.fold()

    def burst(self) -> None:
        """Record much in one worker, without a fold."""
        track = self._workers[0].tracks[MODELS[0]]
        for _ in range(BURST):
            call = track.begin()
            call.detections(AS_LIST)
            track.finish(call, 0.0373)

    def sizes(self) -> list[int]:
        """Bytes of the files of each worker."""
        return sizes(self._folder, lambda name: name.partition(".")[0])


def sizes(folder: Path, worker: Callable[[str], str]) -> list[int]:
    """Bytes of the files of each worker, which `worker` tells by the name of a file."""
    found: Counter[str] = Counter()
    for path in folder.iterdir():
        if path.suffix:  # not the lock
            found[worker(path.name)] += path.stat().st_size
    assert len(found) == WORKERS
    return list(found.values())


def measure(sides: dict[str, Peers | OurWorkers], rounds: int) -> Times:
    """Seconds of a scrape: by side and share of what changed."""
    for side in sides.values():
        side.infer(list(MODELS))
    gc.collect()
    gc.freeze()  # elsewhere, the other workers are not in the process that is scraped
    cases = [(name, share) for name in sides for share in SHARES]
    times: Times = {case: [] for case in cases}
    for turn in range(WARM_UP + rounds):
        random.shuffle(cases)
        for name, share in cases:
            side = sides[name]
            if name == "ours":
                scraped(side.app, FORMATS["text"])  # the peer keeps nothing between scrapes
            side.infer(random.sample(MODELS, int(len(MODELS) * SHARES[share])))
            gc.collect()
            started = perf_counter()
            scraped(side.app, FORMATS["text"])
            if turn >= WARM_UP:
                times[name, share].append(perf_counter() - started)
    gc.unfreeze()
    return times


def main() -> int:
    arguments = parser(__doc__, rounds=15).parse_args()

    # Timers still look into the folders when they are removed.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as theirs,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own,
    ):
        peers, ours = Peers(Path(theirs)), OurWorkers(Path(own))
        times = measure({"peer": peers, "ours": ours}, arguments.rounds)
        ours.burst()
        largest = {"peer": max(peers.sizes()), "ours": max(ours.sizes())}

    print(f"| a scrape of {WORKERS} workers x 500 histograms | prometheus_client | infermeter | cheaper |")
    print("|---|---:|---:|---:|")
    medians = {case: statistics.median(seconds) * 1e3 for case, seconds in times.items()}
    ratios: dict[str, float] = {}
    for share in SHARES:
        ratios[share] = statistics.median(map(truediv, times["peer", share], times["ours", share]))
        print(f"| text, {share} | {medians['peer', share]:.0f} ms | {medians['ours', share]:.2f} ms ", end="")
        print(f"| {ratios[share]:.0f}x |")
    print(f"\nlargest files of a worker: prometheus_client {largest['peer'] / MIB:.2f} MiB, ", end="")
    print(f"infermeter {largest['ours'] / MIB:.2f} MiB, with all that waits for a fold")

    promises = [
        ("32 workers, all changed", ratios["all changed"], ">=", 100),
        ("32 workers, 10 % changed", ratios["10 % changed"], ">=", 100),
        ("files of a worker, MiB", largest["ours"] / MIB, "<", 8),
    ]
    figures = {
        "milliseconds": {", ".join(case): median for case, median in medians.items()},
        "bytes of the files of a worker": largest,
        "ratios": ratios,
    }
    return conclude(arguments, figures, promises)


if __name__ == "__main__":
    sys.exit(main())
