"""The limit on label values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import infermeter
    from tests.instrumentation.conftest import NewRecorder, Scrape


def infer(recorder: infermeter.Recorder, model: str, version: str = "") -> None:
    """One inference with one detection and one error."""
    with recorder.track(model=model, version=version) as call:
        call.detections([0.5])
    with pytest.raises(LookupError), recorder.track(model=model, version=version):
        raise LookupError


def test_a_model_folds_everywhere(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """Beyond the limit every family says `_other`, and the folds are counted."""
    recorder = new_recorder(max_label_values={"model": 3})
    for number in range(5):
        infer(recorder, f"m{number}")
    page = scrape(recorder)
    expected = {"m0": 2, "m1": 2, "m2": 2, "_other": 4}
    assert page.by("model", "inferences_total") == expected
    assert page.by("model", "inference_duration_count") == expected
    assert page.by("model", "objects_per_frame_count") == {model: n / 2 for model, n in expected.items()}
    assert page.by("model", "model_errors_total", error_type="LookupError") == {m: n / 2 for m, n in expected.items()}
    assert page.value("infermeter_label_values_folded_total", label="model") == 2


def test_classes_fold_to_other(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """The sum over classes stays the number of objects."""
    recorder = new_recorder(max_label_values={"class": 2})
    with recorder.track(model="m") as call:
        call.detections([0.5] * 6, classes=["a", "b", "c", "d", "a", "c"])
    page = scrape(recorder)
    assert page.by("class", "detections_total") == {"a": 2, "b": 1, "_other": 3}
    assert page.value("infermeter_label_values_folded_total", label="class") == 2


def test_error_types_fold_to_the_announced_other(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """What does not fit is counted where a zero was announced; the announced kinds always fit."""
    recorder = new_recorder(max_label_values={"error_type": 5})
    for kind in (LookupError, ValueError, KeyError, TimeoutError):
        with pytest.raises(kind), recorder.track(model="m"):
            raise kind
    assert scrape(recorder).by("error_type", "model_errors_total") == {
        "timeout": 1,
        "cuda_oom": 0,
        "cancelled": 0,
        "other": 2,
        "LookupError": 1,
    }


def test_versions_fold_when_series_run_out(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """`max_series` takes the version first and keeps the model."""
    recorder = new_recorder(max_series=3, max_label_values=1000)
    for number in range(6):
        infer(recorder, "m", version=str(number))
    assert scrape(recorder).by("version", "inferences_total") == {"0": 2, "1": 2, "2": 2, "_other": 6}


def test_classes_fold_when_series_run_out(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """`max_series` limits the children of a family too."""
    recorder = new_recorder(max_series=3, max_label_values=1000)
    with recorder.track(model="m") as call:
        call.detections([0.5] * 6, classes=list("abcdef"))
    assert scrape(recorder).by("class", "detections_total") == {"a": 1, "b": 1, "c": 1, "_other": 3}


def test_declared_models_are_admitted_like_called_ones(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """A page never announces a zero for a model whose calls would be counted elsewhere."""
    recorder = new_recorder(max_label_values={"model": 1})
    functions = [recorder.track(model=model)(lambda: None) for model in ("a", "b", "c")]
    assert scrape(recorder).by("model", "inferences_total") == {"a": 0, "_other": 0}
    for function in functions:
        function()
    assert scrape(recorder).by("model", "inferences_total") == {"a": 1, "_other": 2}


def test_request_ids_as_models_stay_bounded(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """A hundred thousand model names cost a hundred series, not memory."""
    for number in range(100_000):
        track = recorder.track(model=f"request-{number}")
        track.finish(track.begin(), 0.001)
    page = scrape(recorder)
    assert page.value("inferences_total") == 100_000
    assert page.by("model", "inferences_total")["_other"] == 99_900
    assert len(recorder.series) == 101
    assert sum(map(len, recorder._tracks.values())) <= 1024


def test_what_cannot_be_encoded_does_not_break_a_scrape(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """Lone surrogates, quotes and newlines in names arrive readable."""
    with recorder.track(model='a"b\nc\\d') as call:
        call.detections([0.5], classes=["face\ud800"])
    page = scrape(recorder)
    assert page.by("model", "inferences_total") == {'a"b\nc\\d': 1}
    assert page.by("class", "detections_total") == {"face?": 1}
