"""How long a model takes to load."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from infermeter import ConfigError, CostModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infermeter import Recorder
    from tests.instrumentation.conftest import InChild, NewRecorder, RunPython, Scrape


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves: what stands last in the list is now."""
    times = [0.0]
    for module in ("infermeter.load", "infermeter.wrap"):
        monkeypatch.setattr(sys.modules[module], "now", lambda: times[-1])  # infermeter.load is the verb
    return times


def loads(recorder: Recorder, scrape: Scrape, **labels: str) -> tuple[float, float]:
    """How many loads of a model, and their seconds."""
    page = scrape(recorder)
    return page.value("model_load_seconds_count", **labels), page.value("model_load_seconds_sum", **labels)


def test_a_block_is_timed(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """From its start to its end, in the bucket where it belongs."""
    with recorder.load(model="yolov8m", version="8.3"):
        clock.append(30.0)

    assert loads(recorder, scrape, model="yolov8m", version="8.3") == (1, 30)
    assert scrape(recorder).value("model_load_seconds_bucket", le="30.0") == 1
    assert scrape(recorder).value("model_load_seconds_bucket", le="10.0") == 0


def test_a_function_is_timed_and_stays_what_it_was(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """Same result, same signature, same name; each call is a load."""

    @recorder.load(model="yolov8m")
    def load_net(path: str, *, half: bool = False) -> tuple[str, bool]:
        """Load it."""
        clock.append(clock[-1] + 2)
        return path, half

    assert (load_net("a"), load_net("b", half=True)) == (("a", False), ("b", True))
    assert loads(recorder, scrape) == (2, 4)
    assert str(inspect.signature(load_net)) == "(path: 'str', *, half: 'bool' = False) -> 'tuple[str, bool]'"
    assert (load_net.__name__, load_net.__doc__) == ("load_net", "Load it.")


def test_a_coroutine_is_timed(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """Also one that waits in the middle."""

    @recorder.load(model="yolov8m")
    async def load_net() -> str:
        await asyncio.sleep(0)
        clock.append(5.0)
        return "net"

    assert asyncio.run(load_net()) == "net"
    assert loads(recorder, scrape) == (1, 5)


def test_methods_of_every_kind_stay_what_they_are(recorder: Recorder, scrape: Scrape) -> None:
    """Static and class methods too, in either order of decorators."""

    class Net:
        @recorder.load(model="a")
        @classmethod
        def of_class(cls) -> type:
            return cls

        @staticmethod
        @recorder.load(model="a")
        def static() -> int:
            return 1

        @recorder.load(model="a")
        def method(self) -> Net:
            return self

    net = Net()
    assert (Net.of_class(), Net.static(), net.method()) == (Net, 1, net)
    assert loads(recorder, scrape)[0] == 3


def test_a_load_that_raises_is_no_load(recorder: Recorder, scrape: Scrape) -> None:
    """The exception is the same object, and the time is not recorded."""
    error = OSError("no such file")

    @recorder.load(model="a")
    def load_net() -> None:
        raise error

    with pytest.raises(OSError, match="no such file") as raised:
        load_net()
    with pytest.raises(OSError, match="no such file"), recorder.load(model="a"):
        raise error

    assert raised.value is error
    assert "model_load_seconds_count" not in scrape(recorder).names


def test_a_time_that_is_none_is_refused(recorder: Recorder, scrape: Scrape, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that somebody else measured might be anything; NaN would stay in the sum for ever."""
    monkeypatch.delenv("INFERMETER_STRICT", raising=False)
    load = recorder.load(model="a")
    for seconds in (2.0, float("nan"), -1.0):
        load.loaded(seconds)

    assert loads(recorder, scrape) == (1, 2)
    assert scrape(recorder).dropped() == {"non_finite": 1, "negative": 1}


def test_loads_nest(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """A pipeline that loads its parts: each has its own time, also when one object is used for both."""
    load = recorder.load(model="a")
    with recorder.load(model="pipeline"):
        clock.append(1.0)
        with load:
            clock.append(3.0)
            with load:
                clock.append(7.0)

    assert loads(recorder, scrape, model="pipeline") == (1, 7)
    assert loads(recorder, scrape, model="a") == (2, 6 + 4)


def test_one_object_times_threads_and_tasks_apart(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """Loads that overlap in time each have their own start."""
    load = recorder.load(model="a")
    entered, leave = threading.Event(), threading.Event()

    def long() -> None:
        with load:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=long)
    thread.start()
    assert entered.wait(10)
    clock.append(10.0)
    with load:
        clock.append(11.0)
    leave.set()
    thread.join()

    async def task(before: float, after: float) -> None:
        with load:
            clock.append(before)
            await asyncio.sleep(0)
            clock.append(after)

    async def both() -> None:
        clock.append(20.0)
        await asyncio.gather(task(21.0, 30.0), task(22.0, 40.0))

    assert loads(recorder, scrape) == (2, 11 + 1)
    asyncio.run(both())
    assert loads(recorder, scrape) == (4, 12 + (30 - 20) + (40 - 21))


def test_what_is_loaded_before_configure_has_the_name_of_the_service(run_python: RunPython) -> None:
    """Models are loaded where modules are imported, and services named in main()."""
    assert run_python("""
        import infermeter
        from prometheus_client import REGISTRY
        with infermeter.load(model="a"):
            pass
        infermeter.model_accuracy("a", 0.5)
        infermeter.model_info("a", device="cpu")
        infermeter.queue("a")
        infermeter.cache("c").hit()
        infermeter.configure(service="gate")
        for name in ("model_load_seconds_count", "model_accuracy_score", "model_queue_length"):
            print(REGISTRY.get_sample_value(name, {"service": "gate", "model": "a", "version": ""}))
        print(REGISTRY.get_sample_value("cache_hits_total", {"service": "gate", "cache": "c"}))
    """).split() == ["1.0", "0.5", "0.0", "1.0"]


def test_a_process_that_only_loads_says_nothing_of_inferences(recorder: Recorder, scrape: Scrape) -> None:
    """What nobody watches is absent, not 0."""
    with recorder.load(model="a"):
        pass

    names = scrape(recorder).names
    assert "model_load_seconds_count" in names
    assert not any(name.startswith(("inference", "model_errors", "detection")) for name in names)


def test_a_price_given_after_the_load_counts(recorder: Recorder, scrape: Scrape) -> None:
    """A series that a load began takes the price of the inferences that come later."""
    with recorder.load(model="a"):
        pass
    scrape(recorder)
    track = recorder.track(model="a", cost=CostModel(usd_per_hour=3600))
    track.finish(track.begin(), 2.0)

    assert scrape(recorder).value("inference_cost_sum", model="a") == 2


@pytest.mark.alone
def test_a_child_does_not_count_the_loads_of_its_parent(
    new_recorder: NewRecorder, scrape: Scrape, in_child: InChild
) -> None:
    """Nor those that waited for a fold at the fork."""
    recorder = new_recorder()
    with recorder.load(model="a"):
        pass

    def work() -> Any:
        with recorder.load(model="b"):
            pass
        return scrape(recorder).by("model", "model_load_seconds_count")

    assert in_child(work) == {"b": 1}
    assert scrape(recorder).by("model", "model_load_seconds_count") == {"a": 1}


class Net:
    """A class."""


def generator() -> Iterator[int]:
    """A generator."""
    yield 1


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Net, "load() got the class Net, expected a function: decorate the method that loads"),
        (3, "load() got 3 (int), expected a function or another callable"),
        (generator, "load() got the generator "),
    ],
    ids=["class", "number", "generator"],
)
def test_what_cannot_load_is_refused(recorder: Recorder, function: Any, expected: str) -> None:
    """Where it is decorated, in one sentence."""
    with pytest.raises(ConfigError) as raised:
        recorder.load(model="a")(function)
    assert str(raised.value).startswith(expected)


@pytest.mark.parametrize("verb", ["load", "queue", "track"])
def test_a_model_has_a_name(recorder: Recorder, verb: str) -> None:
    """Text, and not empty; a version is text."""
    for arguments in ((""), (3)):
        with pytest.raises(ConfigError, match=rf"{verb}\(model=.*\) is not a non-empty string"):
            getattr(recorder, verb)(arguments)
    with pytest.raises(ConfigError, match=rf"{verb}\(version=2\) is not a string"):
        getattr(recorder, verb)("a", 2)
