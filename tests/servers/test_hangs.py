"""Where metrics of several processes are known to hang: forks amid new labels, and signal handlers that record."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from typing import TYPE_CHECKING

from tests.processes import recorder_in, start

if TYPE_CHECKING:
    from pathlib import Path

    from infermeter import Recorder
    from infermeter.config import Options

FORKS = 60
MOST = 100_000
PATIENCE = 20
ROOMY: Options = {"max_label_values": MOST, "max_series": MOST}


def totals(recorder: Recorder) -> dict[str, Counter[str]]:
    """Inferences and detections, by the first word of the model."""
    found: dict[str, Counter[str]] = {"inferences_total": Counter(), "detections_total": Counter()}
    for metric in recorder.collect():
        for sample in metric.samples:
            if sample.name in found and sample.value:
                found[sample.name][sample.labels["model"].split()[0]] += int(sample.value)
    return found


def test_forks_amid_new_labels(tmp_path: Path) -> None:
    """Children of a process whose threads make new series all the while make some at once, and end; all is counted."""
    recorder = recorder_in(tmp_path, **ROOMY)
    over = threading.Event()
    begun = threading.Barrier(3)
    done: Counter[str] = Counter()

    def new_models() -> None:
        for number in itertools.count():
            with recorder.track(model=f"models {number}"):
                pass
            done["models"] += 1
            if number == 0:
                begun.wait()
            if over.wait(0.001):
                return

    def new_classes() -> None:
        for number in itertools.count():
            with recorder.track(model="classes") as call:
                call.detections([0.5], [f"class {number}"])
            done["classes"] += 1
            if number == 0:
                begun.wait()
            if over.wait(0.001):
                return

    def child() -> None:
        for number in range(3):
            with recorder.track(model=f"child {os.getpid()} {number}") as call:
                call.detections([0.5, 0.5], [f"class {os.getpid()} {number}", "class 1"])
            with recorder.track(model="classes") as call:
                call.detections([0.5], [f"class of {os.getpid()} {number}"])
        if os.getpid() % 2:  # the others leave it to those who read what they left
            recorder.fold()

    threads = [threading.Thread(target=target) for target in (new_models, new_classes)]
    for thread in threads:
        thread.start()
    begun.wait()
    try:
        ends = [os.waitpid(start(child, PATIENCE), 0)[1] for _ in range(FORKS)]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert ends == [0] * FORKS
    expected = {
        "inferences_total": Counter(done) + Counter(child=3 * FORKS, classes=3 * FORKS),
        "detections_total": Counter(child=6 * FORKS, classes=done["classes"] + 3 * FORKS),
    }
    assert totals(recorder) == expected
    assert totals(recorder_in(tmp_path, **ROOMY)) == expected


def interrupted(folder: Path, every: str, infer: str, handler: str) -> list[int]:
    """What a program printed in which a timer fires a handler all the while, and what it left: inferences by kind.

    Args:
        folder: what it shares.
        every: the seconds between two signals.
        infer: what it does again and again, in terms of `number` and `record(model)`.
        handler: what the handler does, in the same terms.
    """
    program = f"""
        import signal, sys, time
        import infermeter
        infermeter.configure(
            service="test", multiprocess_dir={str(folder)!r}, max_label_values={MOST}, max_series={MOST}
        )
        inside = [0, 0]

        def record(kind, model):
            with infermeter.track(model=model) as call:
                call.detections([0.5], classes=[model])
            inside[kind] += 1

        def handle(signum, frame):
            number = inside[1]
            {handler}
            signal.setitimer(signal.ITIMER_REAL, {every})  # not before its end: handlers would pile up

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, {every})
        until = time.monotonic() + 3
        while time.monotonic() < until:
            number = inside[0]
            {infer}
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        print(*inside)
        sys.stdout.flush()
        import os
        os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [int(word) for word in done.stdout.split()]


def test_a_handler_that_makes_new_series_amid_others(tmp_path: Path) -> None:
    """It neither hangs nor loses: what it and the interrupted code recorded is there after a death without goodbye."""
    main, handler = interrupted(
        tmp_path, "0.001", 'record(0, f"main {number}")', 'number < 5000 and record(1, f"handler {number}")'
    )
    assert handler > 100
    found = totals(recorder_in(tmp_path, **ROOMY))
    assert found == {name: Counter(main=main, handler=handler) for name in found}


def test_a_handler_that_records_in_the_series_it_interrupts(tmp_path: Path) -> None:
    """The same, in the middle of an append to the ring."""
    main, handler = interrupted(tmp_path, "0.0002", 'record(0, "same")', 'record(1, "same")')
    assert handler > 100
    found = totals(recorder_in(tmp_path, **ROOMY))
    assert found == {name: Counter(same=main + handler) for name in found}
