"""What is exposed of the real transformers is what the texts themselves say."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import pytest

import infermeter
from tests.integrations import text_models
from tests.integrations.text_models import EOS, PAD, PICTURE, causal, classifier, detector, tokenizer, translator
from tests.page import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integrations.conftest import Clock

pytestmark = pytest.mark.filterwarnings("default")  # theirs

torch, transformers = text_models.torch, text_models.transformers
BaseStreamer: Any = transformers.generation.streamers.BaseStreamer

TEXTS = ["one two three", "four"]  # of 3 tokens and 1, which is padded by 2
# What follows them: 8 8 8 8 8 8 and 8 5 5 5 5 5.
NEW = 6
OPTIONS = {"max_new_tokens": NEW, "do_sample": False}
FOUR, ONE = 8, 5


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with text_models.alone():
        yield


@pytest.fixture
def watching(recorder: infermeter.Recorder) -> infermeter.Recorder:
    """A recorder that watches transformers."""
    recorder.instrument("transformers")
    return recorder


def encoded(texts: Any = TEXTS) -> Any:
    """The tokens of texts."""
    return tokenizer()(texts, return_tensors="pt", padding=True)


def pipeline() -> Any:
    """Continues texts."""
    return transformers.pipeline("text-generation", model=causal(), tokenizer=tokenizer())


def tokens(recorder: infermeter.Recorder) -> tuple[float, float]:
    """Prompt and completion tokens."""
    page = Page.of(recorder)
    return page.value("inference_tokens_total", type="prompt"), page.value("inference_tokens_total", type="completion")


def counted(recorder: infermeter.Recorder) -> dict[str, float]:
    """Inferences by model, none of which is open; nothing was dropped."""
    page = Page.of(recorder)
    assert (page.value("inferences_in_flight"), page.dropped()) == (0, {})
    return page.by("model", "inferences_total")


def second_row_stops(ids: Any, _scores: Any, **_: Any) -> Any:
    """Ends a row by another means than a token that ends it."""
    return torch.tensor([False, ids.shape[1] > 4])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, NEW * 2),
        ({"eos_token_id": ONE}, NEW + 2),
        ({"eos_token_id": [ONE, EOS]}, NEW + 2),
        ({"eos_token_id": torch.tensor(ONE)}, NEW + 2),
        ({"eos_token_id": FOUR}, 1 + 1),
        # As many do whose model has no token for padding.
        ({"eos_token_id": ONE, "pad_token_id": ONE}, NEW + 2),
        ({"stopping_criteria": [second_row_stops]}, NEW + 2),
        ({"return_dict_in_generate": True, "eos_token_id": ONE}, NEW + 2),
        ({"generation_config": transformers.GenerationConfig(eos_token_id=ONE, pad_token_id=0)}, NEW + 2),
        ({"num_beams": 2, "num_return_sequences": 2, "min_new_tokens": NEW}, NEW * 4),
    ],
)
def test_tokens(watching: infermeter.Recorder, options: dict[str, Any], expected: int) -> None:
    """Neither what pads a prompt counts, nor what follows the token that ends a row, which does."""
    causal().generate(**encoded(), **OPTIONS, **options)
    assert tokens(watching) == (3 + 1, expected)
    assert Page.of(watching).value("inference_batch_size_sum") == len(TEXTS)


def test_what_ends_a_row_may_be_in_the_prompt(watching: infermeter.Recorder) -> None:
    """Only what is generated ends it."""
    causal().generate(**encoded("one two three"), eos_token_id=tokenizer().vocab["two"], **OPTIONS)
    assert tokens(watching) == (3, NEW)


def test_prompts_of_every_form(watching: infermeter.Recorder) -> None:
    """By place, without a mask, as vectors, or none at all, of which one token is made."""
    generate = functools.partial(causal().generate, min_new_tokens=NEW, **OPTIONS)
    prompts: list[tuple[tuple[Any, ...], dict[str, Any], int, int]] = [
        ((encoded().input_ids,), {}, 6, 2),
        ((), {"inputs": encoded("one two").input_ids}, 2, 1),
        ((), {"input_ids": encoded("one").input_ids}, 1, 1),
        ((), {"inputs_embeds": torch.zeros(1, 5, 16)}, 5, 1),
        ((), {}, 1, 1),
    ]
    total, rows = 0, 0
    for args, kwargs, prompt, new in prompts:
        generate(*args, **kwargs)
        total += prompt
        rows += new
        assert tokens(watching) == (total, NEW * rows)
        assert Page.of(watching).value("inference_batch_size_sum") == rows


def test_tokens_of_a_translation(watching: infermeter.Recorder) -> None:
    """What is encoded is the prompt; the token that begins the answer is not generated."""
    translator().generate(**encoded(), suppress_tokens=[PAD, EOS], **OPTIONS)
    assert tokens(watching) == (4, 2 * NEW)


def test_a_streamer_times_the_first_token_once(watching: infermeter.Recorder) -> None:
    """Read in another thread than the one that generates, as services do it."""
    streamer = transformers.TextIteratorStreamer(tokenizer(), skip_prompt=True)
    options = {**encoded("one two"), **OPTIONS, "streamer": streamer}
    thread = threading.Thread(target=causal().generate, kwargs=options)
    thread.start()
    assert (
        "".join(streamer).split()
        == tokenizer().decode(causal().generate(**encoded("one two"), **OPTIONS)[0][2:]).split()
    )
    thread.join()
    page = Page.of(watching)
    assert counted(watching) == {"GPT2LMHeadModel": 2}
    assert page.value("inference_time_to_first_item_seconds_count") == 1
    assert page.value("inference_time_per_token_seconds_count") == 1


class Noted(BaseStreamer):  # type: ignore[misc]
    """A streamer of a user's own.

    Args:
        slow: called with the number of each piece.
    """

    def __init__(self, slow: Callable[[int], None] = lambda _: None) -> None:
        self.pieces: list[Any] = []
        self.slow = slow

    def put(self, value: Any) -> None:
        self.pieces.append(value.tolist())
        self.slow(len(self.pieces))

    def end(self) -> None:
        self.pieces.append("end")


@pytest.mark.parametrize("by_place", [False, True])
def test_a_streamer_gets_what_it_got(watching: infermeter.Recorder, *, by_place: bool) -> None:
    """The prompt, each token, and the end."""
    streamer = Noted()
    ids = encoded("one two").input_ids
    if by_place:
        causal().generate(ids, None, None, None, None, None, None, streamer, **OPTIONS)
    else:
        causal().generate(ids, streamer=streamer, **OPTIONS)
    assert streamer.pieces[0] == ids.tolist()
    assert (len(streamer.pieces), streamer.pieces[-1]) == (NEW + 2, "end")
    assert Page.of(watching).value("inference_time_to_first_item_seconds_count") == 1


def test_the_seconds_of_tokens(clock: Clock, watching: infermeter.Recorder) -> None:
    """Until the first is there, and from one to the next; the prompt, which a streamer gets before, is no token."""
    causal().generate(
        **encoded("one"), **OPTIONS, streamer=Noted(lambda piece: clock.passes(10.0 if piece == 1 else 1))
    )
    page = Page.of(watching)
    assert page.value("inference_time_to_first_item_seconds_sum") == 10
    assert page.value("inference_time_per_token_seconds_sum") == NEW / (NEW - 1)
    assert page.value("inference_duration_sum") == 10 + NEW


def test_one_token_has_none_after_it(watching: infermeter.Recorder) -> None:
    """There is a first one, and no time between two."""
    causal().generate(**encoded("one"), max_new_tokens=1, do_sample=False, streamer=Noted())
    page = Page.of(watching)
    assert page.value("inference_time_to_first_item_seconds_count") == 1
    assert "inference_time_per_token_seconds_count" not in page.names


def test_without_a_streamer_no_token_is_timed(watching: infermeter.Recorder) -> None:
    """When each came is not known, and not guessed."""
    causal().generate(**encoded(), **OPTIONS)
    names = Page.of(watching).names
    assert not names & {"inference_time_to_first_item_seconds_count", "inference_time_per_token_seconds_count"}


def test_a_pipeline_is_one_inference_with_the_tokens_inside(watching: infermeter.Recorder) -> None:
    """What it generates is a stage of it, not another inference."""
    pipeline()(TEXTS, batch_size=2, **OPTIONS)
    page = Page.of(watching)
    assert counted(watching) == {"GPT2LMHeadModel": 1}
    assert tokens(watching) == (4, 2 * NEW)
    assert page.value("inference_batch_size_sum") == 2
    assert page.by("stage", "inference_stage_duration_seconds_count") == {"transformers": 1}
    assert page.value("inference_stage_duration_seconds_sum") < page.value("inference_duration_sum")


def test_a_pipeline_with_a_streamer(watching: infermeter.Recorder) -> None:
    """The first token is that of the pipeline."""
    pipeline()("one two", streamer=Noted(), **OPTIONS)
    page = Page.of(watching)
    assert page.value("inference_time_to_first_item_seconds_count") == 1
    assert page.value("inference_time_per_token_seconds_count") == 1


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [("one", 1), (["one"], 1), (["one", "two", "three"], 3), ({"text": "one", "text_pair": "two"}, 1)],
)
def test_a_batch_is_what_a_pipeline_is_given(watching: infermeter.Recorder, inputs: Any, expected: int) -> None:
    """Texts, however many the model takes at a time."""
    transformers.pipeline("text-classification", model=classifier(), tokenizer=tokenizer())(inputs)
    page = Page.of(watching)
    assert (page.value("inference_batch_size_count"), page.value("inference_batch_size_sum")) == (1, expected)


def test_a_pipeline_over_a_generator(watching: infermeter.Recorder) -> None:
    """One inference, of as many items as were read; what its reader does meanwhile is not in it."""
    inside: list[float] = []
    for _ in pipeline()((text for text in TEXTS), **OPTIONS):
        page = Page.of(watching)
        inside.append(page.value("inferences_in_flight"))
        with watching.track(model="reader"):
            pass
    page = Page.of(watching)
    assert inside == [1, 1]
    assert counted(watching) == {"GPT2LMHeadModel": 1, "reader": 2}
    assert page.value("inference_batch_size_sum") == 2
    assert tokens(watching) == (4, 2 * NEW)
    assert page.value("inference_time_to_first_item_seconds_count") == 1


def test_a_generator_that_nobody_reads_to_its_end(watching: infermeter.Recorder) -> None:
    """What was read counts, when the rest is dropped; what was not begun is no inference."""
    found = iter(pipeline()((text for text in TEXTS), **OPTIONS))
    next(found)
    unread = pipeline()((text for text in TEXTS), **OPTIONS)
    del found, unread
    gc.collect()
    assert counted(watching) == {"GPT2LMHeadModel": 1}
    assert Page.of(watching).value("inference_batch_size_sum") == 1


def test_end_of_watching_during_a_generator(recorder: infermeter.Recorder) -> None:
    """What has begun is recorded, and reads on."""
    recorder.instrument("transformers")
    found = iter(pipeline()((text for text in TEXTS), **OPTIONS))
    next(found)
    recorder.uninstrument()
    next(found)
    with pytest.raises(StopIteration):
        next(found)
    assert counted(recorder) == {"GPT2LMHeadModel": 1}


def test_end_of_watching_during_generate(recorder: infermeter.Recorder) -> None:
    """It is recorded, with its tokens."""
    recorder.instrument("transformers")
    causal().generate(**encoded("one"), streamer=Noted(lambda _: recorder.uninstrument()), **OPTIONS)
    assert counted(recorder) == {"GPT2LMHeadModel": 1}
    assert tokens(recorder) == (1, NEW)
    causal().generate(**encoded("one"), **OPTIONS)
    assert counted(recorder) == {"GPT2LMHeadModel": 1}


def test_generate_inside_generate(watching: infermeter.Recorder) -> None:
    """A small model that helps a large one is a stage of it, and what it proposes is not generated."""
    large, small = causal(), type(causal())(causal().config).eval()
    expected = large.generate(**encoded("one two"), **OPTIONS).tolist()
    found = large.generate(**encoded("one two"), assistant_model=small, **OPTIONS)
    assert found.tolist() == expected
    assert counted(watching) == {"GPT2LMHeadModel": 2}
    assert tokens(watching) == (4, 2 * NEW)
    assert Page.of(watching).value("inference_stage_duration_seconds_count") > 0


def test_objects_that_a_pipeline_finds(watching: infermeter.Recorder) -> None:
    """Each picture is a frame, with its classes and confidences."""
    found = detector()([PICTURE, PICTURE])
    assert [len(one) for one in found] == [3, 3]
    page = Page.of(watching)
    labels = [one["label"] for each in found for one in each]
    assert page.by("class", "detections_total") == {label: labels.count(label) for label in set(labels)}
    scores = [one["score"] for each in found for one in each]
    assert page.value("detection_confidence_sum") == pytest.approx(sum(scores))
    assert (page.value("objects_per_frame_count"), page.value("objects_per_frame_sum")) == (2, 6)


def test_no_object_is_a_frame_without_one(watching: infermeter.Recorder) -> None:
    """It counts among the frames."""
    assert detector()(PICTURE, threshold=1.0) == []
    page = Page.of(watching)
    assert (page.value("objects_per_frame_count"), page.value("objects_per_frame_sum")) == (1, 0)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("org/name", "org/name"),
        ("/data/models/chat/checkpoint-500", "chat"),
        ("/data/hub/models--org--name/snapshots/" + "a" * 40, "org/name"),
        ("", "GPT2LMHeadModel"),
    ],
)
def test_a_model_is_called_by_its_name_at_the_hub(
    watching: infermeter.Recorder, stored: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or by its folder, or by its class; never by a path."""
    monkeypatch.setattr(causal(), "name_or_path", stored)
    causal().generate(**encoded(), **OPTIONS)
    assert counted(watching) == {expected: 1}
    (info,) = [own for name, own, _ in Page.of(watching).samples if name == "model_info"]
    assert (info["device"], info["provider"]) == ("cpu", "transformers")


