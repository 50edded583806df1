"""Failed inferences: what kind, and what they count in."""

from __future__ import annotations

import asyncio
import concurrent.futures
import subprocess
from typing import TYPE_CHECKING

import pytest

from infermeter.failures import error_type

if TYPE_CHECKING:
    import infermeter
    from tests.instrumentation.conftest import Scrape


def named(name: str, *bases: type[BaseException]) -> BaseException:
    """An exception of a class that another library would define."""
    error: BaseException = type(name, bases or (Exception,), {})()
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), "timeout"),
        (concurrent.futures.TimeoutError(), "timeout"),
        (subprocess.TimeoutExpired("x", 1), "timeout"),
        (named("ReadTimeout"), "timeout"),
        (named("APITimeoutError"), "timeout"),
        (named("DeadlineExceeded"), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (concurrent.futures.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (named("OutOfMemoryError", RuntimeError), "cuda_oom"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "cuda_oom"),
        (RuntimeError("Failed to allocate memory for requested buffer of size 8"), "cuda_oom"),
        (RuntimeError("shapes differ"), "RuntimeError"),
        (MemoryError(), "MemoryError"),
        (ValueError("CUDA out of memory"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (named("ModelNotLoaded", LookupError), "ModelNotLoaded"),
    ],
)
def test_error_type(error: BaseException, expected: str) -> None:
    """Timeouts, cancellation and exhausted GPU memory are known whatever library raised them."""
    assert error_type(error) == expected


def test_zeros_before_the_first_call(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """A decorated function is visible at 0 before it was ever called, so that `increase` sees its first event."""

    @recorder.track(model="m", detections="auto", names=["face", "plate"])
    def detect() -> None: ...

    page = scrape(recorder)
    assert page.by("error_type", "model_errors_total") == {"timeout": 0, "cuda_oom": 0, "cancelled": 0, "other": 0}
    assert page.by("type", "inference_tokens_total") == {"prompt": 0, "completion": 0}
    assert page.by("class", "detections_total") == {"face": 0, "plate": 0}
    counted = [
        "inferences_total",
        "inferences_in_flight",
        "model_timeout_total",
        "model_fallback_total",
        "inference_duration_count",
        "detection_confidence_count",
        "objects_per_frame_count",
    ]
    assert {name: page.value(name, model="m") for name in counted} == dict.fromkeys(counted, 0)


def test_failed_calls_count_in_totals_not_in_detections(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """Totals, duration and errors have the failed call; objects, confidences and classes have not."""
    with pytest.raises(ValueError, match="later"), recorder.track(model="m") as call:
        call.detections([0.5, 0.5], classes=[0, 1])
        call.detections([0.5])
        call.tokens(prompt=7)
        raise ValueError("later")
    page = scrape(recorder)
    assert page.value("inferences_total") == 1
    assert page.value("inference_duration_count") == 1
    assert page.value("inference_tokens_total", type="prompt") == 7
    assert page.by("error_type", "model_errors_total")["ValueError"] == 1
    assert page.value("model_timeout_total") == 0
    assert not {"detection_confidence_count", "objects_per_frame_count", "detections_total"} & page.names


def test_timeouts_count_in_both_families(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """Timeouts are a subset of errors, errors of inferences."""

    @recorder.track(model="m")
    def infer() -> None:
        raise TimeoutError

    for _ in range(3):
        with pytest.raises(TimeoutError):
            infer()
    page = scrape(recorder)
    assert page.value("model_timeout_total") == 3
    assert page.by("error_type", "model_errors_total")["timeout"] == 3
    assert page.value("inferences_total") == 3


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_is_counted_and_passed_on(
    recorder: infermeter.Recorder, scrape: Scrape, kind: type[BaseException]
) -> None:
    """Exceptions that are no `Exception` are counted like any other."""

    @recorder.track(model="m")
    def infer() -> None:
        raise kind

    with pytest.raises(kind):
        infer()
    assert scrape(recorder).by("error_type", "model_errors_total")[kind.__name__] == 1


def test_an_exception_that_cannot_be_printed_is_counted(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """The user's exception reaches the user, even if it raises when it is looked at."""

    class BrokenError(RuntimeError):
        def __str__(self) -> str:
            raise LookupError

    with pytest.raises(BrokenError), recorder.track(model="m"):
        raise BrokenError
    page = scrape(recorder)
    assert page.by("error_type", "model_errors_total")["other"] == 1
    assert page.dropped() == {"internal": 1}


def test_fallbacks_are_counted(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """A fallback is no failure."""
    with recorder.track(model="m") as call:
        call.fallback()
    page = scrape(recorder)
    assert page.value("model_fallback_total") == 1
    assert sum(page.by("error_type", "model_errors_total").values()) == 0
