"""Slow inferences lead to their traces: with the real OpenTelemetry, and by hand."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from infermeter import current
from infermeter.observation import Exemplar
from infermeter.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from infermeter import Recorder, Track
    from tests.instrumentation.conftest import RunPython, Scrape

tracer = TracerProvider().get_tracer("test")


def shown(recorder: Recorder) -> dict[str, tuple[dict[str, str], float]]:
    """The exemplars on our own page, by the edge of their bucket; prometheus_client's page has the same."""
    environ = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "application/openmetrics-text;version=1.0.0"}
    ours = b"".join(recorder.wsgi_app()(environ, lambda _status, _headers: None)).decode()
    theirs = generate_latest(recorder.settings.registry).decode()
    found = [
        {
            sample.labels["le"]: (sample.exemplar.labels, sample.exemplar.value)
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.exemplar is not None
        }
        for page in (ours, theirs)
    ]
    assert found[0] == found[1]
    return found[0]


def traced(work: Callable[[], object]) -> dict[str, str]:
    """Do some work inside a span, and give what identifies it."""
    with tracer.start_as_current_span("request") as span:
        work()
    context = span.get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def take(track: Track, seconds: float) -> None:
    """An inference of a known time."""
    track.finish(track.begin(), seconds)


def decorated(recorder: Recorder) -> Callable[[], object]:
    """A plain function."""
    return recorder.track(model="m")(lambda: None)


def reading(recorder: Recorder) -> Callable[[], object]:
    """A function whose result is read."""
    return recorder.track(model="m", detections=lambda result: result)(lambda: np.zeros(2, np.float32))


def block(recorder: Recorder) -> Callable[[], object]:
    """A block that reports something."""

    def work() -> None:
        with recorder.track(model="m") as call:
            call.batch_size(2)

    return work


def bare_block(recorder: Recorder) -> Callable[[], object]:
    """A block that reports nothing."""

    def work() -> None:
        with recorder.track(model="m"):
            pass

    return work


def coroutine(recorder: Recorder) -> Callable[[], object]:
    """A coroutine."""

    @recorder.track(model="m")
    async def infer() -> None:
        await asyncio.sleep(0)

    return lambda: asyncio.run(infer())


def failing(recorder: Recorder) -> Callable[[], object]:
    """A function that raises."""

    @recorder.track(model="m")
    def infer() -> None:
        raise LookupError

    def work() -> None:
        with pytest.raises(LookupError):
            infer()

    return work


def told(recorder: Recorder) -> Callable[[], object]:
    """A function that reports to its call."""
    return recorder.track(model="m")(lambda: current().tokens(completion=1))


@pytest.mark.parametrize("kind", [decorated, reading, block, bare_block, coroutine, failing, told])
def test_the_current_span_is_the_exemplar(recorder: Recorder, kind: Callable[[Recorder], Callable[[], object]]) -> None:
    """Whatever is watched: its trace stands at the bucket of its duration."""
    identity = traced(kind(recorder))
    ((labels, value),) = shown(recorder).values()

    assert labels == identity
    assert 0 < value < 60


def test_the_slowest_are_kept(recorder: Recorder) -> None:
    """At most four since the last fold, each in the bucket where it belongs."""
    track = recorder.track(model="m")
    names = {}
    for seconds in (0.004, 0.2, 0.03, 8.0, 0.002, 0.7, 0.02):
        names[seconds] = traced(partial(take, track, seconds))
    found = shown(recorder)

    assert found == {
        edge: (names[seconds], seconds)
        for edge, seconds in (("0.05", 0.03), ("0.25", 0.2), ("1.0", 0.7), ("10.0", 8.0))
    }


def test_newer_ones_push_out_older_ones(recorder: Recorder) -> None:
    """Those of before stay only where there is room; of one bucket the newer fold counts."""
    track = recorder.track(model="m")
    rounds = [(0.002, 0.02, 0.2, 2.0), (20.0, 2.4)]
    for durations in rounds:
        for seconds in durations:
            traced(partial(take, track, seconds))
        found = shown(recorder)

    assert len(found) == 4
    assert (found["30.0"][1], found["2.5"][1]) == (20.0, 2.4)


def test_after_a_fold_only_slow_ones_are_asked_for_their_trace(recorder: Recorder, scrape: Scrape) -> None:
    """The gate is what the fourth slowest took; it is shut where OpenTelemetry is not loaded."""
    track = recorder.track(model="m")
    for seconds in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        track.finish(track.begin(), seconds)
    scrape(recorder)
    series = track.bind()
    assert series.gate == 0.3
    traced(lambda: track.finish(track.begin(), 0.25))
    assert not series.exemplars
    slow = traced(lambda: track.finish(track.begin(), 0.35))
    assert [one.labels for one in series.exemplars or ()] == [slow]


def test_a_span_that_is_not_recording_is_none(recorder: Recorder) -> None:
    """Nobody could look at its trace."""
    silent = TracerProvider(sampler=ALWAYS_OFF).get_tracer("test")
    with silent.start_as_current_span("request"), recorder.track(model="m"):
        pass
    with recorder.track(model="m"):
        pass

    assert shown(recorder) == {}


def test_by_hand(recorder: Recorder) -> None:
    """Any labels that identify an inference."""
    with recorder.track(model="m") as call:
        call.exemplar(trace_id="abc")
        call.exemplar(request='17 "b"', frame="3")
    ((labels, _),) = shown(recorder).values()

    assert labels == {"request": '17 "b"', "frame": "3"}


@pytest.mark.parametrize("labels", [{"trace_id": "a" * 121}, {"trace id": "a"}, {"é": "a"}])
def test_what_a_scraper_would_refuse_is_refused(
    recorder: Recorder, scrape: Scrape, monkeypatch: pytest.MonkeyPatch, labels: dict[str, str]
) -> None:
    """It would take the whole scrape with it."""
    monkeypatch.delenv("INFERMETER_STRICT", raising=False)
    with recorder.track(model="m") as call:
        call.exemplar(**labels)

    assert shown(recorder) == {}
    assert scrape(recorder).dropped() == {"unreadable": 1}


def test_text_has_no_exemplars(recorder: Recorder, scrape: Scrape) -> None:
    """The format has no place for them."""
    with recorder.track(model="m") as call:
        call.exemplar(trace_id="abc")

    page = b"".join(recorder.wsgi_app()({"REQUEST_METHOD": "GET"}, lambda _status, _headers: None)).decode()
    assert "abc" not in page
    assert scrape(recorder).value("inferences_total") == 1


def test_without_opentelemetry_nothing_is_asked(run_python: RunPython) -> None:
    """The gate stays shut, and the library does not load it."""
    printed = run_python(
        """
        import sys, infermeter
        track = infermeter.track(model="m")
        for _ in range(3):
            with track:
                pass
        infermeter.Recorder.fold(track.recorder)
        print(track.bind().gate, "opentelemetry" in sys.modules)
    """,
        environment={"INFERMETER_SERVICE": "test"},
    )
    assert printed.split() == ["inf", "False"]


def test_a_row_starts_without_any() -> None:
    """And rows do not share what they show."""
    rows: Any = Rows({"inference_duration": (1.0,)})
    one, other = (rows.row("inference_duration", (name,)) for name in "ab")
    one.exemplars = {0: Exemplar(0.5, 1.0, {"a": "b"})}

    assert other.exemplars == {}
