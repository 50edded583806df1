"""What the real openai client offers besides `create`: each way of asking is one inference, with what it tells."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.integrations.openai_server import AGAIN, BUSY, COMPLETION, CUT, ERRS, FAILS, LATE, PROMPT, WORDS, serving
from tests.page import Page

openai: Any = pytest.importorskip("openai")
pydantic: Any = pytest.importorskip("pydantic")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import infermeter

pytestmark = pytest.mark.filterwarnings("default")  # theirs

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "gpt", "messages": HELLO}
COUNTED = {"include_usage": True}


class Reply(pydantic.BaseModel):  # type: ignore[misc]
    """What is to be read out of an answer, which has it not."""

    word: str


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Whom all ask."""
    with serving() as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """A client that asks once."""
    http_client = openai.DefaultHttpxClient(verify=False)
    with openai.OpenAI(api_key="none", base_url=url, max_retries=0, http_client=http_client) as made:
        yield made


@pytest.fixture
def aclient(url: str) -> Any:
    """The same for asynchronous code."""
    http_client = openai.DefaultAsyncHttpxClient(verify=False)
    return openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, http_client=http_client)


@pytest.fixture(autouse=True)
def watching(recorder: infermeter.Recorder) -> infermeter.Recorder:
    """A recorder that watches openai."""
    recorder.instrument("openai")
    return recorder


def seen(recorder: infermeter.Recorder) -> dict[str, Any]:
    """What was recorded: nothing is open, nothing was dropped."""
    page = Page.of(recorder)
    assert (page.value("inferences_in_flight"), page.dropped()) == (0, {})
    errors = page.by("error_type", "model_errors_total")
    found = page.by("type", "inference_tokens_total")
    return {
        "inferences": page.value("inferences_total"),
        "tokens": (found["prompt"], found["completion"]),
        "errors": {kind: number for kind, number in errors.items() if number},
        "first": sum(page.by("model", "inference_time_to_first_item_seconds_count").values()),
    }


def of(*tokens: int, first: int = 0, **errors: int) -> dict[str, Any]:
    """What one inference leaves."""
    return {"inferences": 1, "tokens": tokens or (PROMPT, COMPLETION), "errors": errors, "first": first}


def parser(one: Any) -> Any:
    """What has the methods that parse: older releases have them elsewhere."""
    return one.chat.completions if hasattr(one.chat.completions, "parse") else one.beta.chat.completions


def streamed(one: Any) -> None:
    """A helper that reads a stream, and gives it whole."""
    with parser(one).stream(**CHAT, stream_options=COUNTED) as stream:
        words = [event.delta for event in stream if event.type == "content.delta"]
        assert [word for word in words if word] == list(WORDS)
        assert stream.get_final_completion().usage.prompt_tokens == PROMPT


def response_streamed(one: Any) -> None:
    """The same of a response."""
    with one.responses.stream(model="gpt", input="hello") as stream:
        assert [event.delta for event in stream if event.type == "response.output_text.delta"] == list(WORDS)


def left(one: Any) -> None:
    """A helper that is left at the first event."""
    with parser(one).stream(**CHAT) as stream:
        next(iter(stream))


def raw_streamed(one: Any) -> None:
    """A raw answer that is a stream."""
    raw = one.chat.completions.with_raw_response.create(**CHAT, stream=True, stream_options=COUNTED)
    assert len(list(raw.parse())) == len(WORDS) + 3


