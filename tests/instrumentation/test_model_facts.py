"""What a model is, holds and scores, and the caches of a service."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from infermeter import ConfigError

if TYPE_CHECKING:
    from infermeter import Recorder
    from tests.instrumentation.conftest import InChild, NewRecorder, Scrape
    from tests.page import Page


def infos(page: Page) -> list[dict[str, str]]:
    """The labels of every `model_info`."""
    return [labels for name, labels, value in page.samples if name == "model_info" and value == 1]


def test_what_was_told_last_is_what_a_model_runs_on(recorder: Recorder, scrape: Scrape) -> None:
    """One series a model, so that a join over it never finds two."""
    for device in ("cpu", "cuda:0"):
        recorder.model_info("yolov8m", "8.3", device=device, provider="CUDAExecutionProvider", format="onnx")
        assert infos(scrape(recorder)) == [
            {
                "service": "test", "model": "yolov8m", "version": "8.3",
                "device": device, "provider": "CUDAExecutionProvider", "format": "onnx",
            }
        ]  # fmt: skip


def test_info_stays_when_inferences_begin(recorder: Recorder, scrape: Scrape) -> None:
    """Before the first inference and after it, and after a change."""
    recorder.model_info("a", device="cpu")
    scrape(recorder)
    with recorder.track(model="a"):
        pass
    assert [info["device"] for info in infos(scrape(recorder))] == ["cpu"]
    recorder.model_info("a", device="cuda:1")
    assert [info["device"] for info in infos(scrape(recorder))] == ["cuda:1"]


def test_info_holds_in_a_forked_child(recorder: Recorder, scrape: Scrape, in_child: InChild) -> None:
    """A worker runs the model that its parent loaded."""
    recorder.model_info("a", device="cpu")
    with recorder.track(model="a"):
        pass
    scrape(recorder)

    assert in_child(lambda: [info["device"] for info in infos(scrape(recorder))]) == ["cpu"]


def test_memory_by_device(recorder: Recorder, scrape: Scrape) -> None:
    """The last report of a device counts, before and after a fold."""
    for size in (1, 2):
        recorder.model_memory("a", size, device="cpu")
        recorder.model_memory("a", size * 10, device="cuda:0")
    assert scrape(recorder).by("device", "model_memory_usage_bytes") == {"cpu": 2, "cuda:0": 20}
    recorder.model_memory("a", 0, device="cuda:0")
    assert scrape(recorder).by("device", "model_memory_usage_bytes") == {"cpu": 2, "cuda:0": 0}


def test_accuracy_is_the_last_score(recorder: Recorder, scrape: Scrape) -> None:
    """Of each version."""
    for version, score in (("1", 0.5), ("2", 1.0), ("1", 0.25)):
        recorder.model_accuracy("a", score, version)

    assert scrape(recorder).by("version", "model_accuracy_score") == {"1": 0.25, "2": 1}


@pytest.mark.parametrize(
    ("score", "reason"),
    [(93.5, "above_one"), (-0.1, "negative"), (float("nan"), "non_finite"), ("good", "unreadable")],
)
def test_what_is_no_score_is_refused(
    recorder: Recorder, scrape: Scrape, monkeypatch: pytest.MonkeyPatch, score: Any, reason: str
) -> None:
    """The last good one stays, and what was refused is counted by reason."""
    monkeypatch.delenv("INFERMETER_STRICT", raising=False)
    recorder.model_accuracy("a", 0.5)
    recorder.model_accuracy("a", score)

    page = scrape(recorder)
    assert page.value("model_accuracy_score") == 0.5
    assert page.dropped() == {reason: 1}


def test_gauges_of_models_are_limited_like_their_series(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """A model that folds, folds here too."""
    recorder = new_recorder(max_label_values={"model": 2})
    for index in range(4):
        recorder.model_accuracy(f"m{index}", index / 10)

    assert scrape(recorder).by("model", "model_accuracy_score") == {"m0": 0, "m1": 0.1, "_other": 0.3}


def test_a_cache_shows_zeros_before_its_first_look_up(recorder: Recorder, scrape: Scrape) -> None:
    """So that the first hit is an increase."""
    recorder.cache("frames")

    page = scrape(recorder)
    assert page.by("cache", "cache_hits_total") == page.by("cache", "cache_misses_total") == {"frames": 0}


def test_hits_and_misses_are_counted(recorder: Recorder, scrape: Scrape) -> None:
    """One at a time or many, by many threads, from the same cache wherever it is asked for."""

    def look_up() -> None:
        for _ in range(300):
            recorder.cache("frames").hit()
        recorder.cache("frames").miss(5)

    threads = [threading.Thread(target=look_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    page = scrape(recorder)
    assert page.value("cache_hits_total", service="test", cache="frames") == 1200
    assert page.value("cache_misses_total", service="test", cache="frames") == 20


def test_names_of_caches_are_limited(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """A cache for each user is one cache too many."""
    recorder = new_recorder(max_label_values={"cache": 2})
    for index in range(4):
        recorder.cache(f"user-{index}").hit()

    assert scrape(recorder).by("cache", "cache_hits_total") == {"user-0": 1, "user-1": 1, "_other": 2}


@pytest.mark.alone
def test_a_child_counts_look_ups_from_zero(recorder: Recorder, scrape: Scrape, in_child: InChild) -> None:
    """What was announced stays announced, whether it was folded before the fork or not."""
    recorder.cache("a").hit(3)
    scrape(recorder)
    recorder.cache("b").hit(4)

    assert in_child(lambda: scrape(recorder).by("cache", "cache_hits_total")) == {"a": 0, "b": 0}
    assert scrape(recorder).by("cache", "cache_hits_total") == {"a": 3, "b": 4}


def test_negative_look_ups_are_refused(recorder: Recorder, scrape: Scrape, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter never falls."""
    monkeypatch.delenv("INFERMETER_STRICT", raising=False)
    recorder.cache("a").hit(-1)

    assert scrape(recorder).value("cache_hits_total") == 0
    assert scrape(recorder).dropped() == {"negative": 1}


def test_mistakes_are_one_sentence(recorder: Recorder) -> None:
    """They name the verb, what was given and what was expected."""
    anything: Any = None
    mistakes = {
        lambda: recorder.cache(""): "cache('') is not a non-empty string",
        lambda: recorder.cache(anything): "cache(None) is not a non-empty string",
        lambda: recorder.model_info("a", device=anything): "model_info(device=None) is not a string",
        lambda: recorder.model_info(""): "model_info(model='') is not a non-empty string",
        lambda: recorder.model_memory(anything, 1): "model_memory(model=None) is not a non-empty string",
        lambda: recorder.model_memory("a", 1, device=["cpu"]): "model_memory(device=['cpu']) is not a string",  # type: ignore[arg-type]
        lambda: recorder.model_accuracy("a", 1, anything): "model_accuracy(version=None) is not a string",
    }
    for call, expected in mistakes.items():
        with pytest.raises(ConfigError) as raised:
            call()
        assert str(raised.value) == expected
