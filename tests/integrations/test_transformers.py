"""The real transformers keeps the contract: small models of random weights, without a network."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from tests.integrations import torchvision_shim
from tests.integrations.contract import Case, Contract
from tests.page import Page

torch: Any = pytest.importorskip("torch", reason="make test-frameworks installs PyTorch and transformers")
torchvision_shim.mend()
transformers: Any = pytest.importorskip("transformers", reason="make test-frameworks installs it")

if TYPE_CHECKING:
    import infermeter

pytestmark = pytest.mark.filterwarnings("default")  # theirs

WORDS = [f"w{index}" for index in range(47)]
NEW = 4
"""Tokens that each call generates; these models never end a text."""


@cache
def tokenizer() -> Any:
    """Of fifty words."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: index for index, word in enumerate(["<unk>", "<pad>", "<end>", *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="<end>", padding_side="left"
    )


def language_model() -> Any:
    """The same one each time."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=16, vocab_size=50, n_positions=64, bos_token_id=2, eos_token_id=2, pad_token_id=1
    )
    return transformers.GPT2LMHeadModel(config).eval()


class Streamer:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def put(self, value: Any) -> None:
        """The prompt, then tokens."""
        self.seen.append(value.tolist())

    def end(self) -> None:
        """No other one follows."""
        self.seen.append("end")


PROMPT = torch.tensor([[5, 6, 7]])
PADDED = torch.tensor([[1, 5, 6], [7, 8, 9]])
MASK = (PADDED != 1).long()
OPTIONS = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}


def streamed(model: Any) -> Any:
    """What a streamer sees."""
    streamer = Streamer()
    result = model.generate(PROMPT, streamer=streamer, **OPTIONS)
    return [result, streamer.seen]


def pipeline(model: Any) -> Any:
    """A pipeline of a model."""
    return transformers.pipeline("text-generation", model=model, tokenizer=tokenizer(), **OPTIONS)


class TestContract(Contract):
    """`generate`, and pipelines around it."""

    integration = "transformers"
    cases = {
        "generate": Case(lambda model: model.generate(PROMPT, **OPTIONS)),
        "padded batch": Case(lambda model: model.generate(PADDED, attention_mask=MASK, **OPTIONS)),
        "streamed": Case(streamed),
        "wrong option": Case(lambda model: model.generate(PROMPT, no_such_option=1), failures=1),
        "pipeline": Case(lambda model: pipeline(model)("w1 w2")),
        "pipeline of several": Case(lambda model: pipeline(model)(["w1 w2", "w3"])),
        "pipeline of a generator": Case(lambda model: list(pipeline(model)(word for word in WORDS[:3]))),
    }

    def subject(self) -> Any:
        return language_model()

    def patched(self) -> list[tuple[Any, str]]:
        mixin: Any = sys.modules["transformers.generation.utils"]
        base: Any = __import__("transformers.pipelines.base").pipelines.base
        return [(mixin.GenerationMixin, "generate"), (base.Pipeline, "__call__")]


def tokens(recorder: infermeter.Recorder) -> tuple[float, float]:
    """Prompt and completion tokens."""
    found = Page.of(recorder).by("type", "inference_tokens_total")
    return found["prompt"], found["completion"]


def test_tokens_are_counted(recorder: infermeter.Recorder) -> None:
    """Of a prompt what the mask keeps, of a completion what follows it, in every row."""
    recorder.instrument("transformers")
    model = language_model()
    model.generate(PROMPT, **OPTIONS)
    assert tokens(recorder) == (3, NEW)
    model.generate(PADDED, attention_mask=MASK, **OPTIONS)
    assert tokens(recorder) == (3 + 5, 3 * NEW)
    page = Page.of(recorder)
    assert page.by("model", "inferences_total") == {"GPT2LMHeadModel": 2}
    assert page.value("inference_batch_size_sum") == 3


def test_a_streamer_tells_the_time(recorder: infermeter.Recorder) -> None:
    """Of the first token, and of those after it."""
    recorder.instrument("transformers")
    streamed(language_model())
    page = Page.of(recorder)
    assert page.value("inference_time_to_first_item_seconds_count") == 1
    assert page.value("inference_time_per_token_seconds_count") == 1


def test_tokens_of_a_pipeline_are_its_own(recorder: infermeter.Recorder) -> None:
    """One inference, with a stage in it."""
    recorder.instrument("transformers")
    pipeline(language_model())("w1 w2")
    page = Page.of(recorder)
    assert page.value("inferences_total") == 1
    assert page.by("stage", "inference_stage_duration_seconds_count") == {"transformers": 1}
    assert tokens(recorder) == (2, NEW)
