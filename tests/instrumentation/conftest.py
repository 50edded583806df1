"""Every test has a recorder and a registry of its own, and reads what Prometheus would read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import traceback
import warnings
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import pytest
from prometheus_client import CollectorRegistry

from infermeter import Recorder
from tests.page import Page

if TYPE_CHECKING:
    from collections.abc import Callable

    from infermeter.config import Options


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out, where what is counted outlives its process, what is promised of a process that counts alone."""
    if os.environ.get("INFERMETER_SHARED"):
        for item in items:
            if item.get_closest_marker("alone"):
                item.add_marker(pytest.mark.skip(reason="parent and child are on one page, where they share a folder"))


class Scrape(Protocol):
    """Reads the registry of a recorder."""

    def __call__(self, recorder: Recorder) -> Page: ...


class NewRecorder(Protocol):
    """Makes a recorder with a registry of its own."""

    def __call__(self, **options: Unpack[Options]) -> Recorder: ...


class RunPython(Protocol):
    """Runs a program in a fresh interpreter, in which warnings are errors, and gives what it printed."""

    def __call__(
        self, source: str, *, environment: dict[str, str] | None = None, python_warnings: str = "error"
    ) -> str: ...


@pytest.fixture(scope="session")
def new_recorder() -> NewRecorder:
    """For tests that need several recorders or options."""

    def make(**options: Unpack[Options]) -> Recorder:
        options.setdefault("registry", CollectorRegistry())
        options.setdefault("service", "test")
        if os.environ.get(
            "INFERMETER_SHARED"
        ):  # the same promises where a process counts in a folder that others share
            options.setdefault("multiprocess_dir", tempfile.mkdtemp(dir=os.environ["INFERMETER_SHARED"]))
        return Recorder(**options)

    return make


@pytest.fixture
def recorder(new_recorder: NewRecorder) -> Recorder:
    """Without any option."""
    return new_recorder()


@pytest.fixture(scope="session")
def scrape() -> Scrape:
    """What Prometheus would get."""

    def read(recorder: Recorder) -> Page:
        return Page.of(recorder)

    return read


@pytest.fixture(scope="session")
def run_python() -> RunPython:
    """For what needs a process of its own: the environment, the default recorder, signals, crashes."""

    def run(source: str, *, environment: dict[str, str] | None = None, python_warnings: str = "error") -> str:
        inherited = {name: value for name, value in os.environ.items() if name not in _OURS}
        done = subprocess.run(
            [sys.executable, "-W", python_warnings, "-c", textwrap.dedent(source)],
            capture_output=True,
            check=False,
            encoding="utf-8",
            env=inherited | (environment or {}),
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return run


_OURS = ("INFERMETER_SERVICE", "INFERMETER_STRICT", "OTEL_SERVICE_NAME")


class OnBothSides(Protocol):
    """What a scenario, which calls the function that it gets in order to fork, gives in the parent and in the child."""

    def __call__(self, scenario: Callable[[Callable[[], None]], Any]) -> tuple[Any, Any]: ...


class InChild(Protocol):
    """What some work gives in a child that is forked here."""

    def __call__(self, work: Callable[[], Any]) -> Any: ...


@pytest.fixture(scope="session")
def on_both_sides() -> OnBothSides:
    """Forks in the middle of a test; a child that hangs is killed, and what it gives comes through a pipe."""

    def run(scenario: Callable[[Callable[[], None]], Any]) -> tuple[Any, Any]:
        reader, writer = os.pipe()
        pid = -1

        def fork() -> None:
            nonlocal pid
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # a parent with threads is what this is about
                pid = os.fork()
            if pid == 0:
                signal.alarm(20)  # a child that hangs is killed, and its parent sees it

        try:
            answer = scenario(fork)
        except BaseException:
            if pid:
                raise
            answer = traceback.format_exc()
        finally:
            if pid == 0:
                with os.fdopen(writer, "w") as pipe:
                    json.dump(answer, pipe)
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
        assert os.waitpid(pid, 0)[1] == 0
        return answer, json.loads(text)

    return run


@pytest.fixture(scope="session")
def in_child(on_both_sides: OnBothSides) -> InChild:
    """For work that is all the child's."""

    def run(work: Callable[[], Any]) -> Any:

        def scenario(fork: Callable[[], None]) -> Any:
            parent = os.getpid()
            fork()
            return work() if os.getpid() != parent else None

        return on_both_sides(scenario)[1]

    return run
