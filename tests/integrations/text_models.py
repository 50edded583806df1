"""Models of a few thousand parameters and eleven words, made here: they say nothing sensible, always the same."""

from __future__ import annotations

import functools
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.integrations import torchvision_shim

torch: Any = pytest.importorskip("torch", reason="make test-frameworks installs PyTorch")
torchvision_shim.mend()
transformers: Any = pytest.importorskip("transformers", reason="make test-frameworks installs transformers")
tokenizers: Any = pytest.importorskip("tokenizers")

from PIL import Image  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[EOS]", "one", "two", "three", "four", "five", "six")
PICTURE = Image.new("RGB", (32, 32), "red")
PAD, EOS = VOCABULARY.index("[PAD]"), VOCABULARY.index("[EOS]")
_SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@contextmanager
def alone() -> Iterator[None]:
    """Any connection to another host raises."""
    connect = socket.socket.connect

    def refused(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in {"127.0.0.1", "::1"}:
            raise AssertionError(f"a test connects to {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refused)
        yield


def _splitter() -> Any:
    model = tokenizers.models.WordLevel({word: number for number, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return made


@functools.cache
def tokenizer() -> Any:
    """Makes tokens of words; pads on the left, as what generates needs it."""
    made = _splitter()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[EOS]"}
    inputs = ["input_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, padding_side="left", model_input_names=inputs, **names
    )


@functools.cache
def causal() -> Any:
    """Generates what follows."""
    sizes = {"vocab_size": len(VOCABULARY), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    torch.manual_seed(0)
    config = transformers.GPT2Config(bos_token_id=EOS, eos_token_id=EOS, pad_token_id=PAD, **sizes)
    return transformers.GPT2LMHeadModel(config).eval()


@functools.cache
def translator() -> Any:
    """Encodes, then generates."""
    torch.manual_seed(0)
    sizes = {"vocab_size": len(VOCABULARY), "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(decoder_start_token_id=PAD, pad_token_id=PAD, eos_token_id=EOS, **sizes)
    return transformers.T5ForConditionalGeneration(config).eval()


@functools.cache
def detector() -> Any:
    """A pipeline that finds objects: some in every picture."""
    torch.manual_seed(0)
    config = transformers.YolosConfig(
        image_size=[32, 32], patch_size=16, num_detection_tokens=3, id2label={0: "cat", 1: "dog"}, **_SIZES
    )
    processor = transformers.YolosImageProcessor(size={"height": 32, "width": 32})
    model = transformers.YolosForObjectDetection(config).eval()
    return transformers.pipeline("object-detection", model=model, image_processor=processor, threshold=0.0)


def classifier(labels: int = 2) -> Any:
    """Sorts texts, or pairs of them."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY), num_labels=labels, max_position_embeddings=32, pad_token_id=PAD, **_SIZES
    )
    return transformers.BertForSequenceClassification(config).eval()


def stored(model: Any, folder: Path) -> str:
    """Where `model` is stored, with a tokenizer that marks the ends of a text."""
    made = _splitter()
    ends = [(word, VOCABULARY.index(word)) for word in ("[CLS]", "[SEP]")]
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=32, **names).save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)
