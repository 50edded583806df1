"""The real sentence-transformers keeps the contract."""

from __future__ import annotations

import functools
import sys
import tempfile
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import infermeter
from tests.integrations import text_models
from tests.integrations.contract import Case, Contract
from tests.page import Page

sentence_transformers: Any = pytest.importorskip(
    "sentence_transformers", reason="make test-frameworks installs sentence-transformers"
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("default")  # theirs

TEXTS = ["one two", "three", "four five six"]
PAIRS = [("one", "two"), ("three", "four")]


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with text_models.alone():
        yield


@functools.cache
def folder(name: str) -> str:
    """Where a model of that name is stored."""
    model = text_models.classifier(1)
    return text_models.stored(model if name == "ranker" else model.bert, Path(tempfile.mkdtemp()) / name)


def encoder() -> Any:
    """Makes vectors of texts."""
    return sentence_transformers.SentenceTransformer(folder("embedder"), device="cpu")


def ranker() -> Any:
    """Compares texts."""
    return sentence_transformers.CrossEncoder(folder("ranker"), device="cpu")


@functools.cache
def both() -> Any:
    """One of each."""
    return types.SimpleNamespace(encoder=encoder(), ranker=ranker())


class TestContract(Contract):
    """Every way to encode and to compare."""

    integration = "sentence-transformers"
    cases = {
        "encode": Case(lambda both: both.encoder.encode(TEXTS)),
        "encode one": Case(lambda both: both.encoder.encode("one")),
        "encode by name": Case(lambda both: both.encoder.encode(sentences=TEXTS, convert_to_tensor=True)),
        "encode_query": Case(lambda both: both.encoder.encode_query(TEXTS)),
        "encode_document": Case(lambda both: both.encoder.encode_document("one")),
        "predict": Case(lambda both: both.ranker.predict(PAIRS)),
        "rank": Case(lambda both: both.ranker.rank("one", TEXTS)),
        "both": Case(lambda both: [both.encoder.encode(TEXTS), both.ranker.predict(PAIRS[0])], inferences=2),
        "no text": Case(lambda both: both.encoder.encode(7), failures=1),
        "no pairs": Case(lambda both: both.ranker.predict(7), failures=1),
    }

    def subject(self) -> Any:
        return both()

    def patched(self) -> list[tuple[Any, str]]:
        methods = {"SentenceTransformer": "encode", "CrossEncoder": "predict", "SparseEncoder": "encode"}
        return [(getattr(sentence_transformers, owner), name) for owner, name in methods.items()]


@pytest.fixture
def watching(recorder: infermeter.Recorder) -> infermeter.Recorder:
    """A recorder that watches sentence-transformers."""
    recorder.instrument("sentence-transformers")
    return recorder


@pytest.mark.parametrize(
    ("texts", "expected"), [(TEXTS, 3), ("one", 1), (tuple(TEXTS), 3), (np.array(TEXTS), 3), ([], 0)]
)
def test_a_batch_is_what_is_given(watching: infermeter.Recorder, texts: Any, expected: int) -> None:
    """Texts that are given at once, however many the model takes at a time."""
    both().encoder.encode(texts, batch_size=2)
    page = Page.of(watching)
    assert page.value("inferences_total") == 1
    assert (page.value("inference_batch_size_count"), page.value("inference_batch_size_sum")) == (1, expected)
    assert page.dropped() == {}


@pytest.mark.parametrize(("pairs", "expected"), [(PAIRS, 2), (PAIRS[0], 1), (list(PAIRS[0]), 1)])
def test_a_batch_of_pairs(watching: infermeter.Recorder, pairs: Any, expected: int) -> None:
    """One pair is not two texts."""
    both().ranker.predict(pairs)
    assert Page.of(watching).value("inference_batch_size_sum") == expected


def test_a_model_is_called_by_its_folder(watching: infermeter.Recorder) -> None:
    """And runs where it runs."""
    both().encoder.encode(TEXTS)
    both().ranker.rank("one", TEXTS)
    page = Page.of(watching)
    assert page.by("model", "inferences_total") == {"embedder": 1, "ranker": 1}
    infos = [own for name, own, _ in page.samples if name == "model_info"]
    assert [(own["model"], own["device"], own["provider"]) for own in infos] == [
        ("embedder", "cpu", "sentence-transformers"),
        ("ranker", "cpu", "sentence-transformers"),
    ]


def test_a_model_of_the_hub_keeps_its_name(watching: infermeter.Recorder) -> None:
    """With its organisation."""
    one = encoder()
    one.model_card_data.set_model_id("org/embedder")
    one.encode(TEXTS)
    assert Page.of(watching).by("model", "inferences_total") == {"org/embedder": 1}


def test_a_model_without_a_name(watching: infermeter.Recorder) -> None:
    """It is called by its class."""
    from sentence_transformers.sentence_transformer.modules import BoW

    sentence_transformers.SentenceTransformer(modules=[BoW(["one", "two"])], device="cpu").encode(TEXTS)
    assert Page.of(watching).by("model", "inferences_total") == {"SentenceTransformer": 1}


def test_a_mark_renames(watching: infermeter.Recorder) -> None:
    """`watch` gives one encoder a name, also after it ran; others keep theirs."""
    one, other = encoder(), encoder()
    one.encode(TEXTS)
    assert watching.watch(one, "search", "2") is one
    for each in (one, other):
        each.encode(TEXTS)
    assert Page.of(watching).by("model", "inferences_total") == {"embedder": 2, "search": 1}


def test_a_watched_module_inside_is_a_stage(watching: infermeter.Recorder) -> None:
    """Nothing is counted twice, and who wants to see the transformer apart sees it."""
    one = encoder()
    watching.instrument("torch")
    watching.watch(one[0], "transformer")
    one.encode(TEXTS)
    page = Page.of(watching)
    assert page.by("model", "inferences_total") == {"embedder": 1}
    assert page.by("stage", "inference_stage_duration_seconds_count") == {"torch": 1}


def test_sparse_vectors(watching: infermeter.Recorder) -> None:
    """Encoders of every kind."""
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    weights = SparseStaticEmbedding(text_models.tokenizer())
    one = sentence_transformers.SparseEncoder(modules=[weights], device="cpu")
    one.encode(TEXTS)
    page = Page.of(watching)
    assert page.by("model", "inferences_total") == {"SparseEncoder": 1}
    assert page.value("inference_batch_size_sum") == len(TEXTS)


@pytest.mark.parametrize("missing", ["SentenceTransformer", "CrossEncoder"])
def test_a_release_that_is_too_old_or_too_new(recorder: infermeter.Recorder, missing: str) -> None:
    """It is left as it is, whole, and whoever asked for it by name is told."""
    real = sys.modules["sentence_transformers"]
    other: Any = types.ModuleType("sentence_transformers")
    (left,) = {"SentenceTransformer", "CrossEncoder"} - {missing}
    encode = predict = lambda self: None
    setattr(other, left, type(left, (), {"encode": encode, "predict": predict}))
    before = dict(vars(getattr(other, left)))
    sys.modules["sentence_transformers"] = other
    try:
        with pytest.raises(infermeter.ConfigError, match=f"sentence_transformers has no {missing}"):
            recorder.instrument("sentence-transformers")
        assert dict(vars(getattr(other, left))) == before
    finally:
        sys.modules["sentence_transformers"] = real
