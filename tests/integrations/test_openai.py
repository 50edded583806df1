"""The real openai client keeps the contract, asked of a server on this host."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integrations.contract import Case, Contract
from tests.integrations.openai_server import BREAKS, BROKEN, BUSY, COMPLETION, PROMPT, STUCK, WORDS, serving
from tests.page import Page

openai: Any = pytest.importorskip("openai")

if TYPE_CHECKING:
    from collections.abc import Iterator

    import infermeter
    from tests.integrations.conftest import Clock

pytestmark = pytest.mark.filterwarnings("default")  # theirs

URL: list[str] = []
MADE: list[Any] = []
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """Whom all ask."""
    with serving() as url:
        URL[:] = [url]
        yield
        while MADE:
            MADE.pop().close()


def client() -> Any:
    """A client that asks once, and reads no certificates, which takes longer than all that it is asked here."""
    http_client = openai.DefaultHttpxClient(verify=False)
    MADE.append(openai.OpenAI(api_key="none", base_url=URL[0], max_retries=0, http_client=http_client))
    return MADE[-1]


def aclient() -> Any:
    """The same for asynchronous code; made where its loop runs."""
    http_client = openai.DefaultAsyncHttpxClient(verify=False)
    return openai.AsyncOpenAI(api_key="none", base_url=URL[0], max_retries=0, http_client=http_client)


def chat(one: Any, model: str = "gpt", **options: Any) -> Any:
    """A chat."""
    return one.chat.completions.create(model=model, messages=HELLO, **options)


async def achat(_: Any) -> Any:
    """A chat of asynchronous code."""
    async with aclient() as one:
        return await chat(one)


async def astream(_: Any, **options: Any) -> list[Any]:
    """A stream of asynchronous code, read to its end."""
    async with aclient() as one:
        return [chunk async for chunk in await chat(one, stream=True, **options)]


async def arefused(_: Any) -> Any:
    """A request that is refused."""
    async with aclient() as one:
        return await chat(one, BUSY)


class TestContract(Contract):
    """Every kind of request."""

    integration = "openai"
    cases = {
        "chat": Case(chat),
        "stream": Case(lambda one: list(chat(one, stream=True))),
        "stream with usage": Case(lambda one: list(chat(one, stream=True, stream_options={"include_usage": True}))),
        # Of a new client: what `with_raw_response` gave once holds the methods that there were.
        "raw": Case(lambda _: client().chat.completions.with_raw_response.create(model="gpt", messages=HELLO).parse()),
        "async": Case(achat),
        "async stream": Case(astream),
        "response": Case(lambda one: one.responses.create(model="gpt", input="hello")),
        "response stream": Case(lambda one: list(one.responses.create(model="gpt", input="hello", stream=True))),
        "embedding": Case(lambda one: one.embeddings.create(model="ada", input=["a", "b"], encoding_format="float")),
        "refused": Case(lambda one: chat(one, BUSY), failures=1),
        "server error": Case(lambda one: chat(one, BROKEN), failures=1),
        "async refused": Case(arefused, failures=1),
        "broken stream": Case(lambda one: list(chat(one, BREAKS, stream=True)), failures=1),
        "wrong arguments": Case(lambda one: one.chat.completions.create(model="gpt"), inferences=0),
        "what cannot be sent": Case(lambda one: chat(one, stop=object()), inferences=0),
    }

    def subject(self) -> Any:
        return client()

    def patched(self) -> list[tuple[Any, str]]:
        names = {
            "openai.resources.chat.completions.completions": ("Completions", "create"),
            "openai.resources.embeddings": ("Embeddings", "create"),
            "openai.resources.responses.responses": ("Responses", "create"),
            "openai._streaming": ("Stream", "close"),
        }
        return [
            (getattr(sys.modules[module], prefix + owner), name)
            for module, (owner, name) in names.items()
            for prefix in ("", "Async")
        ]

    def shown(self, result: Any) -> Any:
        if isinstance(result, list):
            return [self.shown(one) for one in result]
        return type(result), result.model_dump()


@pytest.fixture
def watching(recorder: infermeter.Recorder) -> infermeter.Recorder:
    """A recorder that watches openai."""
    recorder.instrument("openai")
    return recorder


def tokens(recorder: infermeter.Recorder) -> tuple[float, float]:
    """Prompt and completion tokens."""
    found = Page.of(recorder).by("type", "inference_tokens_total")
    return found["prompt"], found["completion"]


def test_tokens_are_those_that_the_provider_tells(watching: infermeter.Recorder) -> None:
    """Of chats, responses and embeddings; of a stream only if they were asked for."""
    one = client()
    chat(one)
    assert tokens(watching) == (PROMPT, COMPLETION)
    one.responses.create(model="gpt", input="hello")
    assert tokens(watching) == (2 * PROMPT, 2 * COMPLETION)
    list(chat(one, stream=True))
    assert tokens(watching) == (2 * PROMPT, 2 * COMPLETION)
    list(chat(one, stream=True, stream_options={"include_usage": True}))
    assert tokens(watching) == (3 * PROMPT, 3 * COMPLETION)
    list(one.responses.create(model="gpt", input="hello", stream=True))
    assert tokens(watching) == (4 * PROMPT, 4 * COMPLETION)
    one.chat.completions.with_raw_response.create(model="gpt", messages=HELLO)
    assert tokens(watching) == (5 * PROMPT, 5 * COMPLETION)
    one.embeddings.create(model="gpt", input="a", encoding_format="float")
    assert tokens(watching) == (6 * PROMPT, 5 * COMPLETION)


def test_embeddings_are_a_batch(watching: infermeter.Recorder) -> None:
    """Of as many texts as are sent."""
    one = client()
    one.embeddings.create(model="ada", input=["a", "b", "c"], encoding_format="float")
    one.embeddings.create(model="ada", input="a", encoding_format="float")
    one.embeddings.create(model="ada", input=[1, 2, 3, 4], encoding_format="float")  # a text, as its tokens
    one.embeddings.create(model="ada", input=[[1, 2], [3, 4]], encoding_format="float")
    one.completions.create(model="ada", prompt=["a", "b"])
    page = Page.of(watching)
    assert page.value("inference_batch_size_count", model="ada") == 5
    assert page.value("inference_batch_size_sum", model="ada") == 3 + 1 + 1 + 2 + 2


def ticking(clock: Clock, events: list[dict[str, Any]]) -> Any:
    """A client of a server for whose every event one waits a second."""

    def stream() -> Iterator[bytes]:
        for event in events:
            clock.passes(1)
            yield f"data: {json.dumps(event)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    def answer(_: Any) -> Any:
        clock.passes(2)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream())

    http_client = httpx.Client(transport=httpx.MockTransport(answer))
    MADE.append(openai.OpenAI(api_key="none", base_url="http://ticking", max_retries=0, http_client=http_client))
    return MADE[-1]


@pytest.mark.parametrize("counted", [True, False])
def test_the_seconds_of_a_stream(clock: Clock, watching: infermeter.Recorder, *, counted: bool) -> None:
    """Until its first word, for each of those after it, and all that was spent waiting; not what its reader does.

    The time of each word is known only where their number is told.
    """
    usage = {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5} if counted else None
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS[:3])]
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [], "usage": usage})
    same = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "gpt"}
    stream = chat(ticking(clock, [same | chunk for chunk in chunks]), stream=True)
    clock.passes(1000)
    for _ in stream:
        clock.passes(100)
    page = Page.of(watching)
    assert page.value("inference_duration_sum") == 7
    assert page.value("inference_time_to_first_item_seconds_sum") == 4
    assert page.value("inference_time_to_first_item_seconds_count") == 1
    if counted:
        assert page.value("inference_time_per_token_seconds_sum") == (7 - 4) / (4 - 1)
    assert ("inference_time_per_token_seconds_count" in page.names) == counted


def test_the_provider_is_a_host(watching: infermeter.Recorder) -> None:
    """Without port, path or key; the service stays the one that asks."""
    chat(client())
    (info,) = [own for name, own, _ in Page.of(watching).samples if name == "model_info"]
    assert (info["provider"], info["format"], info["device"], info["service"]) == (
        "127.0.0.1",
        "openai",
        "remote",
        "test",
    )


def test_a_model_is_called_as_it_was_asked_for(watching: infermeter.Recorder) -> None:
    """Not by the dated name that answers."""
    assert chat(client()).model == "gpt-2026-01-01"
    assert Page.of(watching).by("model", "inferences_total") == {"gpt": 1}


def left(recorder: infermeter.Recorder) -> None:
    """One inference was recorded as ended, and no failure."""
    page = Page.of(recorder)
    assert page.value("inferences_total") == 1
    assert page.value("inferences_in_flight") == 0
    assert sum(page.by("error_type", "model_errors_total").values()) == 0
    assert page.dropped() == {}


@pytest.mark.parametrize("end", ["close", "with", "drop"])
def test_a_stream_that_is_left_early_is_success(watching: infermeter.Recorder, end: str) -> None:
    """It ends when it is closed or collected, and does not stay in flight."""
    one = client()
    stream = chat(one, stream=True)
    if end == "with":
        with stream:
            next(stream)
    else:
        next(iter(stream))
        if end == "close":
            stream.close()
    del stream
    gc.collect()
    left(watching)


@pytest.mark.parametrize("end", ["close", "with", "drop"])
def test_an_asynchronous_stream_that_is_left_early(watching: infermeter.Recorder, end: str) -> None:
    """The same in a task."""

    async def leave() -> None:
        async with aclient() as one:
            stream = await chat(one, stream=True)
            if end == "with":
                async with stream:
                    await anext(stream)
            else:
                await anext(stream)
                if end == "close":
                    await stream.close()
            del stream
            gc.collect()

    asyncio.run(leave())
    left(watching)


def test_a_broken_stream_is_one_failure(watching: infermeter.Recorder) -> None:
    """It is counted once, with what was read before."""
    with pytest.raises(Exception, match=r"Connection error|peer closed connection"):  # of newer and older releases
        list(chat(client(), BREAKS, stream=True))
    page = Page.of(watching)
    assert sum(page.by("error_type", "model_errors_total").values()) == 1
    assert page.value("inferences_total") == 1


def test_twenty_streams_at_once(watching: infermeter.Recorder) -> None:
    """Each is an inference of its own, whichever task reads it."""

    async def all_of_them() -> int:
        async with aclient() as one:

            async def read() -> int:
                stream = await chat(one, stream=True, stream_options={"include_usage": True})
                return len([chunk async for chunk in stream])

            return sum(await asyncio.gather(*[read() for _ in range(20)]))

    assert asyncio.run(all_of_them()) == 20 * (len(WORDS) + 3)
    page = Page.of(watching)
    assert page.value("inferences_total") == 20
    assert page.value("inference_time_to_first_item_seconds_count") == 20
    assert tokens(watching) == (20 * PROMPT, 20 * COMPLETION)
    assert page.value("inferences_in_flight") == 0
    assert page.dropped() == {}


def test_a_cancelled_stream(watching: infermeter.Recorder) -> None:
    """Whoever gives up waiting is told apart from what failed."""

    async def given_up() -> None:
        async with aclient() as one:
            stream = await chat(one, STUCK, stream=True)
            await anext(stream)
            async with asyncio.timeout(0.01):
                async for _ in stream:  # the second word never comes
                    pass

    with pytest.raises(TimeoutError):
        asyncio.run(given_up())
    found = Page.of(watching).by("error_type", "model_errors_total")
    assert {kind: number for kind, number in found.items() if number} == {"cancelled": 1}


def test_end_of_watching_during_a_stream(recorder: infermeter.Recorder) -> None:
    """What has begun is recorded, and reads on."""
    recorder.instrument("openai")
    stream = chat(client(), stream=True)
    next(stream)
    recorder.uninstrument()
    assert len(list(stream)) == len(WORDS) + 1
    page = Page.of(recorder)
    assert (page.value("inferences_total"), page.value("inferences_in_flight")) == (1, 0)
