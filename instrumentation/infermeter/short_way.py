"""The `run` of an onnxruntime session, watched for a third of a microsecond where all but its time is known.

A run takes 3 us at least, and a hook before and after it nearly two. So what is known of a session and the shape of its
input is kept ready, and a run on which nothing is to be read is recorded by two appends and a comparison.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from infermeter.call import innermost, now, on_stacks
from infermeter.patch import Patches
from infermeter.wrap import Around, around, build

if TYPE_CHECKING:
    from infermeter.series import Series

# Name of the input; by its shape: what begins a run, records its seconds, where these wait, and the series.
Ways = dict[tuple[int, ...], tuple[Callable[[None], None], Callable[[float], None], list[float], "Series"]]


class Sessions(Protocol):
    """What knows the sessions.

    Attributes:
        short: name of the single input, and ways by its shape, by the id of the session.
    """

    short: dict[int, tuple[str, Ways]]

    def run(self, session: Any, output_names: Any, input_feed: Any, _options: Any = None) -> Any:
        """A run begins that is not on the short way."""

    def ran(self, state: Any, result: Any) -> Any:
        """It ended; gives the result."""

    def failed(self, state: Any, error: BaseException) -> None:
        """It raised."""

    def guard(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """`hook`, which never raises."""

    def learn(self, session: Any, input_feed: Any) -> None:
        """It succeeded: the next one with such an input may take the short way."""

    def ended(self, series: "Series", seconds: float, waiting: list[float]) -> None:
        """A run on the short way was slow, or there are many to fold."""

    def broke(self, session: Any, series: "Series", seconds: float, error: BaseException) -> None:
        """A run on the short way raised."""


_RUN = """
def @factory(
    @live, @short, @id, @innermost, @on_stacks, @now, @many, @before, @after, @failed, @learn, @ended, @broke,
    @Exception, @BaseException, @function
):
    def {name}({parameters}):
        @ways = @short.get(@id(self))
        if @ways is not None and @innermost() is None and not @on_stacks:
            try:
                @name, @ways = @ways
                @start, @record, @waiting, @series = @ways[input_feed[@name].shape]
            except @Exception:
                pass
            else:
                @start(None)
                @started = @now()
                try:
                    @result = @function({arguments})
                except @BaseException as @error:
                    @broke(self, @series, @now() - @started, @error)
                    raise
                @seconds = @now() - @started
                @record(@seconds)
                if @seconds > @series.gate or len(@waiting) >= @many:
                    @ended(@series, @seconds, @waiting)
                return @result
        if not @live:
            return @function({arguments})
        @state = @before({arguments})
        try:
            @result = @function({arguments})
        except @BaseException as @error:
            @failed(@state, @error)
            raise
        @result = @after(@state, @result)
        @learn(self, input_feed)
        return @result
    return {name}
"""
_PARAMETERS = ("self", "output_names", "input_feed", "run_options")
# So many may wait for a fold, which costs little more for many than for few.
MANY = 4096


def watched_run(sessions: Sessions, original: Any, patches: Patches) -> Any:
    """`run`, with the short way where it has the parameters that it has had so far."""
    if getattr(getattr(original, "__code__", None), "co_varnames", ())[:4] != _PARAMETERS:
        return around(original, patches.state, Around(sessions.run, sessions.ran, sessions.failed))
    names: dict[str, object] = {
        "live": patches.state,
        "short": sessions.short,
        "id": id,
        "innermost": innermost,
        "on_stacks": on_stacks,
        "now": now,
        "many": MANY,
        "before": sessions.run,
        "after": sessions.ran,
        "failed": sessions.failed,
        "learn": sessions.guard(sessions.learn),
        "ended": sessions.guard(sessions.ended),
        "broke": sessions.guard(sessions.broke),
        "Exception": Exception,
        "BaseException": BaseException,
        "function": original,
    }
    return build(_RUN, original, names)
