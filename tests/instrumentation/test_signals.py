"""A signal handler may record whatever it interrupts, in the library too: nothing hangs and nothing is lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.instrumentation.conftest import RunPython

PROGRAM = """
import json, logging, signal
import infermeter
from infermeter import Recorder
from prometheus_client import CollectorRegistry, generate_latest

logging.disable()
registry = CollectorRegistry()
recorder = Recorder(registry=registry, service="test")
existing = recorder.track(model="existing")
handled = 0

@recorder.track(model="handler function", detections=lambda result: result)
def function():
    infermeter.current().tokens(prompt=1)
    return [0.5]

@recorder.track(model="handler stream")
def stream():
    yield infermeter.current()

def handle(number, frame):
    global handled
    handled += 1
    with existing as call:
        call.tokens(prompt=1)
    with recorder.track(model="new", version=str(handled % 50)) as call:
        call.detections([0.5, float("nan")])
    function()
    list(stream())
    infermeter.current().fallback()
    infermeter.current().detections([0.1])

@recorder.track(model="main function")
def main_function():
    infermeter.current().tokens(completion=1)

@recorder.track(model="main reading", detections=lambda result: result)
def main_reading():
    return [0.5]

@recorder.track(model="main stream", stream="item")
def main_stream():
    yield 1

def main():
    with existing:
        pass
    main_function()
    main_reading()
    list(main_stream())
    with recorder.track(model="main new", version=str(turns % 50)) as call:
        call.tokens(completion=1)
    {main}

turns = 0
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while handled < 3000:
    main()
    turns += 1
signal.setitimer(signal.ITIMER_REAL, 0)

totals, tokens, in_flight, dropped = {}, {}, 0, 0
for metric in registry.collect():
    for sample in metric.samples:
        model = sample.labels.get("model")
        if sample.name == "inferences_total":
            totals[model] = totals.get(model, 0) + sample.value
        if sample.name == "inference_tokens_total":
            tokens[model] = tokens.get(model, 0) + sample.value
        if sample.name == "inferences_in_flight":
            in_flight += sample.value
        if sample.name == "infermeter_observations_dropped_total":
            dropped += sample.value
left = sum(len(series.on_stack_calls) + len(series.open) for series in recorder.series.values())
print(json.dumps([handled, turns, totals, tokens, in_flight, dropped, left]))
"""


@pytest.mark.parametrize(
    "main",
    [
        "pass",
        "turns % 10 or recorder.fold()",
        "turns % 10 or generate_latest(registry)",
    ],
    ids=["records", "folds", "scrapes"],
)
def test_three_thousand_signals_lose_nothing(run_python: RunPython, main: str) -> None:
    """The handler records on a new and an old track and asks for the current call, while the main program does all."""
    printed = run_python(PROGRAM.replace("{main}", main))
    handled, turns, totals, tokens, in_flight, dropped, left = json.loads(printed)
    assert handled >= 3000
    assert totals == {
        "existing": handled + turns,
        "new": handled,
        "handler function": handled,
        "handler stream": handled,
        "main function": turns,
        "main reading": turns,
        "main stream": turns,
        "main new": turns,
    }
    assert tokens == dict.fromkeys(totals, 0) | {
        "existing": handled,
        "handler function": handled,
        "main function": turns,
        "main new": turns,
    }
    assert in_flight == 0
    assert dropped == handled  # the NaN
    assert left == 0  # no call is kept after its end


def test_a_handler_may_scrape(run_python: RunPython) -> None:
    """It answers with the last totals if it interrupted a fold, instead of waiting for itself for ever."""
    run_python(
        """
        import signal
        from infermeter import Recorder
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        recorder = Recorder(registry=registry, service="test")
        pages = []

        class Names(dict):
            def __missing__(self, key):  # called in the middle of a fold
                signal.raise_signal(signal.SIGUSR1)
                return "cat"

        signal.signal(signal.SIGUSR1, lambda *_: pages.append(generate_latest(registry)))
        with recorder.track(model="m") as call:
            call.detections([0.5], [0], Names())
        page = generate_latest(registry)
        assert len(pages) == 1
        assert b'detections_total{class="cat",model="m",service="test",version=""} 1.0' in page, page
        """
    )


def test_a_finaliser_may_record(run_python: RunPython) -> None:
    """Objects that record in `__del__` die anywhere: inside folds, scrapes and recordings too."""
    printed = run_python(
        """
        import gc
        import infermeter
        from infermeter import Recorder
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        recorder = Recorder(registry=registry, service="test")
        track = recorder.track(model="m")
        died = 0

        class Session:
            def __init__(self):
                self.cycle = self

            def __del__(self):
                global died
                died += 1
                with track as call:
                    call.tokens(prompt=1)
                infermeter.current().fallback()

        gc.set_threshold(20, 2, 2)
        for turn in range(3000):
            with recorder.track(model="main", version=str(turn % 90)) as call:
                call.tokens(prompt=1)
                Session()
            if turn % 100 == 0:
                generate_latest(registry)
        gc.collect()
        print(registry.get_sample_value("inference_tokens_total",
              dict(service="test", model="m", version="", type="prompt")) == died == 3000)
        """
    )
    assert printed == "True\n"