def test_marks_rename(watching: infermeter.Recorder) -> None:
    """Of a model for all that uses it, of a pipeline for that one."""
    one, other = pipeline(), pipeline()
    model = type(causal())(causal().config).eval()
    watching.watch(one, "chat", "2")
    watching.watch(model, "gate")
    one("one", **OPTIONS)
    other("one", **OPTIONS)
    model.generate(**encoded(), **OPTIONS)
    assert counted(watching) == {"chat": 1, "GPT2LMHeadModel": 1, "gate": 1}


def test_a_coroutine_that_generates_elsewhere(watching: infermeter.Recorder) -> None:
    """`to_thread` takes the inference around it along, of which it is a stage."""

    async def answer() -> None:
        with watching.track(model="outer"):
            await asyncio.gather(*[asyncio.to_thread(causal().generate, **encoded("one"), **OPTIONS) for _ in range(3)])

    asyncio.run(answer())
    assert counted(watching) == {"outer": 1}
    assert Page.of(watching).by("stage", "inference_stage_duration_seconds_count") == {"transformers": 3}


def test_a_pipeline_in_an_inference_is_one_stage(watching: infermeter.Recorder) -> None:
    """Its seconds are in it once, though what it generates is watched too."""
    with watching.track(model="outer"):
        pipeline()("one", **OPTIONS)
    page = Page.of(watching)
    assert page.by("stage", "inference_stage_duration_seconds_count") == {"transformers": 1}
    assert page.value("inference_stage_duration_seconds_sum") < page.value("inference_duration_sum")


@pytest.mark.parametrize(
    ("module", "missing"),
    [("transformers.generation.utils", "GenerationMixin"), ("transformers.pipelines.base", "Pipeline")],
)
def test_a_release_that_is_too_old_or_too_new(recorder: infermeter.Recorder, module: str, missing: str) -> None:
    """Whoever asked for it by name is told, and nothing is replaced."""
    real = sys.modules[module]
    generate, call = transformers.GenerationMixin.generate, transformers.Pipeline.__call__
    sys.modules[module] = types.ModuleType(module)
    try:
        with pytest.raises(infermeter.ConfigError, match=f"{module} has no {missing}"):
            recorder.instrument("transformers")
    finally:
        sys.modules[module] = real
    assert (transformers.GenerationMixin.generate, transformers.Pipeline.__call__) == (generate, call)
