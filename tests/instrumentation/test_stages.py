"""The stages of an inference."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from infermeter import current

if TYPE_CHECKING:
    from infermeter import Recorder
    from tests.instrumentation.conftest import NewRecorder, Scrape


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves: what stands last in the list is now."""
    times = [0.0]
    monkeypatch.setattr("infermeter.call.now", lambda: times[-1])
    return times


def stages(recorder: Recorder, scrape: Scrape, part: str = "sum") -> dict[str, float]:
    """The seconds of every stage."""
    return scrape(recorder).by("stage", f"inference_stage_duration_seconds_{part}")


def test_each_stage_has_its_time(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """In a `with` block, in the buckets where it belongs."""
    with recorder.track(model="a") as call:
        with call.stage("preprocess"):
            clock.append(0.001)
        with call.stage("inference"):
            clock.append(0.501)

    assert stages(recorder, scrape) == {"preprocess": 0.001, "inference": pytest.approx(0.5)}
    page = scrape(recorder)
    assert page.value("inference_stage_duration_seconds_bucket", stage="preprocess", le="0.001") == 1
    assert page.value("inference_stage_duration_seconds_bucket", stage="preprocess", le="0.0005") == 0
    assert page.value("inferences_total") == 1


def test_stages_of_a_decorated_function(recorder: Recorder, scrape: Scrape) -> None:
    """Through `current`, with detections beside them."""

    @recorder.track(model="a", detections=lambda result: result)
    def detect() -> list[float]:
        with current().stage("inference"):
            return [0.5, 0.75]

    detect()
    detect()
    assert stages(recorder, scrape, "count") == {"inference": 2}
    assert scrape(recorder).value("objects_per_frame_sum") == 4


def test_stages_of_a_coroutine(recorder: Recorder, scrape: Scrape) -> None:
    """Around an `await`; tasks that run at the same time do not mix."""

    @recorder.track(model="a")
    async def infer(stage: str) -> None:
        with current().stage(stage):
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(infer(stage) for stage in ("a", "b", "a")))

    asyncio.run(main())
    assert stages(recorder, scrape, "count") == {"a": 2, "b": 1}


def test_stages_repeat_and_nest(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """Each block is a stage that ended."""
    with recorder.track(model="a") as call, call.stage("all"):
        for _ in range(3):
            with call.stage("tile"):
                clock.append(clock[-1] + 1)

    assert stages(recorder, scrape) == {"all": 3, "tile": 3}
    assert stages(recorder, scrape, "count") == {"all": 1, "tile": 3}


def test_a_stage_that_raises_took_its_time(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """The time of failed calls counts, so that of their stages does too."""
    error = ValueError("bad frame")
    with (
        pytest.raises(ValueError, match="bad frame") as raised,
        recorder.track(model="a") as call,
        call.stage("preprocess"),
    ):
        clock.append(2.0)
        raise error

    assert raised.value is error
    assert stages(recorder, scrape) == {"preprocess": 2}
    assert scrape(recorder).value("model_errors_total", error_type="ValueError") == 1


def test_a_stage_that_outlives_its_call_is_dropped(
    recorder: Recorder, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And counted, as every report that comes late."""
    monkeypatch.delenv("INFERMETER_STRICT", raising=False)
    with recorder.track(model="a") as call:
        stage = call.stage("late")
        stage.__enter__()
    stage.__exit__(None, None, None)

    assert "inference_stage_duration_seconds_count" not in scrape(recorder).names
    assert scrape(recorder).dropped() == {"late": 1}


def test_outside_any_call_a_stage_does_nothing(recorder: Recorder, scrape: Scrape) -> None:
    """So that a function may be used without being watched."""
    with current().stage("preprocess"):
        pass
    current().staged("preprocess", 1.0)

    assert scrape(recorder).dropped() == {}


def test_names_of_stages_are_limited(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """What does not fit is the rest, and counted."""
    recorder = new_recorder(max_label_values={"stage": 2})
    with recorder.track(model="a") as call:
        for name in ("a", "b", "c", "d", "a"):
            call.staged(name, 1.0)

    assert stages(recorder, scrape, "count") == {"a": 2, "b": 1, "_other": 2}
    assert scrape(recorder).value("infermeter_label_values_folded_total", label="stage") == 2


def test_a_name_that_is_no_text_becomes_one(recorder: Recorder, scrape: Scrape) -> None:
    """The number of a layer, for example."""
    layer: Any = 7
    with recorder.track(model="a") as call, call.stage(layer):
        pass

    assert stages(recorder, scrape, "count") == {"7": 1}
