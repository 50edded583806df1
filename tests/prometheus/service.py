"""A service that infers what the tests tell it to, so that they know the truth about its metrics.

    python service.py PORT

It prints the port of its metrics, then reads commands from stdin, one a line: a JSON list of the name and the keyword
arguments of a function below. Each is answered by a line, when it is done: what it returns, as JSON. The end of stdin
ends the service.

Every model belongs to one question, so that it is at 0 until its test begins.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack

import numpy as np
from opentelemetry.sdk.trace import TracerProvider

import infermeter

infermeter.configure(service="prometheus-test")

opened = ExitStack()


@infermeter.track(model="detector", version="8.3", detections="auto", names=("person", "dog", "car"))
def detect(frame: list[tuple[float, int]]) -> np.ndarray:
    """Find what the test says is there, as rows of x1, y1, x2, y2, confidence, class."""
    return np.array([(0, 0, 1, 1, *found) for found in frame], dtype=np.float64).reshape(-1, 6)


@infermeter.track(model="sleeper")
def sleep(seconds: float) -> None:
    """Take real time."""
    time.sleep(seconds)


@infermeter.track(
    model="llm", cost=infermeter.CostModel(usd_per_1k_prompt_tokens=0.5, usd_per_1k_completion_tokens=1.5)
)
def complete(prompt: int, completion: int) -> None:
    """Read and generate so many tokens."""
    infermeter.current().tokens(prompt=prompt, completion=completion)


@infermeter.track(model="flaky")
def time_out() -> None:
    """Fail as a client does whose server does not answer."""
    raise TimeoutError


clocked = {
    "known": infermeter.track(model="known"),
    "priced": infermeter.track(model="priced", cost=infermeter.CostModel(usd_per_hour=7.2, concurrency=2)),
    "restarted": infermeter.track(model="restarted"),
    "traced": infermeter.track(model="traced"),
}
tracer = TracerProvider().get_tracer("service")
held = infermeter.track(model="held")
for track in (*clocked.values(), held):
    track(detect)  # what is decorated announces its zeros


def detect_all(frames: list[list[tuple[float, int]]]) -> None:
    """Detect in every frame, given as the (confidence, class index) of what is in it."""
    for frame in frames:
        detect(frame)


def sleep_all(durations: list[float]) -> None:
    """Take every one of these times, in seconds, or a little more."""
    for seconds in durations:
        sleep(seconds)


def complete_all(calls: list[tuple[int, int]]) -> None:
    """Complete every one of these numbers of prompt and completion tokens."""
    for prompt, completion in calls:
        complete(prompt, completion)


def fail() -> None:
    """Fail once with a timeout."""
    try:
        time_out()
    except TimeoutError:
        pass


def record(model: str, durations: list[float]) -> None:
    """Infer once for each of these times, in seconds, exactly.

    No clock gives an exact time, so this ends the calls as wrappers do, with times that nobody measured.
    """
    for seconds in durations:
        clocked[model].finish(clocked[model].begin(), seconds)


def record_traced(durations: list[float]) -> list[str]:
    """Infer once for each of these times, in seconds, each in a trace of its own; gives the traces."""
    traces = []
    for seconds in durations:
        with tracer.start_as_current_span("request") as span:
            record("traced", [seconds])
        traces.append(f"{span.get_span_context().trace_id:032x}")
    return traces


def hold() -> None:
    """Open a call and leave it open."""
    opened.enter_context(held)


def release() -> None:
    """End the call that is open."""
    opened.close()


COMMANDS = {
    command.__name__: command
    for command in (detect_all, sleep_all, complete_all, fail, record, record_traced, hold, release)
}

if __name__ == "__main__":
    with infermeter.serve(int(sys.argv[1]), addr="127.0.0.1") as server:
        print(server.port, flush=True)
        for line in sys.stdin:
            name, arguments = json.loads(line)
            print(json.dumps(COMMANDS[name](**arguments)), flush=True)
