"""sentence-transformers: each `encode` and each `predict` is an inference, whose batch is the texts that it is given.

A model is called by its name at the hub, or by the folder that it was loaded from. `encode_query`, `encode_document`
and `rank` go through these; whoever watches one of its modules sees it as a stage.
"""

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from infermeter.hub import Models, hub_name
from infermeter.patch import Patches, UnknownLibraryError, harmless
from infermeter.watched import Watched, watched
from infermeter.wrap import Around

if TYPE_CHECKING:
    from infermeter.recorder import Recorder

MODULES = ("sentence_transformers",)

_STAGE = "sentence-transformers"
# What infers; the later ones came with later releases.
_METHODS = {"SentenceTransformer": "encode", "CrossEncoder": "predict"}
_LATER = {"SparseEncoder": "encode", "MultiVectorEncoder": "encode"}
_INPUTS = ("inputs", "sentences")  # the newer and the older name


def install(recorder: "Recorder", module: ModuleType) -> Callable[[], None]:
    """Watch encoders; see `infermeter.instruments.Integration`."""
    for name in _METHODS:
        if not hasattr(module, name):
            raise UnknownLibraryError(f"sentence_transformers has no {name}")
    models = Models(recorder, "sentence-transformers", _name)
    patches = Patches()
    try:
        for name, method in (_METHODS | _LATER).items():
            cls = getattr(module, name, None)
            if cls is not None:
                patches.around(cls, method, _around(recorder, models, pairs=method == "predict"))
    except BaseException:
        patches.undo()
        raise
    forget = recorder.marks.listen(models.marked)

    def undo() -> None:
        forget()
        patches.undo()

    return undo


def _around(recorder: "Recorder", models: Models, *, pairs: bool) -> Around:
    def before(encoder: Any, *args: Any, **kwargs: Any) -> Watched:
        inputs = args[0] if args else next((kwargs[name] for name in _INPUTS if name in kwargs), None)
        size = _size(inputs, pairs=pairs)  # may fail on what the encoder may not: before anything is open
        run = watched(models.track(encoder), _STAGE)
        if size is not None:
            run.call.batch_size(size)
        return run

    def after(run: Watched | None, result: Any) -> Any:
        if run is not None:
            run.finish()
        return result

    def fail(run: Watched | None, error: BaseException) -> None:
        if run is not None:
            run.fail(error)

    return Around(
        harmless(recorder, before, lambda *_, **__: None),
        harmless(recorder, after, lambda _, result: result),
        harmless(recorder, fail, lambda *_: None),
    )


def _size(inputs: Any, *, pairs: bool) -> int | None:
    """How many texts, or pairs of texts, are given; None if that is told only by reading them."""
    if isinstance(inputs, str | dict) or not hasattr(inputs, "__len__"):
        return 1 if isinstance(inputs, str | dict) else None
    number = len(inputs)
    if pairs and number and isinstance(inputs[0], str):
        return 1
    return number


def _name(encoder: Any) -> str:
    """The name of an encoder: that of its card, of the hub, of its folder, else of its class."""
    card = getattr(encoder, "model_card_data", None)
    said = getattr(card, "model_id", None)
    if isinstance(said, str) and said:
        return hub_name(said) or type(encoder).__name__
    inner = encoder.modules() if hasattr(encoder, "modules") else [getattr(encoder, "model", None)]
    for module in inner:
        name = hub_name(
            getattr(module, "name_or_path", None) or getattr(getattr(module, "config", None), "_name_or_path", None)
        )
        if name:
            return name
    return hub_name(getattr(card, "base_model", None)) or type(encoder).__name__
