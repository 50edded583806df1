"""A decorated function is, to everything that looks at it or calls it, the function."""

from __future__ import annotations

import functools
import inspect
import pickle
import traceback
import typing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

import infermeter
from infermeter import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.instrumentation.conftest import Scrape

recorder_of_this_file = infermeter.Recorder(service="test", registry=CollectorRegistry())
watch = recorder_of_this_file.track(model="m")

DEFAULT = object()


class Frame:
    """Only named in annotations."""


def infer(
    frame: Frame, /, size: int = 640, *rest: int, half: bool = False, given: object = DEFAULT, **more: str
) -> str:
    """Find things.

    At length.
    """
    return f"{size} {rest} {half} {given is DEFAULT} {more}"


infer.colour = "red"  # type: ignore[attr-defined]
bare_infer = infer
infer = watch(infer)


async def coroutine(frame: Frame, *, size: int = 1) -> int:
    """Wait."""
    return size


def generator(frame: Frame, size: int = 1) -> Iterator[int]:
    """Stream."""
    yield size


async def async_generator(frame: Frame, size: int = 1) -> AsyncIterator[int]:
    """Stream and wait."""
    yield size


@pytest.mark.parametrize("function", [bare_infer, coroutine, generator, async_generator])
def test_a_wrapper_looks_like_the_function(function: Callable[..., Any]) -> None:
    """Signature, names, documentation, defaults, annotations and kind are the same, objects where there are objects."""
    wrapped = watch(function)
    assert wrapped is not function
    assert wrapped.__wrapped__ is function  # type: ignore[attr-defined]
    assert inspect.signature(wrapped) == inspect.signature(function)
    assert (
        inspect.signature(wrapped, follow_wrapped=False).parameters.keys()
        == inspect.signature(function).parameters.keys()
    )
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__", "__defaults__"):
        assert getattr(wrapped, name) == getattr(function, name)
    assert wrapped.__defaults__ is function.__defaults__
    assert wrapped.__kwdefaults__ is function.__kwdefaults__
    assert wrapped.__globals__ is function.__globals__
    assert wrapped.__dict__.items() >= function.__dict__.items()
    for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert kind(wrapped) == kind(function)


def test_string_annotations_resolve() -> None:
    """Web frameworks resolve them in the globals of what they are given."""
    assert typing.get_type_hints(infer)["frame"] is Frame
    assert typing.get_type_hints(infer.__wrapped__) == typing.get_type_hints(infer)  # type: ignore[attr-defined]


def test_a_wrapper_can_be_pickled() -> None:
    """By name, as any function of a module."""
    module = inspect.getmodule(infer)
    assert module is None or pickle.loads(pickle.dumps(infer)) is infer


@st.composite
def signatures(draw: st.DrawFn) -> str:
    """The parameter list of a function: every kind, with and without defaults."""
    chosen = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6))
    kinds = sorted(draw(st.lists(st.integers(0, 2), min_size=len(chosen), max_size=len(chosen))))
    parts: list[str] = []
    seen_default = False
    star = draw(st.booleans())
    for index, (name, kind) in enumerate(zip(chosen, kinds, strict=True)):
        if kind == 2 and 2 not in kinds[:index]:
            parts.append("*rest" if star else "*")
        default = draw(st.booleans()) or (seen_default and kind < 2)
        seen_default = seen_default or default
        parts.append(f"{name}={index}" if default else name)
        if kind == 0 and 0 not in kinds[index + 1 :]:
            parts.append("/")
    if star and 2 not in kinds:
        parts.append("*rest")
    if draw(st.booleans()):
        parts.append("**more")
    return ", ".join(parts)


def outcome(function: Callable[..., Any], positional: list[int], keywords: dict[str, int]) -> object:
    """What calling gives: the result, or the kind of exception."""
    try:
        return function(*positional, **keywords)
    except TypeError:
        return TypeError


@given(signatures(), st.lists(st.integers(), max_size=7), st.dictionaries(st.sampled_from("abcdefghxy"), st.integers()))
def test_any_signature_takes_the_same_calls(parameters: str, positional: list[int], keywords: dict[str, int]) -> None:
    """Whatever the parameters and the arguments, the wrapper gives the same result or refuses the same call."""
    namespace: dict[str, Any] = {}
    exec(f"def function({parameters}): return dict(locals())", namespace)  # noqa: S102
    function = namespace["function"]
    expected = outcome(function, positional, keywords)
    assert outcome(watch(function), positional, keywords) == expected


def test_parameters_named_like_ours() -> None:
    """No name of a parameter collides with a name inside the wrapper."""

    def function(call: int, track: int, now: int, started: int, result: int, series: int, end: int) -> tuple[int, ...]:
        return call, track, now, started, result, series, end

    assert watch(function)(1, 2, 3, 4, 5, 6, end=7) == (1, 2, 3, 4, 5, 6, 7)


