"""Killed at any moment, the exporter loses no window, counts none twice, and fires no trigger twice.

Each time a process is forked that watches a source whose windows are known, keeps batches and sends triggers, as fast
as it can; it is killed after some milliseconds. At the end everything is as if nobody had been killed: the evidence,
which is a sum over all windows, to the last bit.
"""

from __future__ import annotations

import http.server
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from infermeter_exporters.drift import triggers, verdicts
from infermeter_exporters.drift.decision import USUAL
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.intake import Intake
from infermeter_exporters.drift.layout import Histogram, Layout
from infermeter_exporters.drift.samples import Column, Samples
from infermeter_exporters.drift.slots import Rules, Slots
from infermeter_exporters.drift.store import opened
from infermeter_exporters.drift.triggers import Sender, Webhook
from infermeter_exporters.drift.verdicts import Policy
from infermeter_exporters.drift.watch import Timing, Watch
from tests.processes import start

if TYPE_CHECKING:
    import threading as threads
    from collections.abc import Iterator, Sequence
    from pathlib import Path

KILLS = int(os.environ.get("INFERMETER_KILLS", "16"))
LONGEST = 0.25
"""Seconds after which a process is killed at the latest."""
BEGAN = 1_000_000.0
TIMING = Timing(interval=10, window=10, delay=0)
POLICY = Policy(USUAL, cooldown=0, told=True)
LAYOUT = Layout((1.0, 2.0, 3.0))
FEATURES = ("a", "b")
BATCH = 50


class Known:
    """A source whose windows are known: of twenty, the first ten are as always, and the others differ."""

    name = "known"
    learn = 0
    waited = 0.0
    baselines: Sequence[str] = ("previous",)

    def counted(self, begin: float, end: float) -> dict[Key, Histogram]:
        """Counts that depend on the window alone; what is before it is the reference."""
        number = round((end - BEGAN) / TIMING.window)
        found = {}
        for feature in FEATURES:
            counts = np.zeros(LAYOUT.size)
            chance = np.random.default_rng([number, ord(feature)])
            drifts = self.asked == end and (number + ord(feature)) % 20 >= 10
            parts = [0.1, 0.2, 0.3, 0.4] if drifts else [0.4, 0.3, 0.2, 0.1]
            counts[:4] = chance.multinomial(2000, parts)
            found[Key("service", "model", feature)] = Histogram(LAYOUT, counts)
        return found

    asked = 0.0

    def learning(self) -> dict[Key, float]:
        """There is nothing to be learnt."""
        return {}

    def require_fresh(self, end: float) -> None:
        """It always is; what is evaluated next is known by then."""
        self.asked = end

    def feed(self, end: threads.Event) -> None:
        """There is nothing to be fetched."""

    def close(self) -> None:
        """There is nothing to be closed."""


def batch(number: int) -> Samples:
    """What is sent in a window."""
    values = np.random.default_rng(number).normal(size=BATCH)
    times = np.full(BATCH, BEGAN + number * TIMING.window)
    return Samples([Column(Key("service", "model", "sent"), times, values)], (), BATCH)


def work(path: str, url: str, until: int | None) -> int:
    """Watch windows from where the last process ended; gives how many there were in all."""
    store = opened(path)
    source = Known()
    slots = Slots("sent", Rules(TIMING.window, learn=1000))
    intake = Intake(store, slots, TIMING.window)
    intake.start()
    sender = Sender(store, Webhook(url, b"secret", timeout=5, first_wait=0.001))
    sender.start()
    watch = Watch(source, store, TIMING, POLICY)
    with store.transaction() as transaction:
        ended = verdicts.progress(transaction, source.name)
    number = 0 if ended is None else round((ended - BEGAN) / TIMING.window)
    intake.samples(batch(number), f"batch {number}").result()  # the last one may not have been kept
    while until is None or number < until:
        number += 1
        watch.evaluate(BEGAN + number * TIMING.window)
        intake.samples(batch(number), f"batch {number}").result()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with store.transaction() as transaction:
            states = triggers.by_state(transaction)
        if not states["waiting"] + states["sending"]:
            break
        time.sleep(0.01)
    sender.stop()
    intake.stop()
    store.close()
    return number


@contextmanager
def receiving() -> Iterator[tuple[str, Counter[str]]]:
    """The address of a receiver, and how often it got which trigger; it takes its time before and after it reads."""
    got: Counter[str] = Counter()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            time.sleep(random.random() * 0.004)
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got[content["id"]] += 1
            time.sleep(random.random() * 0.004)
            self.send_response(204)
            self.end_headers()

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the sender was killed
                pass

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """Senders that were killed leave half a message."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", got
        server.shutdown()


def states(path: str) -> list[tuple[object, ...]]:
    """Verdicts and evidence, as they are kept."""
    with closing(opened(path)) as store, store.transaction() as transaction:
        return [tuple(row) for row in transaction("SELECT * FROM states ORDER BY feature")]


def sent(path: str, ended: int) -> float:
    """How many values were counted of what was sent."""
    with closing(opened(path)) as store, store.transaction() as transaction:
        found = Slots("sent", Rules(TIMING.window)).read(transaction, 0, BEGAN + (ended + 1) * TIMING.window)
    return sum(one.samples for one in found.values())


@pytest.mark.alone
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """As if nobody had been."""
    path, calm = str(tmp_path / "store"), str(tmp_path / "calm")
    with receiving() as (url, got):
        for _ in range(KILLS):
            pid = start(lambda: work(path, url, None))
            time.sleep(random.random() * LONGEST)
            os.kill(pid, signal.SIGKILL)
            assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL, "it ended by itself"
        with closing(opened(path)) as store, store.transaction() as transaction:
            reached = round((verdicts.progress(transaction, "known") or BEGAN) - BEGAN) / TIMING.window
        total = work(path, url, int(reached) + 25)
        received = dict(got)
    with receiving() as (url, _):
        assert work(calm, url, total) == total
    assert states(path) == states(calm)
    assert sent(path, total) == BATCH * (total + 1)
    with closing(opened(path)) as store, store.transaction() as transaction:
        kept = dict(transaction("SELECT id, state FROM triggers"))
        episodes = transaction("SELECT SUM(episodes) FROM states")[0][0]
    assert episodes > total / 20
    # Episodes of two features may begin in one window, which is one trigger.
    assert episodes / 2 <= len(kept) <= episodes
    assert set(received) <= set(kept)
    assert set(received.values()) == {1}
    assert {identity for identity, state in kept.items() if state == "sent"} <= set(received)
    assert set(kept.values()) <= {"sent", "unknown"}
