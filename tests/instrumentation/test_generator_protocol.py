"""A watched generator answers next, send, throw and close exactly as the bare one does."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from infermeter import Recorder
    from tests.instrumentation.conftest import NewRecorder, Scrape


class Step(NamedTuple):
    """What a generator does around one of its yields."""

    item: int
    thrown: str  # what it does with an exception thrown in
    closed: str  # what it does when it is closed


class Program(NamedTuple):
    """A generator as data."""

    steps: list[Step]
    end: str


Operation = tuple[str, Any]

programs = st.builds(
    Program,
    st.lists(
        st.builds(
            Step,
            st.integers(0, 9),
            st.sampled_from(["pass", "reraise", "raise", "return", "stop"]),
            st.sampled_from(["reraise", "raise", "return"] if sys.version_info < (3, 13) else ["reraise", "raise"]),
        ),
        max_size=5,
    ),
    st.sampled_from(["return", "raise"]),
)
operations = st.lists(
    st.one_of(
        st.just(("next", None)),
        st.tuples(st.just("send"), st.integers(0, 9)),
        st.tuples(st.just("throw"), st.sampled_from([ValueError, ValueError("thrown"), KeyboardInterrupt()])),
        st.just(("close", None)),
    ),
    max_size=8,
)


def react(program: Program, step: Step, log: list[object], error: BaseException) -> bool:
    """Do what `step` does with `error`; tells whether to return."""
    log.append(repr(error))
    reaction = step.closed if isinstance(error, GeneratorExit) else step.thrown
    if reaction == "reraise":
        raise error
    if reaction == "raise":
        message = "raised instead"
        raise LookupError(message)
    if reaction == "stop":
        raise StopIteration
    return reaction == "return"


def end(program: Program, log: list[object]) -> str:
    """What happens behind the last yield."""
    log.append("end")
    if program.end == "raise":
        raise RuntimeError(program.end)
    return "result"


def bare(program: Program, log: list[object]) -> Generator[int, Any, str]:
    """Run `program` as a generator."""
    for step in program.steps:
        try:
            log.append((yield step.item))
        except BaseException as error:
            if react(program, step, log, error):
                return "early"
    return end(program, log)


async def abare(program: Program, log: list[object]) -> AsyncGenerator[int, Any]:
    """Run `program` as an asynchronous generator."""
    for step in program.steps:
        await asyncio.sleep(0)
        try:
            log.append((yield step.item))
        except BaseException as error:
            if react(program, step, log, error):
                return
    end(program, log)


def described(error: BaseException) -> object:
    """What can be compared of an exception."""
    chain = type(error.__cause__), type(error.__context__), error.__suppress_context__
    return type(error), error.args, getattr(error, "value", None), chain


def applied(make: Callable[..., Generator[int, Any, str]], program: Program, todo: list[Operation]) -> list[object]:
    """The outcomes of `todo`, and what the generator saw of it."""
    log: list[object] = []
    generator = make(program, log)
    outcomes: list[object] = []
    for name, argument in [*todo, ("close", None)]:
        method = getattr(generator, "__next__" if name == "next" else name)
        try:
            outcomes.append(method() if argument is None else method(argument))
        except BaseException as error:
            outcomes.append(described(error))
    return [*outcomes, log]


async def aapplied(
    make: Callable[..., AsyncGenerator[int, Any]], program: Program, todo: list[Operation]
) -> list[object]:
    """The same for an asynchronous generator."""
    log: list[object] = []
    generator = make(program, log)
    outcomes: list[object] = []
    for name, argument in [*todo, ("close", None)]:
        method = getattr(generator, "__anext__" if name == "next" else f"a{name}")
        try:
            outcomes.append(await (method() if argument is None else method(argument)))
        except BaseException as error:
            outcomes.append(described(error))
    return [*outcomes, log]


streams = st.sampled_from(["call", "item"])


@settings(max_examples=300, deadline=None)
@given(program=programs, todo=operations, stream=streams)
def test_a_generator_is_driven_as_if_it_were_bare(
    new_recorder: NewRecorder, scrape: Scrape, program: Program, todo: list[Operation], stream: Any
) -> None:
    """Items, result, exceptions with their causes and contexts, and what the generator sees, are the same."""
    recorder = new_recorder()
    watched = recorder.track(model="m", stream=stream)(bare)
    assert applied(watched, program, todo) == applied(bare, program, todo)
    assert scrape(recorder).value("inferences_in_flight") == 0


@settings(max_examples=200, deadline=None)
@given(program=programs, todo=operations, stream=streams)
def test_an_async_generator_is_driven_as_if_it_were_bare(
    new_recorder: NewRecorder, scrape: Scrape, program: Program, todo: list[Operation], stream: Any
) -> None:
    """Items, exceptions with their causes and contexts, and what the generator sees, are the same."""

    async def both() -> tuple[list[object], list[object]]:
        return await aapplied(watched, program, todo), await aapplied(abare, program, todo)

    recorder = new_recorder()
    watched = recorder.track(model="m", stream=stream)(abare)
    ours, expected = asyncio.run(both())
    assert ours == expected
    assert scrape(recorder).value("inferences_in_flight") == 0


@pytest.mark.parametrize("stream", ["call", "item"])
def test_a_generator_that_yields_while_it_is_closed_is_told_so(recorder: Recorder, stream: Any) -> None:
    """The RuntimeError of Python is passed on."""

    @recorder.track(model="m", stream=stream)
    def stubborn() -> Generator[int]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    items = stubborn()
    assert next(items) == 1
    with pytest.raises(RuntimeError, match=r"^generator ignored GeneratorExit$"):
        items.close()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="close() returns None before Python 3.13")
@pytest.mark.parametrize("stream", ["call", "item"])
def test_close_gives_the_value_that_the_generator_returns(recorder: Recorder, stream: Any) -> None:
    """Since Python 3.13 close() returns it."""

    @recorder.track(model="m", stream=stream)
    def summed() -> Generator[int, None, str]:
        try:
            yield 1
        except GeneratorExit:
            return "the sum so far"
        return "the sum"

    items = summed()
    assert next(items) == 1
    assert items.close() == "the sum so far"  # type: ignore[func-returns-value]


@pytest.mark.parametrize("stream", ["call", "item"])
def test_a_wrong_argument_is_refused_where_the_generator_is_made(recorder: Recorder, stream: Any) -> None:
    """A TypeError comes at the call, not at the first step, and nothing is counted."""

    @recorder.track(model="m", stream=stream)
    def items(number: int) -> Generator[int]:
        yield number

    with pytest.raises(TypeError, match=r"items\(\) missing 1 required positional argument: 'number'$"):
        items()  # type: ignore[call-arg]
    assert list(items(3)) == [3]
