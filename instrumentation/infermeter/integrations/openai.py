"""openai: each request for an answer or an embedding is an inference of the model that was asked for.

Its retries are inside it. The model is the one that the request names, not the dated one that answers: it is what the
service chose and what stays when the provider moves on. The host that it is asked of, without port, path or key, is
the `provider` of `model_info`; `service` stays the service that asks.

A stream ends with its last event, when it is closed, or when it is collected; it takes the time until the answer begins
and the time spent waiting for events. Its first item is the first event that carries something generated. Tokens are
those that the provider tells: of a chat stream only if the service asked for them by `stream_options`.

Raw responses (`with_raw_response`) are inferences with tokens, and streams too once they are parsed. Those of
`with_streaming_response` end when their headers are there, and tell no tokens.
"""

import inspect
import json
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import TYPE_CHECKING, Any

from infermeter.patch import Patches, UnknownLibraryError, failed, harmless
from infermeter.steps import AsyncStepped, Stepped, Steps, close
from infermeter.watched import Watched, watched
from infermeter.wrap import Around

if TYPE_CHECKING:
    from infermeter.recorder import Recorder

# Where requests are made: the methods of each class that send one. A class that a release moved is found where it is
# now; `parse` came later than `create`.
_REQUESTS = {
    "openai.resources.chat.completions": ("Completions", "create", "parse"),
    "openai.resources.chat.completions.completions": ("Completions", "create", "parse"),
    "openai.resources.beta.chat.completions": ("Completions", "parse"),
    "openai.resources.completions": ("Completions", "create"),
    "openai.resources.embeddings": ("Embeddings", "create"),
    "openai.resources.responses.responses": ("Responses", "create", "parse"),
}
_LATER = {"parse"}
# Where a request may be of several texts, and by which argument.
_TEXTS = {"openai.resources.completions": "prompt", "openai.resources.embeddings": "input"}
# What is closed: the stream of the attribute, or itself.
_STREAMS = {
    "openai._streaming": ("Stream", ""),
    "openai.lib.streaming.chat._completions": ("ChatCompletionStream", "_raw_stream"),
    "openai.lib.streaming.responses._responses": ("ResponseStream", "_raw_stream"),
}
MODULES = (*_REQUESTS, *_STREAMS)

_STAGE = "openai"
# Of a request that leaves the choice to a prompt that is stored at the provider.
_UNNAMED = "unknown"
_ROLE = "role"


