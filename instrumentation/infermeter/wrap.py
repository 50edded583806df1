"""Wrappers with the exact signature of what they wrap.

A wrapper is compiled from a template with the parameters of the wrapped function: calling it costs what calling a
plain function costs (a third of passing `*args, **kwargs` on), and everything that looks at it (`inspect`, web
frameworks, type hints given as strings) sees the original: the globals, defaults and annotations are the same objects.
"""

import functools
import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from infermeter.call import WRAPPER, innermost, inside_lines, now, on_stacks
from infermeter.errors import ConfigError
from infermeter.streams import adrive, adrive_items, drive, drive_items

if TYPE_CHECKING:
    from infermeter.track import Track

# In the templates every name of ours, written as @name, begins with this prefix.
_PREFIX = "_infermeter_"
_OTHER = "<infermeter.track: coroutine or generator>"

# `current` finds the call of a plain function by the file, the line and the local variables of this frame: the call is
# open on the lines marked `inside`, and on no other.
_CALLED = """
        @series = @track.series
        if @series is None:
            @series = @track.bind()
        @outer = @innermost()
        @series.start(None)
        @started = @now()
        try:
            @result = @function({arguments})  # inside
        except @BaseException as @error:
            @end_failed(@series, @started, @now() - @started, @error)
            raise
"""

_FUNCTION = f"""
def @factory(
    @track, @end, @end_failed, @now, @innermost, @BaseException, @function
):
    def {{name}}({{parameters}}):
        {_CALLED}
        @end(@series, @started, @now() - @started)
        return @result
    return {{name}}
"""

_READING_FUNCTION = f"""
def @factory(
    @track, @end_reading, @end_failed, @unread, @detections, @now, @innermost, @Exception, @BaseException, @function
):
    def {{name}}({{parameters}}):
        {_CALLED}
        @seconds = @now() - @started
        try:
            @found = @detections(@result)  # inside
        except @Exception as @error:
            @found = @unread(@error)
        @end_reading(@series, @started, @seconds, @found)
        return @result
    return {{name}}
"""

for _template in (_FUNCTION, _READING_FUNCTION):
    inside_lines.update(number for number, line in enumerate(_template.splitlines(), 1) if line.endswith("# inside"))

_COROUTINE = """
def @factory(@begin, @finish, @fail, @read, @now, @BaseException, @function):
    async def {name}({parameters}):
        @call = @begin()
        try:
            @result = await @function({arguments})
        except @BaseException as @error:
            @fail(@call, @error, @now() - @call.started)
            raise
        @seconds = @now() - @call.started
        {read}
        @finish(@call, @seconds)
        return @result
    return {name}
"""

# From Python 3.13 on, closing a generator gives what it returns.
_GENERATOR = """
def @factory(@drive, @track, @GeneratorExit, @function):
    def {name}({parameters}):
        @returned = []
        try:
            return (yield from @drive(@track, @function({arguments}), @returned))
        except @GeneratorExit:
            if @returned:
                return @returned.pop()
            raise
    return {name}
"""

# What `yield from` is to a generator, spelled out: Python has none for asynchronous ones.
_ASYNC_GENERATOR = """
def @factory(@drive, @track, @BaseException, @GeneratorExit, @StopAsyncIteration, @function):
    async def {name}({parameters}):
        @steps = @drive(@track, @function({arguments}))
        @resume, @value = @steps.asend, None
        while True:
            try:
                @item = [await @resume(@value)]
            except @StopAsyncIteration:
                return
            @value = None
            try:
                @value = yield @item.pop()
                @resume = @steps.asend
            except @GeneratorExit:
                await @steps.aclose()
                raise
            except @BaseException as @error:
                @resume, @value = @steps.athrow, @error
    return {name}
"""


# What happens once or twice in the life of a process: only success is told, to `record`.
_TIMED = """
def @factory(@record, @now, @function):
    def {name}({parameters}):
        @started = @now()
        @result = @function({arguments})
        @record(@now() - @started)
        return @result
    return {name}
"""

_TIMED_COROUTINE = _TIMED.replace("    def {name}", "    async def {name}").replace(
    "= @function(", "= await @function("
)


# A function of another library. It is passed through as it is once `live` is empty: whoever wrapped ours keeps it.
_AROUND = """
def @factory(@live, @before, @after, @failed, @BaseException, @function):
    def {name}({parameters}):
        if not @live:
            return @function({arguments})
        @state = @before({arguments})
        try:
            @result = @function({arguments})
        except @BaseException as @error:
            @failed(@state, @error)
            raise
        return @after(@state, @result)
    return {name}
"""

_AROUND_COROUTINE = _AROUND.replace("    def {name}", "    async def {name}").replace("@function(", "await @function(")

_AROUND_GENERATOR = """
def @factory(@live, @drive, @function):
    def {name}({parameters}):
        if not @live:
            return (yield from @function({arguments}))
        return (yield from @drive(@function({arguments}), {arguments}))
    return {name}
"""