def test_parameters_with_the_prefix_of_ours(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """Not even one that begins like ours, on purpose."""

    @recorder.track(model="m")
    def function(_infermeter_series: int, _infermeter_started: int = 2, *, _infermeter_now: int = 3) -> list[int]:
        return [_infermeter_series, _infermeter_started, _infermeter_now]

    assert function(1) == [1, 2, 3]
    assert function(1, _infermeter_now=5) == [1, 2, 5]
    assert scrape(recorder).value("inferences_total") == 2


class Detector:
    """Methods of every kind, decorated in either order."""

    base = 100

    @watch
    def method(self, value: int) -> int:
        return self.base + value

    @watch
    def private(self, __value: int) -> int:  # noqa: PYI063  (a name that the class mangles)
        return self.base + __value

    @staticmethod
    @watch
    def static_inside(value: int) -> int:
        return value

    @watch
    @staticmethod
    def static_outside(value: int) -> int:
        return value

    @classmethod
    @watch
    def class_inside(cls, value: int) -> int:
        return cls.base + value

    @watch
    @classmethod
    def class_outside(cls, value: int) -> int:
        return cls.base + value

    @watch
    def __call__(self, value: int) -> int:
        return value

    @watch
    def looped(self, values: list[int]) -> Iterator[int]:
        yield from values


class Finer(Detector):
    """Inherits the decorated methods."""

    base = 200

    def method(self, value: int) -> int:
        return super().method(value) + 1


def test_methods_of_every_kind() -> None:
    """Bound to instance and class as before, inherited and overridden."""
    detector, finer = Detector(), Finer()
    assert (detector.method(1), finer.method(1), Detector.method(finer, 2)) == (101, 202, 202)
    assert detector.private(1) == 101
    assert (Detector.static_inside(1), detector.static_inside(2)) == (1, 2)
    assert (Detector.static_outside(1), detector.static_outside(2)) == (1, 2)
    assert (Detector.class_inside(1), finer.class_inside(1)) == (101, 201)
    assert (Detector.class_outside(1), finer.class_outside(1)) == (101, 201)
    assert detector(7) == 7
    assert list(detector.looped([1, 2])) == [1, 2]
    assert isinstance(inspect.getattr_static(Detector, "static_outside"), staticmethod)
    assert isinstance(inspect.getattr_static(Detector, "class_outside"), classmethod)


class AsyncCallable:
    """An instance whose call is a coroutine."""

    async def __call__(self, value: int) -> int:
        return value


def driven(awaitable: Any) -> Any:
    """The result of a coroutine that never waits."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError


def test_other_callables(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """Builtins, partials, lambdas, bound methods and instances are inferences too."""
    track = recorder.track(model="m")
    assert track(len)([1, 2]) == 2
    assert track(functools.partial(divmod, 7))(2) == (3, 1)
    assert track(lambda value, *, other=2: value * other)(2, other=4) == 8
    assert track(Detector().method.__wrapped__.__get__(Detector()))(1) == 101  # type: ignore[attr-defined]
    assert track(Detector.__call__)(Detector(), 3) == 3
    assert track([1, 2, 2].count)(2) == 2
    assert driven(track(AsyncCallable())(5)) == 5
    assert driven(track(functools.partial(coroutine, Frame()))(size=6)) == 6
    assert scrape(recorder).value("inferences_total") == 8


def test_closures_and_recursion(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """Each level of a recursion is an inference."""
    factor = 2

    @recorder.track(model="m")
    def power(levels: int) -> int:
        return factor * power(levels - 1) if levels else 1

    assert power(5) == 32
    assert scrape(recorder).value("inferences_total") == 6


def test_exceptions_pass_unchanged(recorder: infermeter.Recorder) -> None:
    """The same object, with its cause and context, and the user's own frames in the traceback."""
    cause, context = ValueError("cause"), LookupError("context")
    error = RuntimeError("mine")

    @recorder.track(model="m", detections="auto")
    def fail() -> None:
        try:
            raise context
        except LookupError:
            raise error from cause

    with pytest.raises(RuntimeError) as raised:
        fail()
    assert raised.value is error
    assert (error.__cause__, error.__context__) == (cause, context)
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-2:] == ["fail", "fail"]


def test_an_exception_being_handled_is_not_touched(recorder: infermeter.Recorder) -> None:
    """A tracked call inside an `except` block does not change what is being handled."""
    with pytest.raises(KeyError) as raised:
        try:
            raise KeyError("mine")  # noqa: TRY301
        except KeyError:
            with recorder.track(model="m"):
                pass
            recorder.track(model="m")(lambda: None)()
            raise
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Frame, "track() got the class Frame, expected a function: decorate the method that infers"),
        (5, "track() got 5 (int), expected a function or another callable"),
        (None, "track() got None (NoneType), expected a function or another callable"),
        ("detect", "track() got 'detect' (str), expected a function or another callable"),
    ],
)
def test_what_cannot_be_decorated_is_refused(given: object, expected: str) -> None:
    """In one sentence, when it is decorated."""
    with pytest.raises(ConfigError) as raised:
        watch(given)
    assert str(raised.value) == expected


def test_a_property_is_refused() -> None:
    """The function inside it can be decorated."""
    with pytest.raises(ConfigError, match="expected a function or another callable"):
        watch(property(len))


def test_forgetting_the_call_is_told() -> None:
    """`@track` instead of `@track(model=...)`."""
    with pytest.raises(ConfigError, match=r"^track\(model=<built-in function len>\) is not a non-empty string$"):
        infermeter.track(len)  # type: ignore[arg-type]