def streaming_response(one: Any) -> None:
    """An answer whose body the user reads himself."""
    with one.chat.completions.with_streaming_response.create(**CHAT) as response:
        assert response.parse().usage.prompt_tokens == PROMPT


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda one: one.completions.create(model="gpt", prompt=["a", "b"]), of()),
        (lambda one: parser(one).parse(**CHAT), of()),
        (lambda one: one.responses.parse(model="gpt", input="hello"), of()),
        (streamed, of(first=1)),
        (response_streamed, of(first=1)),
        (raw_streamed, of(first=1)),
        (left, of(0, 0)),
        (streaming_response, of(0, 0)),
        (lambda one: one.responses.with_raw_response.create(model="gpt", input="hello"), of()),
        (lambda one: one.embeddings.create(model="gpt", input=[1, 2, 3], encoding_format="float"), of(PROMPT, 0)),
        # Whatever it had to try.
        (lambda one: one.with_options(max_retries=1).chat.completions.create(model=AGAIN, messages=HELLO), of()),
        # They end well for the client, and not for who wanted an answer.
        (lambda one: one.responses.create(model=FAILS, input="hello"), of(ResponseFailedError=1)),
        (
            lambda one: list(one.responses.create(model=FAILS, input="hello", stream=True)),
            of(first=1, ResponseFailedError=1),
        ),
        (
            lambda one: list(one.responses.create(model=ERRS, input="hello", stream=True)),
            of(0, 0, first=1, ResponseFailedError=1),
        ),
    ],
)
def test_each_way_is_one_inference(
    watching: infermeter.Recorder, client: Any, ask: Callable[[Any], Any], expected: dict[str, Any]
) -> None:
    """With the tokens that it tells, and the first item of what streams."""
    ask(client)
    assert seen(watching) == expected


@pytest.mark.parametrize(
    ("ask", "error", "expected"),
    [
        (
            lambda one: one.with_options(timeout=0.1).chat.completions.create(model=LATE, messages=HELLO),
            "APITimeoutError",
            of(0, 0, timeout=1),
        ),
        (
            lambda one: parser(one).parse(model=CUT, messages=HELLO, response_format=Reply),
            "LengthFinishReasonError",
            of(LengthFinishReasonError=1),
        ),
        (
            lambda one: one.with_options(max_retries=1).chat.completions.create(model=BUSY, messages=HELLO),
            "RateLimitError",
            of(0, 0, RateLimitError=1),
        ),
    ],
)
def test_each_failure_is_one(
    watching: infermeter.Recorder, client: Any, ask: Callable[[Any], Any], error: str, expected: dict[str, Any]
) -> None:
    """Called by its kind, with the tokens that it cost."""
    with pytest.raises(getattr(openai, error)):
        ask(client)
    assert seen(watching) == expected


def test_asynchronous_helpers(watching: infermeter.Recorder, aclient: Any) -> None:
    """They are asked for in one place and awaited in another."""

    async def ask() -> None:
        async with aclient:
            async with parser(aclient).stream(**CHAT, stream_options=COUNTED) as stream:
                async for _ in stream:
                    pass
            async with aclient.responses.stream(model="gpt", input="hello") as events:
                await anext(aiter(events))
            await parser(aclient).parse(**CHAT)
            await aclient.embeddings.create(model="gpt", input="a", encoding_format="float")

    asyncio.run(ask())
    assert seen(watching) == {
        "inferences": 4,
        "tokens": (3 * PROMPT, 2 * COMPLETION),
        "errors": {},
        "first": 1,
    }


def test_a_stream_stays_the_object_that_it_is(watching: infermeter.Recorder, client: Any) -> None:
    """Its class, its response and its reading are those of the library."""
    stream = client.chat.completions.create(**CHAT, stream=True)
    assert type(stream) is openai.Stream
    assert stream.response.status_code == 200
    assert next(stream).choices[0].delta.role == "assistant"
    assert len(list(stream)) == len(WORDS) + 1
    assert list(stream) == []
    assert seen(watching)["inferences"] == 1


def test_what_is_asked_while_reading_is_its_own(watching: infermeter.Recorder, client: Any) -> None:
    """The reader of a stream is not inside it."""
    for _ in client.chat.completions.create(**CHAT, stream=True):
        client.embeddings.create(model="ada", input="a", encoding_format="float")
    assert Page.of(watching).by("model", "inferences_total") == {"gpt": 1, "ada": len(WORDS) + 2}
