"""How long the drift exporter takes for a fleet of 500 models with 10 histograms each, of one real Prometheus.

The server has four weeks of the past, as far as it is compared: windows of ten minutes with a scrape each minute, of
histograms with the buckets of our confidences, 70,000 series. Every minute there is an evaluation; as many are made one
after another as `--rounds` says. What the server takes, and what the exporter takes for all else, are told apart.

    python -m benchmarks.drift_prometheus [--rounds N] [--json FILE] [--check]
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np

from benchmarks.promises import conclude, parser
from demo.services import any_free_port
from infermeter.buckets import CONFIDENCE
from infermeter_exporters.drift.decision import USUAL
from infermeter_exporters.drift.prometheus import Access, Family, Prometheus
from infermeter_exporters.drift.store import opened
from infermeter_exporters.drift.verdicts import Policy
from infermeter_exporters.drift.watch import Timing, Watch

_MODELS, _FEATURES, _SEASONS = 500, 10, 4
_STEP, _WINDOW, _WEEK = 60, 600, 7 * 86_400
_INTERVAL = 60.0


def resident() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def past(path: Path, end: int, rounds: int) -> int:
    """Write what the server is to remember; gives how many series there are."""
    chance = np.random.default_rng(0)
    bounds = [*(f"{edge:g}" for edge in CONFIDENCE), "+Inf"]
    steps = _WINDOW // _STEP + rounds + 1
    moments = [
        end - week * _WEEK - _WINDOW + place * _STEP for week in range(_SEASONS, -1, -1) for place in range(steps)
    ]
    number = 0
    with path.open("w") as file:
        for feature in range(_FEATURES):
            file.write(f"# TYPE feature_{feature} histogram\n")
            for model in range(_MODELS):
                parts = chance.dirichlet(np.ones(len(bounds)))
                values = np.cumsum(np.cumsum(chance.multinomial(100, parts, len(moments)), axis=0), axis=1)
                for place, bound in enumerate(bounds):
                    head = f'feature_{feature}_bucket{{service="fleet",model="model-{model}",le="{bound}"}}'
                    pairs = zip(values[:, place].tolist(), moments, strict=True)
                    file.write("".join(f"{head} {value} {moment}\n" for value, moment in pairs))
                    number += 1
        file.write("# EOF\n")
    return number


@contextlib.contextmanager
def remembering(folder: Path, text: Path) -> Iterator[str]:
    """The address of a Prometheus that remembers that."""
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", str(text), str(folder / "data")]
    subprocess.run(made, check=True)
    text.unlink()
    (folder / "prometheus.yml").write_text("{}")
    address = f"127.0.0.1:{any_free_port()}"
    flags = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    flags += [f"--web.listen-address={address}", "--storage.tsdb.retention.time=10y", "--log.level=error"]
    process = subprocess.Popen(["prometheus", *flags])
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://{address}/-/ready", trust_env=False).is_success:
                    break
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    options = parser(__doc__, rounds=10).parse_args()
    end = int(time.time()) // 3600 * 3600 - 3600
    timing = Timing(_INTERVAL, _WINDOW, 0.0, float(_WEEK), _SEASONS)
    figures: dict[str, list[float]] = {"waiting": [], "reading": [], "statistics": [], "store": [], "resident": []}
    folder = Path(tempfile.mkdtemp(prefix="infermeter-drift-"))
    try:
        series = past(folder / "past.om", end, options.rounds)
        with remembering(folder, folder / "past.om") as address:
            families = [Family(f"feature_{feature}") for feature in range(_FEATURES)]
            source = Prometheus("prometheus", Access(f"http://{address}"), families, ("seasonal",))
            store = opened(str(folder / "store"))
            watch = Watch(source, store, timing, Policy(USUAL, 0.0, told=False))
            for place in range(options.rounds):
                watch.evaluate(end + place * _INTERVAL)
                for (_, part), seconds in watch.status()["drift_evaluation_duration_seconds"].items():
                    figures[part].append(seconds)
                figures["resident"].append(resident())
            found = len(watch.shown.findings)
            watch.stop()
            store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    middle = {name: float(np.median(values)) for name, values in figures.items()}
    ours = middle["reading"] + middle["statistics"] + middle["store"]
    growth = figures["resident"][-1] / figures["resident"][options.rounds // 2 - 1]
    print(f"{series:,} series, {found:,} comparisons, {options.rounds} evaluations, medians:\n")
    print("| part | s |\n|---|---:|")
    names = {"waiting": "Prometheus", "reading": "its answers", "statistics": "statistics", "store": "store"}
    for name, title in names.items():
        print(f"| {title} | {middle[name]:.2f} |")
    print(f"| all | {middle['waiting'] + ours:.2f} |\n")
    print(f"{figures['resident'][-1]:.0f} MiB resident, {growth:.3f} of what it was after half of the evaluations")
    return conclude(
        options,
        {"series": series, "comparisons": found, "growth": growth, **figures},
        [
            ("seconds of an evaluation, of an interval of 60", middle["waiting"] + ours, "<=", _INTERVAL / 2),
            ("our part of it, of that of Prometheus", ours / middle["waiting"], "<=", 1.0),
            ("memory after the last evaluation, of that after half of them", growth, "<=", 1.05),
            ("comparisons", found, ">=", _MODELS * _FEATURES),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
