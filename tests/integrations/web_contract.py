"""What an integration of a web framework promises, shown with the real framework."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.integrations.contract import signature_of
from tests.page import Page
from tests.web import gauge, requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from infermeter import Recorder


class WebContract:
    """The tests.

    Attributes:
        integration: its name.
        uses: method, path, endpoint and status of requests.
        owner: the class whose `__call__` is replaced.
    """

    integration: ClassVar[str]
    uses: ClassVar[list[tuple[str, str, str, int]]]
    owner: ClassVar[Any]

    def app(self) -> Any:
        """An application."""
        raise NotImplementedError

    def ask(self, app: Any, method: str, path: str) -> tuple[int, bytes]:
        """Status and body of what it answers."""
        raise NotImplementedError

    def by_hand(self, recorder: Recorder, app: Any) -> Any:
        """The application, watched in the other way too, that leaves out "/excluded"."""
        raise NotImplementedError

    def outcome(self, app: Any) -> list[Any]:
        """What all uses of an application come to."""
        return [self.ask(app, method, path) for method, path, *_ in self.uses]

    def expected(self, times: int = 1) -> dict[tuple[str, str, str], int]:
        """What is counted of all uses, so many times."""
        return {(method, endpoint, str(status)): times for method, _, endpoint, status in self.uses}

    def test_answers_are_the_same(self, recorder: Recorder) -> None:
        """And each request is counted for its route."""
        expected = self.outcome(self.app())
        assert [status for status, _ in expected] == [status for *_, status in self.uses]
        recorder.instrument(self.integration)
        assert self.outcome(self.app()) == expected
        assert requests(recorder) == self.expected()
        assert (gauge(recorder), Page.of(recorder).dropped()) == (0, {})

    def test_applications_that_run_are_watched(self, recorder: Recorder) -> None:
        """From now on, and no longer when nobody watches."""
        app = self.app()
        expected = self.outcome(app)
        recorder.instrument(self.integration)
        assert self.outcome(app) == expected
        recorder.uninstrument(self.integration)
        assert self.outcome(app) == expected
        assert requests(recorder) == self.expected()

    def test_nothing_is_shown_before_a_request(self, recorder: Recorder) -> None:
        """A service without HTTP that has the framework installed shows nothing of it."""
        recorder.instrument(self.integration)
        assert not {name for name in Page.of(recorder).names if name.startswith(("http_", "websocket_"))}

    def test_signatures_are_the_same(self, recorder: Recorder) -> None:
        """Nobody can tell a replacement from what it replaces, and in the end it is gone."""
        missing = object()
        original = vars(self.owner).get("__call__", missing)
        seen = signature_of(self.owner.__call__)
        recorder.instrument(self.integration)
        assert vars(self.owner)["__call__"] is not original
        assert signature_of(vars(self.owner)["__call__"]) == seen
        assert inspect.iscoroutinefunction(self.app().__call__) == seen[-3]
        recorder.uninstrument(self.integration)
        assert vars(self.owner).get("__call__", missing) is original

    def test_twice_counts_once(self, recorder: Recorder) -> None:
        """Whoever asks twice, or watches by hand too."""
        recorder.instrument(self.integration)
        recorder.instrument(self.integration)
        self.outcome(self.by_hand(recorder, self.app()))
        assert requests(recorder) == self.expected()

    def test_what_is_excluded_by_hand_stays_out(self, recorder: Recorder) -> None:
        """Although the application is watched without that."""
        recorder.instrument(self.integration)
        app = self.by_hand(recorder, self.app())
        assert self.ask(app, "GET", "/excluded")[0] == 200
        self.outcome(app)
        assert requests(recorder) == self.expected()

    def test_two_recorders(self, new_recorder: Callable[[], Recorder]) -> None:
        """Each has its own truth, whichever goes first."""
        original = vars(self.owner).get("__call__")
        one, other = new_recorder(), new_recorder()
        one.instrument(self.integration)
        other.instrument(self.integration)
        app = self.app()
        self.outcome(app)
        one.uninstrument()
        self.outcome(app)
        other.uninstrument()
        self.outcome(app)
        assert (requests(one), requests(other)) == (self.expected(), self.expected(2))
        if original is not None:
            assert signature_of(vars(self.owner)["__call__"]) == signature_of(original)

    @pytest.mark.parametrize("part", ["asgi_middleware", "wsgi_middleware", "settled"])
    def test_a_broken_recorder_is_invisible(
        self, recorder: Recorder, part: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever fails in the library, a client gets what it gets without it."""

        def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("broken")

        monkeypatch.delenv("INFERMETER_STRICT", raising=False)
        expected = self.outcome(self.app())
        recorder.instrument(self.integration)
        monkeypatch.setattr(recorder, "drop", broken)
        monkeypatch.setattr(recorder, part, broken)
        assert self.outcome(self.app()) == expected