def wrap(track: "Track", function: Any) -> Any:
    """`function` watched by `track`; a static or class method stays one.

    Raises:
        ConfigError: not a callable, or a class.
    """
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(wrap(track, function.__func__))
    called = _called("track", function)
    names = {
        "track": track,
        "function": function,
        "now": now,
        "innermost": innermost,
        # The wrapper runs in the globals of the function, which may give these names another meaning.
        "Exception": Exception,
        "BaseException": BaseException,
        "GeneratorExit": GeneratorExit,
        "StopAsyncIteration": StopAsyncIteration,
        "begin": track.begin,
        "finish": track.finish,
        "fail": track.fail,
        "read": track.read,
        "end": track.end,
        "end_reading": track.end_reading,
        "unread": track.unread,
        "detections": track.detections,
        "end_failed": track.end_failed,
    }
    items = track.stream == "item"
    kind = _kind(function, called)
    if kind == "asynchronous generator":
        return build(_ASYNC_GENERATOR, function, names | {"drive": adrive_items if items else adrive})
    if kind == "generator":
        return build(_GENERATOR, function, names | {"drive": drive_items if items else drive})
    if kind == "coroutine":
        read = "@read(@call, @result)" if track.detections is not None else ""
        return build(_COROUTINE, function, names, read=read)
    on_stacks[:] = [None]
    return build(_FUNCTION if track.detections is None else _READING_FUNCTION, function, names)


def timed(record: Callable[[float], None], function: Any, verb: str) -> Any:
    """`function`, whose seconds are told to `record` each time it returns; a static or class method stays one.

    Raises:
        ConfigError: not a callable, a class, or a generator.
    """
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(timed(record, function.__func__, verb))
    kind = _kind(function, _called(verb, function))
    if kind.endswith("generator"):
        raise ConfigError(f"{verb}() got the {kind} {function!r}, expected a function or coroutine that returns")
    names = {"record": record, "now": now, "function": function}
    return build(_TIMED_COROUTINE if kind == "coroutine" else _TIMED, function, names)


class Around(NamedTuple):
    """What happens around each call of a function, sync or async, that is not ours; none of it may raise.

    Attributes:
        before: called with the arguments of the call; what it gives is passed to the other two.
        after: called with that and the result; gives what the caller gets, which is the result.
        failed: called with that and the exception, which goes on to the caller.
    """

    before: Callable[..., Any]
    after: Callable[[Any, Any], Any]
    failed: Callable[[Any, BaseException], None]


def around(function: Any, live: list[None], hooks: Around) -> Any:
    """`function` with `hooks` around each call, until `live` is emptied; a static or class method stays one."""
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(around(function.__func__, live, hooks))
    names = {**hooks._asdict(), "live": live, "BaseException": BaseException, "function": function}
    return build(_AROUND_COROUTINE if inspect.iscoroutinefunction(function) else _AROUND, function, names)


def around_generator(function: Any, live: list[None], drive: Callable[..., Any]) -> Any:
    """The generator function `function`, whose generators are driven by `drive(generator, *arguments)`."""
    return build(_AROUND_GENERATOR, function, {"live": live, "drive": drive, "function": function})


def _called(verb: str, function: Any) -> Any:
    """The function that runs when `function` is called."""
    if isinstance(function, type):
        does = {"track": "infers", "load": "loads"}[verb]
        message = f"{verb}() got the class {function.__name__}, expected a function: decorate the method that {does}"
        raise ConfigError(message)
    if not callable(function):
        message = f"{verb}() got {function!r} ({type(function).__name__}), expected a function or another callable"
        raise ConfigError(message)
    return function if isinstance(function, FunctionType) else type(function).__call__


def _kind(function: Any, called: Any) -> str:
    if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(called):
        return "asynchronous generator"
    if inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(called):
        return "generator"
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
        return "coroutine"
    return "function"


def build(template: str, function: Any, names: dict[str, object], **words: str) -> Any:
    """A function from `template`, where `@x` is a name of ours and its factory takes some of `names`."""
    # A parameter that is named like a name of ours leaves only passing everything on.
    plain = isinstance(function, FunctionType)
    if plain:
        parameters, arguments = _parameters(function.__code__)
        plain = _PREFIX not in parameters
    if not plain:
        parameters = arguments = "*args, **kwargs"
    source = template.format(name="call", parameters=parameters, arguments=arguments, **words).replace("@", _PREFIX)
    namespace: dict[str, Any] = {}
    file = WRAPPER if template in {_FUNCTION, _READING_FUNCTION} else _OTHER
    exec(compile(source, file, "exec"), namespace)  # noqa: S102  (our own template)
    factory = namespace[_PREFIX + "factory"]
    inner = factory(*(names[name.removeprefix(_PREFIX)] for name in inspect.signature(factory).parameters))
    if not plain:
        return functools.update_wrapper(inner, function)
    code = inner.__code__.replace(co_name=function.__code__.co_name, co_qualname=function.__code__.co_qualname)
    wrapper = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, inner.__closure__)
    wrapper.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(wrapper, function)


def _parameters(code: CodeType) -> tuple[str, str]:
    """The parameter list of `code` and the argument list that passes all of it on.

    Defaults are not spelled: the wrapper shares the tuple and dictionary of the function's own.
    """
    names = code.co_varnames
    positional = list(names[: code.co_argcount])
    keywords = list(names[code.co_argcount : code.co_argcount + code.co_kwonlyargcount])
    rest = names[code.co_argcount + code.co_kwonlyargcount :]
    parameters, arguments = list(positional), list(positional)
    if code.co_posonlyargcount:
        parameters.insert(code.co_posonlyargcount, "/")
    if code.co_flags & inspect.CO_VARARGS:
        parameters.append("*" + rest[0])
        arguments.append("*" + rest[0])
        rest = rest[1:]
    elif keywords:
        parameters.append("*")
    parameters += keywords
    arguments += [f"{name}={name}" for name in keywords]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        parameters.append("**" + rest[0])
        arguments.append("**" + rest[0])
    return ", ".join(parameters), ", ".join(arguments)