def install(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch requests, and the closing of streams; see `infermeter.instruments.Integration`."""
    patches = Patches()
    try:
        if module.__name__ in _REQUESTS:
            _install_requests(_Requests(recorder, _TEXTS.get(module.__name__)), patches, module)
        else:
            _install_streams(recorder, patches, module)
    except BaseException:
        patches.undo()
        raise
    return patches.undo


def _install_requests(requests: "_Requests", patches: Patches, module: ModuleType) -> None:
    name, *methods = _REQUESTS[module.__name__]
    for prefix in ("", "Async"):
        cls = getattr(module, prefix + name, None)
        if cls is None:
            raise UnknownLibraryError(f"{module.__name__} has no {prefix}{name}")
        if cls.__module__ != module.__name__:  # it is found where it is made
            continue
        for method in methods:
            if method not in _LATER or method in vars(cls) or module.__name__.startswith("openai.resources.beta"):
                patches.around(cls, method, requests.around(vars(cls).get(method), later=bool(prefix)))


def _install_streams(recorder: "Recorder", patches: Patches, module: ModuleType) -> None:
    name, attribute = _STREAMS[module.__name__]

    def before(stream: Any, *_: Any, **__: Any) -> None:
        raw = getattr(stream, attribute) if attribute else stream
        close(vars(raw).get("_iterator"))

    hooks = Around(harmless(recorder, before, lambda *_, **__: None), lambda _, result: result, lambda *_: None)
    for prefix in ("", "Async"):
        cls = getattr(module, prefix + name, None)
        if cls is None:
            raise UnknownLibraryError(f"{module.__name__} has no {prefix}{name}")
        patches.around(cls, "close", hooks)


class ResponseFailedError(Exception):
    """What a response that ends as failed is counted as; the library does not raise."""


class _Requests:
    """The hooks around requests.

    Args:
        recorder: what they are recorded by.
        texts: the argument that may be several texts.
    """

    def __init__(self, recorder: "Recorder", texts: str | None) -> None:
        self._recorder = recorder
        self._texts = texts
        self._told: set[tuple[str, str]] = set()  # models and the hosts that they were asked of
        self._begin = harmless(recorder, self._asked, lambda *_: None)
        self._finish = harmless(recorder, self._answered, lambda *_: None)
        self._fail = harmless(recorder, self._refused, lambda *_: None)

    def around(self, function: Any, *, later: bool) -> Around:
        """Around a method that sends a request, `later` when what it gives is awaited."""
        if later and not inspect.iscoroutinefunction(function):  # a plain function that makes a coroutine
            return Around(lambda *args, **kwargs: (args, kwargs), self._later, lambda *_: None)

        def before(*args: Any, **kwargs: Any) -> Any:
            return self._begin(args, kwargs)

        def after(state: Any, result: Any) -> Any:
            self._finish(state, result)
            return result

        return Around(before, after, self._fail)

    def _later(self, given: tuple[tuple[Any, ...], dict[str, Any]], made: Any) -> Any:
        return self._awaited(given, made) if inspect.iscoroutine(made) else made

    async def _awaited(self, given: tuple[Any, ...], coroutine: Coroutine[Any, Any, Any]) -> Any:
        state = self._begin(*given)
        try:
            result = await coroutine
        except BaseException as error:
            self._fail(state, error)
            raise
        self._finish(state, result)
        return result

    # --- the rest may fail --------------------------------------------------------------------------------------

    def _asked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Watched, bool] | None:
        """A request begins: of a resource, with keyword arguments alone."""
        model = kwargs.get("model")
        model = model if isinstance(model, str) and model else _UNNAMED
        run = watched(self._recorder.track(model), _STAGE)
        try:
            self._tell_host(model, args[0])
            if self._texts is not None:
                _report_batch(run, kwargs.get(self._texts))
        except Exception as error:  # ours, on the way of a request, which is an inference all the same
            failed(self._recorder, error)
        return run, bool(kwargs.get("stream"))

    def _answered(self, state: tuple[Watched, bool] | None, result: Any) -> None:
        if state is None:
            return
        run, streams = state
        try:
            if streams and self._follow(run, result):
                return
            seconds = run.seconds()
            error = None
            if run.own:
                error = _report(run, None if streams else _told(result))
        except BaseException:
            run.finish()
            raise
        if error is None:
            run.finish(seconds)
        else:
            run.fail(error, seconds)

    def _refused(self, state: tuple[Watched, bool] | None, error: BaseException) -> None:
        if state is None:
            return
        if type(error) is TypeError:  # wrong arguments: the library raises errors of its own for what was sent
            state[0].abandon()
        else:
            seconds = state[0].seconds()
            try:
                # What was answered, but is not what was to be parsed.
                _report(state[0], getattr(error, "completion", None))
            finally:
                state[0].fail(error, seconds)

    def _follow(self, run: Watched, result: Any) -> bool:
        """Have a stream recorded as it is read; whether it is one."""
        if _is_raw(result):
            result = result.parse()  # it is kept, reads nothing, and is what its user will get
        iterator = getattr(result, "__dict__", {}).get("_iterator")
        made = Stepped if hasattr(iterator, "__next__") else AsyncStepped if hasattr(iterator, "__anext__") else None
        if made is None:
            return False
        answer = _Answer(run)
        run.pause()
        result._iterator = made(iterator, Steps(self._recorder, run, answer.read, answer.end))  # type: ignore[arg-type]  # noqa: SLF001
        return True

    def _tell_host(self, model: str, resource: Any) -> None:
        host = str(resource._client.base_url.host)  # noqa: SLF001  (resources have no other name for it)
        if (model, host) not in self._told:
            self._recorder.model_info(model, device="remote", provider=host, format="openai")
            self._told.add((model, host))


class _Answer:
    """What the events of a stream tell, one after the other."""

    __slots__ = ("begun", "error", "run", "told")

    def __init__(self, run: Watched) -> None:
        self.run = run
        self.begun = False
        self.error: BaseException | None = None
        self.told: Any = None  # the last event with a count of tokens: some providers count in every one

    def read(self, event: Any) -> None:
        """An event came."""
        if not self.begun and _generated(event):
            self.begun = True
            self.run.first_item()
        response = getattr(event, "response", None)
        found = event if response is None else response
        if getattr(found, "usage", None) is not None or getattr(found, "error", None) is not None:
            self.told = found
        if "error" in {getattr(event, "type", None), getattr(event, "event", None)}:  # the latter in older releases
            self.error = ResponseFailedError()

    def end(self) -> BaseException | None:
        """No other event comes; gives what the response failed with."""
        return _report(self.run, self.told) or self.error


def _generated(event: Any) -> bool:
    """Whether an event of a stream carries something that the model generated."""
    kind = getattr(event, "type", None)
    if isinstance(kind, str):  # of a response, which begins with events of its own state
        return kind.endswith(".delta")
    for choice in getattr(event, "choices", None) or ():
        delta = getattr(choice, "delta", None)
        if getattr(choice, "text", None) or (delta and any(value for name, value in delta if name != _ROLE)):
            return True
    return False


def _report(run: Watched, answer: Any) -> BaseException | None:
    """Report the tokens that an answer tells; gives what it failed with."""
    if answer is None or not run.own:
        return None
    usage = getattr(answer, "usage", None)
    if usage is not None:
        prompt, completion = (_count(usage, name) for name in ("prompt", "completion"))
        run.call.tokens(prompt=prompt, completion=completion)
        facts = run.call.fact()
        if facts.first_item is not None and completion > 1:
            facts.per_token = max(0.0, run.seconds() - facts.first_item) / (completion - 1)
    error = getattr(answer, "error", None)
    return ResponseFailedError() if error is not None and getattr(answer, "status", None) == "failed" else None


def _count(usage: Any, kind: str) -> float:
    """The tokens of a kind, which the older and the newer endpoints call by different names."""
    newer = {"prompt": "input_tokens", "completion": "output_tokens"}[kind]
    count = getattr(usage, kind + "_tokens", None)
    return count or getattr(usage, newer, None) or 0


def _report_batch(run: Watched, inputs: Any) -> None:
    """Report how many texts are sent: one text, one list of tokens, or a list of either."""
    if isinstance(inputs, str):
        run.call.batch_size(1)
    elif isinstance(inputs, list | tuple) and inputs:
        run.call.batch_size(1 if isinstance(inputs[0], int) else len(inputs))


def _is_raw(result: Any) -> bool:
    return type(result).__name__ == "LegacyAPIResponse"


def _told(result: Any) -> Any:
    """What tells the tokens of an answer: itself, or of a raw one the count in its text."""
    return _Raw(result.http_response.content) if _is_raw(result) else result


class _Raw:
    """An answer of which only the count of tokens was parsed.

    Args:
        body: JSON.
    """

    error = None
    usage: Any = None

    def __init__(self, body: bytes) -> None:
        # In a string its quotes would be escaped, so this is a key; the last one whose value is a count.
        at = body.rfind(b'"usage"')
        while at >= 0 and self.usage is None:
            value = body[at + len(b'"usage"') :].lstrip()
            if value.startswith(b":"):
                try:
                    found, _ = json.JSONDecoder().raw_decode(value[1:].lstrip().decode("utf-8", "replace"))
                except ValueError:
                    found = None
                if isinstance(found, dict) and ("prompt_tokens" in found or "input_tokens" in found):
                    self.usage = _Usage(found)
            at = body.rfind(b'"usage"', 0, at)


class _Usage:
    """A count of tokens, as attributes."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.__dict__.update(found)
