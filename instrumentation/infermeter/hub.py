"""Models of the hub: what they are called, wherever they were loaded from."""

import os
import re
import weakref
from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infermeter.recorder import Recorder
    from infermeter.track import Track

_AT_HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_CACHED = "models--"  # what the cache of the hub calls its folders, with -- for each /
# Folders of every model, of a step of its training, of one of its parts: the folder above tells more.
_ANY_FOLDER = {"model", "models", "checkpoints", "snapshots", "best", "last", "final", "output", "weights", "onnx"}
_PART = re.compile(r"checkpoint-\d+|\d+_[A-Z]\w*|[0-9a-f]{40}")


class Models:
    """Tracks of models, which are neither changed nor kept alive.

    Args:
        recorder: whose tracks.
        provider: what `model_info` says that they run in.
        name: gives the name of a model.
    """

    def __init__(self, recorder: "Recorder", provider: str, name: Callable[[Any], str] | None = None) -> None:
        self._recorder = recorder
        self._provider = provider
        self._name = name or model_name
        self._known: dict[int, tuple[weakref.ref[Any], Track]] = {}
        self._devices: dict[int, str] = {}

    def marked(self, subject: Any, _: "Track") -> None:
        """A user says how an object is watched, which may be a model."""
        self._forget(id(subject))

    def track(self, model: Any) -> "Track":
        """The track of a model; what it runs on is told when it has changed."""
        key = id(model)
        reference, track = self._known.get(key, (None, None))
        if track is None or reference is None or reference() is not model:
            track = self._recorder.marks.of(model) or self._recorder.track(self._name(model))
            self._known[key] = weakref.ref(model, lambda _: self._forget(key)), track
        device = str(getattr(model, "device", ""))
        if self._devices.get(key) != device:
            self._recorder.model_info(track.model, track.version, device=device, provider=self._provider)
            self._devices[key] = device
        return track

    def _forget(self, key: int) -> None:
        self._known.pop(key, None)
        self._devices.pop(key, None)


def model_name(model: Any) -> str:
    """The name of a model of transformers: of the hub, of its folder, else of its class."""
    config = getattr(model, "config", None)
    stored = getattr(model, "name_or_path", None) or getattr(config, "_name_or_path", None)
    return hub_name(stored) or type(model).__name__


def hub_name(stored: object) -> str:
    """The name of a model that is stored at the hub, in its cache, or in a folder; empty if there is none.

    `org/name` stays what it is, `/data/name/checkpoint-500` is `name`.
    """
    if not isinstance(stored, str | os.PathLike) or not os.fspath(stored):
        return ""
    text = os.fspath(stored)
    parts = PurePath(text).parts
    for part in parts:
        if part.startswith(_CACHED):
            return part.removeprefix(_CACHED).replace("--", "/")
    if isinstance(stored, str) and _AT_HUB.fullmatch(text) and not os.path.isdir(text):  # noqa: PTH112  (a word)
        return text
    for part in reversed(parts):
        if part.lower() not in _ANY_FOLDER and not _PART.fullmatch(part) and part.strip("./\\~"):
            return part
    return ""
