"""Random signatures and random calls: a watched function answers, or refuses, exactly as the bare one does."""

from __future__ import annotations

import asyncio
import builtins
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from infermeter import Recorder
    from tests.instrumentation.conftest import NewRecorder, Scrape

P = inspect.Parameter
NAMES = ("a", "b", "c", "self", "args", "kwargs", "call", "track", "result", "error", "_", "é")


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    """Any signature of up to seven parameters."""
    names = iter(draw(st.permutations(NAMES)))
    parameters: list[P] = []
    defaulted = False
    for kind in (P.POSITIONAL_ONLY, P.POSITIONAL_OR_KEYWORD):
        for _ in range(draw(st.integers(0, 2))):
            defaulted = defaulted or draw(st.booleans())
            parameters.append(P(next(names), kind, default=len(parameters) if defaulted else P.empty))
    if draw(st.booleans()):
        parameters.append(P(next(names), P.VAR_POSITIONAL))
    for _ in range(draw(st.integers(0, 2))):
        default = len(parameters) if draw(st.booleans()) else P.empty
        parameters.append(P(next(names), P.KEYWORD_ONLY, default=default))
    if draw(st.booleans()):
        parameters.append(P(next(names), P.VAR_KEYWORD))
    return inspect.Signature(parameters)


def function(signature: inspect.Signature, keyword: str = "") -> Any:
    """A function of that signature, which returns its arguments."""
    namespace: dict[str, Any] = {}
    given_back = ", ".join(signature.parameters)
    exec(f"{keyword} def f{signature}: return [{given_back}]".strip(), namespace)  # noqa: S102  (our own)
    return namespace["f"]


def outcome(call: Any, arguments: list[int], keywords: dict[str, int]) -> object:
    """What a call returns, or the words with which it is refused."""
    try:
        result = call(*arguments, **keywords)
        return asyncio.run(result) if inspect.iscoroutine(result) else result
    except TypeError as error:
        return str(error)


calls = st.tuples(
    st.lists(st.integers(), max_size=6), st.dictionaries(st.sampled_from(NAMES), st.integers(), max_size=4)
)


@settings(max_examples=300, deadline=None)
@given(signature=signatures(), calls=st.lists(calls, min_size=1, max_size=5))
def test_functions(
    new_recorder: NewRecorder, signature: inspect.Signature, calls: list[tuple[list[int], dict[str, int]]]
) -> None:
    """Results and the words of a TypeError are the same, and only what ran is counted."""
    bare = function(signature)
    recorder = new_recorder()
    watched = recorder.track(model="m")(bare)
    expected = [outcome(bare, *call) for call in calls]
    assert [outcome(watched, *call) for call in calls] == expected
    assert inspect.signature(watched, follow_wrapped=False) == signature
    recorder.fold()
    ran = sum(isinstance(result, list) for result in expected)
    assert sum(series.totals.value("inferences_total") for series in recorder.series.values()) == ran


@settings(max_examples=60, deadline=None)
@given(signature=signatures(), call=calls)
def test_coroutines(
    new_recorder: NewRecorder, signature: inspect.Signature, call: tuple[list[int], dict[str, int]]
) -> None:
    """The same for coroutine functions, which refuse where they are called."""
    bare = function(signature, "async")
    watched = new_recorder().track(model="m")(bare)
    assert outcome(watched, *call) == outcome(bare, *call)


OURS = ["_infermeter_" + name for name in ("series", "started", "result", "error", "track", "function", "now", "end")]


@pytest.mark.parametrize("keyword", ["", "async"])
def test_parameters_may_have_the_names_that_the_wrapper_uses(recorder: Recorder, scrape: Scrape, keyword: str) -> None:
    """Not that anybody would; but nothing of theirs may be overwritten."""
    names = [*OURS, "_infermeter_call", "_infermeter_seconds", "_infermeter_begin", "_infermeter_factory"]
    bare = function(inspect.Signature([P(name, P.POSITIONAL_OR_KEYWORD) for name in names]), keyword)
    watched = recorder.track(model="m")(bare)
    assert outcome(watched, list(range(len(names))), {}) == list(range(len(names)))
    assert scrape(recorder).value("inferences_total") == 1


@pytest.mark.parametrize("name", ["f", "BaseException", "len", "def_", "__debug", "match", "type"])
def test_a_parameter_may_shadow_a_builtin(recorder: Recorder, scrape: Scrape, name: str) -> None:
    """Or the function itself."""
    watched = recorder.track(model="m")(function(inspect.Signature([P(name, P.POSITIONAL_OR_KEYWORD)])))
    assert watched(1) == [1]
    assert scrape(recorder).value("inferences_total") == 1


@pytest.mark.parametrize("shadow", [{"BaseException": ValueError}, {"__builtins__": {}}])
def test_a_module_may_shadow_builtins(recorder: Recorder, scrape: Scrape, shadow: dict[str, object]) -> None:
    """The wrapper runs with the globals of the function, but means the names of Python."""
    namespace: dict[str, Any] = shadow | {"KeyError": builtins.KeyError}
    exec("def f():\n    raise KeyError('mine')", namespace)  # noqa: S102  (our own)
    with pytest.raises(KeyError, match="mine"):
        recorder.track(model="m")(namespace["f"])()
    page = scrape(recorder)
    assert page.by("error_type", "model_errors_total")["KeyError"] == 1
    assert page.value("inferences_in_flight") == 0


def test_very_many_parameters(recorder: Recorder) -> None:
    """More than anybody has."""
    signature = inspect.Signature([P(f"p{number}", P.POSITIONAL_OR_KEYWORD) for number in range(400)])
    assert recorder.track(model="m")(function(signature))(*range(400)) == list(range(400))
