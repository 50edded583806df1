"""What a scraper does to the latency of those who infer, beside prometheus_client.

A function of 5 ms runs back to back, while another thread scrapes 1,000 histograms every 250 ms. Each round runs a
while without a scraper and a while with one, on either side, in random order; what counts is by how much the 99th
percentile moves.

    python -m benchmarks.stall [--rounds N] [--json FILE] [--check]
"""

import random
import statistics
import sys
import threading
from time import perf_counter

from benchmarks.promises import conclude, parser
from benchmarks.scrape import FORMATS, MODELS, Ours, Peer, scraped

BUSY_SECONDS = 0.005
POLL_SECONDS = 0.25
WINDOW_SECONDS = 1.5
PROMISED_SHARE = 0.25


def work() -> None:
    """Be busy for a while, in small steps, as Python code is."""
    ends = perf_counter() + BUSY_SECONDS
    while perf_counter() < ends:
        pass


def p99(side: Peer | Ours, *, polled: bool) -> float:
    """The 99th percentile of the seconds of a call in one window."""
    over = threading.Event()

    def poll() -> None:
        while not over.wait(POLL_SECONDS):
            scraped(side.app, FORMATS["text"])

    thread = threading.Thread(target=poll)
    if polled:
        thread.start()
    taken = []
    ends = perf_counter() + WINDOW_SECONDS
    while perf_counter() < ends:
        started = perf_counter()
        work()
        side.infer(random.choice(MODELS))
        taken.append(perf_counter() - started)
    over.set()
    if polled:
        thread.join()
    return statistics.quantiles(taken, n=100)[-1]


def main() -> int:
    arguments = parser(__doc__, rounds=20).parse_args()

    sides: dict[str, Peer | Ours] = {"prometheus_client": Peer(), "infermeter": Ours()}
    for side in sides.values():
        for model in MODELS:
            side.infer(model)
    cases = [(name, polled) for name in sides for polled in (False, True)]
    times: dict[tuple[str, bool], list[float]] = {case: [] for case in cases}
    for _ in range(arguments.rounds):
        random.shuffle(cases)
        for name, polled in cases:
            times[name, polled].append(p99(sides[name], polled=polled))

    print("| p99 of a function of 5 ms | no scraper | a scrape every 250 ms | it moves by |")
    print("|---|---:|---:|---:|")
    moves = {}
    for name in sides:
        alone, polled_too = (statistics.median(times[name, polled]) * 1e3 for polled in (False, True))
        moves[name] = polled_too - alone
        print(f"| {name} | {alone:.2f} ms | {polled_too:.2f} ms | {moves[name]:.2f} ms |")
    share = moves["infermeter"] / moves["prometheus_client"]
    print(f"\nit moves by {share:.2f} of what it moves by with prometheus_client")
    medians = {f"{name}, {polled}": statistics.median(seconds) for (name, polled), seconds in times.items()}
    promises = [("p99 moves, share", share, "<=", PROMISED_SHARE)]
    return conclude(arguments, {"seconds": medians, "share": share}, promises)


if __name__ == "__main__":
    sys.exit(main())
