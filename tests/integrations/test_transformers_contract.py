"""The real transformers keeps the contract: what generates, and pipelines."""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from tests.integrations import text_models
from tests.integrations.contract import Case, Contract
from tests.integrations.text_models import PICTURE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("default")  # theirs

transformers = text_models.transformers
BaseStreamer: Any = transformers.generation.streamers.BaseStreamer

OPTIONS = {"max_new_tokens": 4, "do_sample": False}
TEXTS = ["one two three", "four"]


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with text_models.alone():
        yield


@functools.cache
def subjects() -> Any:
    """A model of each kind, and pipelines of them."""
    model, tokenizer = text_models.causal(), text_models.tokenizer()
    return types.SimpleNamespace(
        model=model,
        translator=text_models.translator(),
        generator=transformers.pipeline("text-generation", model=model, tokenizer=tokenizer),
        classifier=transformers.pipeline("text-classification", model=text_models.classifier(), tokenizer=tokenizer),
        detector=text_models.detector(),
    )


def tokens(texts: Any = TEXTS) -> Any:
    """The tokens of texts, of which the shorter ones are padded."""
    return text_models.tokenizer()(texts, return_tensors="pt", padding=True)


class Kept(BaseStreamer):  # type: ignore[misc]
    """A streamer of a user's own, which may fail."""

    def __init__(self, last: int = 99) -> None:
        self.found: list[Any] = []
        self.last = last

    def put(self, value: Any) -> None:
        if len(self.found) == self.last:
            raise ValueError("broken")
        self.found.append(value.tolist())

    def end(self) -> None:
        self.found.append("end")


def streamed(one: Any, streamer: Any = None) -> Any:
    """What a streamer is given, and what comes of it."""
    streamer = streamer or Kept()
    return [one.model.generate(**tokens("one two"), streamer=streamer, **OPTIONS).tolist(), streamer.found]


class Texts(text_models.torch.utils.data.IterableDataset):  # type: ignore[misc]
    """A data set, which a pipeline does not look into before it is iterated."""

    def __init__(self, texts: Any) -> None:
        self.texts = texts

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)


def failing(one: Any) -> Any:
    """A pipeline over a generator that raises."""

    def texts() -> Iterator[str]:
        yield "one"
        yield "two"
        raise ValueError("broken")

    return list(one.classifier(texts()))


def greedy(one: Any, **options: Any) -> Any:
    """What follows two texts."""
    return one.model.generate(**tokens(), **OPTIONS, **options)


class TestContract(Contract):
    """Every way to generate, and to call a pipeline."""

    integration = "transformers"
    cases = {
        "generate": Case(greedy),
        "generate by place": Case(lambda one: one.model.generate(tokens().input_ids, **OPTIONS)),
        "generate from nothing": Case(lambda one: one.model.generate(**OPTIONS)),
        "beams": Case(lambda one: greedy(one, num_beams=2, return_dict_in_generate=True).sequences),
        "translate": Case(lambda one: one.translator.generate(**tokens(), **OPTIONS)),
        "streamer": Case(streamed),
        "streamer that fails": Case(lambda one: streamed(one, Kept(2)), failures=1),
        "wrong option": Case(lambda one: greedy(one, no_such_option=1), failures=1),
        "wrong streamer": Case(lambda one: greedy(one, num_beams=2, streamer=Kept()), failures=1),
        "pipeline": Case(lambda one: one.generator("one two", **OPTIONS)),
        "pipeline of several": Case(lambda one: one.generator(TEXTS, batch_size=2, **OPTIONS)),
        "pipeline over a generator": Case(lambda one: list(one.generator((text for text in TEXTS), **OPTIONS))),
        "pipeline that does not generate": Case(lambda one: one.classifier(TEXTS)),
        "pipeline for objects": Case(lambda one: one.detector([PICTURE, PICTURE])),
        "pipeline that fails": Case(lambda one: one.classifier(7), failures=1),
        "pipeline over what fails": Case(failing, failures=1),
        "pipeline over nothing": Case(lambda one: list(one.classifier(text for text in TEXTS[:0])), inferences=0),
        "pipeline over an empty set": Case(lambda one: list(one.classifier(Texts(()))), inferences=0),
        "pipeline over a set": Case(lambda one: list(one.classifier(Texts(TEXTS)))),
        "wrong arguments": Case(lambda one: one.generator(), inferences=0),
    }

    def subject(self) -> Any:
        return subjects()

    def patched(self) -> list[tuple[Any, str]]:
        base: Any = sys.modules["transformers.pipelines.base"]
        return [
            (transformers.GenerationMixin, "generate"),
            (base.Pipeline, "__call__"),
            *((getattr(base, name), "__next__") for name in ("PipelineIterator", "PipelineChunkIterator")),
        ]
