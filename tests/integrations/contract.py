"""The contract that every integration keeps, shown with the real library.

A subclass names the integration and gives its cases; the tests are those of `Contract`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from infermeter.track import Track
from tests.page import Page

if TYPE_CHECKING:
    from collections.abc import Callable

    from infermeter import Recorder


@dataclass(frozen=True)
class Case:
    """One use of the library.

    Attributes:
        use: what a user's code does with a subject; a coroutine function for asynchronous code. What it gives is
            compared, so streams are read to their end.
        inferences: how many that is, failed ones among them.
        failures: how many of them fail. If `use` raises, its exception is compared.
        stages: how many stages of an inference around it they are.
    """

    use: Callable[[Any], Any]
    inferences: int = 1
    failures: int = 0
    stages: int | None = None


def outcome(use: Callable[[Any], Any], subject: Any, shown: Callable[[Any], Any]) -> Any:
    """What a use of `subject` gives or raises, in a form that can be compared."""
    try:
        result = asyncio.run(use(subject)) if inspect.iscoroutinefunction(use) else use(subject)
    except Exception as error:
        return described(error)
    return shown(result)


def described(error: BaseException | None) -> Any:
    """All that tells one exception from another, without where it was raised."""
    if error is None:
        return None
    notes = getattr(error, "__notes__", None)
    return type(error), str(error), notes, described(error.__cause__), error.__suppress_context__


def plain(result: Any) -> Any:
    """A result in a form that can be compared: of arrays and tensors their type, shape and bytes."""
    if isinstance(result, dict):
        return type(result), {key: plain(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return type(result), [plain(value) for value in result]
    if hasattr(result, "numpy"):
        found = result.detach().numpy() if hasattr(result, "detach") else result.numpy()
        return type(result), plain(found)
    if isinstance(result, np.ndarray):
        return type(result), result.dtype, result.shape, result.tobytes()
    return result


def signature_of(function: Any) -> Any:
    """All that others can see of a function."""
    own = function.__func__ if isinstance(function, staticmethod | classmethod) else function
    return (
        type(function),
        inspect.signature(own),
        own.__name__,
        own.__qualname__,
        own.__module__,
        own.__doc__,
        own.__annotations__,
        inspect.iscoroutinefunction(own),
        inspect.isgeneratorfunction(own),
        inspect.isasyncgenfunction(own),
    )


def broken(*_: Any, **__: Any) -> Any:
    """Stands for a part of the library that fails."""
    raise RuntimeError("broken")


class Contract:
    """The tests.

    Attributes:
        integration: its name.
        cases: uses by name.
        threaded: whether one subject may be used by several threads.
    """

    integration: ClassVar[str]
    cases: ClassVar[dict[str, Case]]
    threaded: ClassVar[bool] = True

    def subject(self) -> Any:
        """What is used; always the same, so that results can be compared."""
        raise NotImplementedError

    def patched(self) -> list[tuple[Any, str]]:
        """Owner and name of everything that is replaced."""
        raise NotImplementedError

    def shown(self, result: Any) -> Any:
        """A result in a form that can be compared."""
        return plain(result)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each case."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", [pytest.param(case, id=name) for name, case in self.cases.items()])

    def outcome(self, case: Case, subject: Any = None) -> Any:
        """What the use of a subject comes to."""
        return outcome(case.use, self.subject() if subject is None else subject, self.shown)

    def counted(self, recorder: Recorder) -> tuple[float, float]:
        """Inferences and failures that are recorded; none is open, nothing was dropped, and each has a duration."""
        page = Page.of(recorder)
        inferences, failures, open_ones, durations = (
            sum(value for other, _, value in page.samples if other == name)
            for name in (
                "inferences_total",
                "model_errors_total",
                "inferences_in_flight",
                "inference_duration_count",
            )
        )
        assert (page.dropped(), open_ones, durations) == ({}, 0, inferences)
        return inferences, failures

    def test_results_and_exceptions_are_the_same(self, recorder: Recorder, case: Case) -> None:
        """What a user gets is what he gets without us, and it is counted as what it is."""
        expected = self.outcome(case)
        recorder.instrument(self.integration)
        assert self.outcome(case) == expected
        assert self.counted(recorder) == (case.inferences, case.failures)

    def test_existing_subjects_are_watched(self, recorder: Recorder, case: Case) -> None:
        """What was made before is watched from now on, and no longer when it is not."""
        subject = self.subject()
        expected = self.outcome(case, subject)
        recorder.instrument(self.integration)
        assert self.outcome(case, subject) == expected
        recorder.uninstrument(self.integration)
        assert self.outcome(case, subject) == expected
        assert self.counted(recorder) == (case.inferences, case.failures)

    def test_subjects_outlive_their_watching(self, recorder: Recorder, case: Case) -> None:
        """What was made under watch works as before when nobody watches."""
        expected = self.outcome(case)
        recorder.instrument(self.integration)
        subject = self.subject()
        recorder.uninstrument(self.integration)
        assert self.outcome(case, subject) == expected
        assert self.counted(recorder) == (0, 0)

    def test_inside_an_inference_it_is_a_stage(self, recorder: Recorder, case: Case) -> None:
        """Nothing is counted twice: an explicit inference is the one, and what it uses are its stages."""
        recorder.instrument(self.integration)
        subject = self.subject()

        async def asynchronous() -> Any:
            with recorder.track(model="outer"):
                return await case.use(subject)

        def synchronous(_: Any) -> Any:
            if inspect.iscoroutinefunction(case.use):
                return asyncio.run(asynchronous())
            with recorder.track(model="outer"):
                return case.use(subject)

        expected = self.outcome(case)  # counted, as of another model
        before = self.counted(recorder)
        assert outcome(synchronous, subject, self.shown) == expected
        page = Page.of(recorder)
        assert self.counted(recorder)[0] == before[0] + 1
        assert page.value("inferences_total", model="outer") == 1
        stages = page.by("stage", "inference_stage_duration_seconds_count", model="outer")
        expected_stages = case.inferences if case.stages is None else case.stages
        assert stages == ({self.integration: expected_stages} if expected_stages else {})

    def test_signatures_are_the_same(self, recorder: Recorder) -> None:
        """Nobody can tell a replacement from what it replaces, and in the end it is gone."""
        originals = [vars(owner).get(name) for owner, name in self.patched()]
        assert self.patched()
        recorder.instrument(self.integration)
        for (owner, name), original in zip(self.patched(), originals, strict=True):
            assert vars(owner)[name] is not original
            if original is not None:
                assert signature_of(vars(owner)[name]) == signature_of(original)
        recorder.uninstrument(self.integration)
        assert [vars(owner).get(name) for owner, name in self.patched()] == originals

    def test_twice_counts_once(self, recorder: Recorder, case: Case) -> None:
        """Whoever asks twice is watched once."""
        recorder.instrument(self.integration)
        recorder.instrument(self.integration)
        self.outcome(case)
        assert self.counted(recorder) == (case.inferences, case.failures)

    def test_two_recorders(self, new_recorder: Callable[[], Recorder], case: Case) -> None:
        """Each has its own truth, and neither keeps the other alive when it goes, whichever goes first."""
        originals = [vars(owner).get(name) for owner, name in self.patched()]
        expected = self.outcome(case)
        one, other = new_recorder(), new_recorder()
        one.instrument(self.integration)
        other.instrument(self.integration)
        assert self.outcome(case) == expected
        one.uninstrument()
        assert self.outcome(case) == expected
        other.uninstrument()
        assert self.outcome(case) == expected
        assert self.counted(one) == (case.inferences, case.failures)
        assert self.counted(other) == (2 * case.inferences, 2 * case.failures)
        assert [vars(owner).get(name) for owner, name in self.patched()] == originals

    @pytest.mark.parametrize(
        "part", ["begin", "bind", "record_full", "end_told", "track", "load", "model_info", "drop"]
    )
    def test_a_broken_recorder_is_invisible(
        self, recorder: Recorder, case: Case, part: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever fails in the library, a user gets what he gets without it."""
        monkeypatch.delenv("INFERMETER_STRICT", raising=False)
        expected = self.outcome(case)
        recorder.instrument(self.integration)
        monkeypatch.setattr(recorder, "drop", broken)
        monkeypatch.setattr(Track if hasattr(Track, part) else recorder, part, broken)
        assert self.outcome(case) == expected

    def test_ten_threads(self, recorder: Recorder, case: Case) -> None:
        """One subject, if that can be, is used by ten threads at once; none is lost."""
        recorder.instrument(self.integration)
        shared = self.subject() if self.threaded else None
        expected = self.outcome(case, shared)
        found: list[Any] = []

        def work() -> None:
            for _ in range(3):
                found.append(self.outcome(case, shared))  # noqa: PERF401

        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [expected] * 30
        assert self.counted(recorder) == (31 * case.inferences, 31 * case.failures)
