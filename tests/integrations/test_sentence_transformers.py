"""The real sentence-transformers keeps the contract: a small encoder of random weights, without a network."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.integrations import torchvision_shim
from tests.integrations.contract import Case, Contract
from tests.page import Page

torch: Any = pytest.importorskip("torch", reason="make test-frameworks installs PyTorch and sentence-transformers")
torchvision_shim.mend()
sentence_transformers: Any = pytest.importorskip("sentence_transformers", reason="make test-frameworks installs it")

if TYPE_CHECKING:
    import infermeter

pytestmark = pytest.mark.filterwarnings("default")  # theirs


class Letters(torch.nn.Module):  # type: ignore[misc]
    """Encodes a text by the number of each of its letters."""

    def tokenize(self, texts: list[str], **_: Any) -> dict[str, Any]:
        """Texts as numbers."""
        if "refuse" in texts:
            raise ValueError("refused")
        return {"letters": torch.tensor([[float(text.count(letter)) for letter in "aeiou"] for text in texts])}

    preprocess = tokenize

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Numbers as an embedding."""
        features["sentence_embedding"] = features["letters"]
        return features

    def get_sentence_embedding_dimension(self) -> int:
        """Of five letters."""
        return 5

    def save(self, *_: Any, **__: Any) -> None:
        """There is nothing to save."""


class TestContract(Contract):
    """`encode` of one text and of several."""

    integration = "sentence-transformers"
    cases = {
        "one text": Case(lambda encoder: encoder.encode("queue", show_progress_bar=False)),
        "several": Case(lambda encoder: encoder.encode(["queue", "idea", "sky"], show_progress_bar=False)),
        "tensor": Case(lambda encoder: encoder.encode(["queue"], convert_to_tensor=True, show_progress_bar=False)),
        "refused": Case(lambda encoder: encoder.encode(["refuse"], show_progress_bar=False), failures=1),
    }

    def subject(self) -> Any:
        return sentence_transformers.SentenceTransformer(modules=[Letters()], device="cpu")

    def patched(self) -> list[tuple[Any, str]]:
        module = sys.modules["sentence_transformers"]
        return [(module.SentenceTransformer, "encode"), (module.CrossEncoder, "predict")]


def test_a_batch_is_the_texts(recorder: infermeter.Recorder) -> None:
    """Of one text one."""
    recorder.instrument("sentence-transformers")
    encoder = sentence_transformers.SentenceTransformer(modules=[Letters()], device="cpu")
    encoder.encode(["queue", "idea", "sky"], show_progress_bar=False)
    encoder.encode("queue", show_progress_bar=False)
    page = Page.of(recorder)
    assert page.value("inference_batch_size_count") == 2
    assert page.value("inference_batch_size_sum") == 4
