"""`generate` of transformers: its tokens, and when the first of them came."""

import functools
import inspect
from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from infermeter.call import now
from infermeter.hub import Models
from infermeter.patch import Patches, harmless
from infermeter.watched import Watched, watched

if TYPE_CHECKING:
    from infermeter.ledger import Ledger
    from infermeter.recorder import Recorder

STAGE = "transformers"


class Within(NamedTuple):
    """What runs in this thread or task, for one recorder: a pipeline, a `generate` that is a stage, or one that is not.

    What `generate` tells is told to a `run` that is an inference. In one that is a stage it is part of that stage.
    """

    recorder: "Ledger"
    run: Watched | None
    around: "Within | None"


WITHIN: ContextVar[Within | None] = ContextVar("infermeter_transformers", default=None)


def enter(recorder: "Ledger", run: Watched | None) -> Token[Within | None]:
    """Have what `generate` tells from now on told to `run`."""
    return WITHIN.set(Within(recorder, run, WITHIN.get()))


def within_here(recorder: "Ledger") -> Watched | None:
    """What runs here, if it is a pipeline or a stage."""
    within = WITHIN.get()
    while within is not None and within.recorder is not recorder:
        within = within.around
    return within.run if within is not None else None


def watched_generate(recorder: "Recorder", models: Models, original: Any, patches: Patches) -> Any:
    """`generate`, whose streamer is stood in for by one that tells the time."""
    names = list(inspect.signature(original).parameters)
    place = names.index("streamer") - 1 if "streamer" in names else -1  # among the arguments, without the model

    def begin(model: Any) -> Generation | None:
        within = within_here(recorder)
        if within is not None and not within.own:  # its seconds are in that stage
            return None
        return Generation(recorder, watched(models.track(model), STAGE), within)

    def describe(generation: Generation, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        config = kwargs.get("generation_config") or (args[1] if len(args) > 1 else None)
        generation.describe(model, args[0] if args else None, config, kwargs)
        if kwargs.get("streamer") is not None:
            return args, {**kwargs, "streamer": _Streamer(kwargs["streamer"], generation.first)}
        if 0 <= place < len(args) and args[place] is not None:
            return (*args[:place], _Streamer(args[place], generation.first), *args[place + 1 :]), kwargs
        return args, kwargs

    begun = harmless(recorder, begin, lambda *_: None)
    described = harmless(recorder, describe, lambda _, __, args, kwargs: (args, kwargs))
    finish = harmless(recorder, Generation.finish, lambda generation, _: generation.run.finish())
    fail = harmless(recorder, Generation.fail, lambda *_: None)

    @functools.wraps(original)
    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        generation = begun(self) if patches.live else None
        if generation is None:
            return original(self, *args, **kwargs)
        args, kwargs = described(generation, self, args, kwargs)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            fail(generation, error)
            raise
        finish(generation, result)
        return result

    return generate


class _Streamer:
    """Stands in for the streamer that a user gave, as which it is seen.

    Args:
        streamer: it.
        first: called when the first token is there.
    """

    def __init__(self, streamer: Any, first: Callable[[], None]) -> None:
        self._streamer = streamer
        self._first = first
        self._puts = 0

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._streamer.__class__

    def put(self, value: Any) -> Any:
        """Pass on the prompt, then tokens."""
        self._puts += 1
        if self._puts == 2:  # noqa: PLR2004  (the prompt was the first)
            self._first()
        return self._streamer.put(value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._streamer, name)


class Generation:
    """One call of `generate`.

    Args:
        recorder: what it is recorded by.
        run: the call.
        pipeline: that it is part of, to which its tokens belong.
    """

    def __init__(self, recorder: "Recorder", run: Watched, pipeline: Watched | None) -> None:
        self.run = run
        self._told = run if run.own else pipeline
        self._rows = 0
        self._prompt = 0
        self._offset = 0  # where in its row what is generated begins
        self._ends: list[int] = []  # tokens that end a row
        self._pad: int | None = None
        self._first: float | None = None
        self.first = harmless(recorder, self._came, lambda: None)
        self._token = enter(recorder, None if run.own else run)

    def describe(self, model: Any, inputs: Any, config: Any, kwargs: dict[str, Any]) -> None:
        """Find what it is given."""
        if self._told is None:
            return
        for name in ("inputs", "input_ids"):
            inputs = kwargs.get(name) if inputs is None else inputs
        embedded = kwargs.get("inputs_embeds")
        given = next((one for one in (inputs, embedded, *kwargs.values()) if hasattr(one, "shape")), None)
        self._rows = given.shape[0] if given is not None else 1
        if inputs is not None and inputs.ndim == 2 and not inputs.dtype.is_floating_point:  # noqa: PLR2004
            self._offset = inputs.shape[1]
            self._prompt = _kept(kwargs.get("attention_mask"), inputs.shape, inputs.numel())
        elif embedded is not None:
            rows, length = embedded.shape[:2]
            self._prompt = _kept(kwargs.get("attention_mask"), embedded.shape[:2], rows * length)
        elif given is None:
            self._offset = self._prompt = 1  # the token that begins a text
        if getattr(model.config, "is_encoder_decoder", False):
            begun = kwargs.get("decoder_input_ids")
            self._offset = begun.shape[1] if begun is not None else 1
        configs = (config, getattr(model, "generation_config", None))
        ends = _setting("eos_token_id", kwargs, configs)
        self._ends = np.atleast_1d(np.asarray(ends)).astype(int).tolist() if ends is not None else []
        self._pad = _setting("pad_token_id", kwargs, configs)

    def finish(self, result: Any) -> None:
        """It gave `result`: tokens of shape (rows, length), or an object with such `sequences`."""
        seconds, ended = self.run.seconds(), now()
        self._leave()
        if self._told is not None:
            if self.run.own:
                self.run.call.batch_size(self._rows)
            counts = self._counts(getattr(result, "sequences", result))
            self._told.call.tokens(prompt=self._prompt, completion=sum(counts))
            longest = max(counts, default=0)
            if self._first is not None and longest > 1:
                self._told.call.fact().per_token = (ended - self._first) / (longest - 1)
        self.run.finish(seconds)

    def fail(self, error: BaseException) -> None:
        """It raised `error`."""
        self._leave()
        self.run.fail(error)

    def _came(self) -> None:
        """The first token is there."""
        self._first = now()
        if self._told is not None and self._told.call.fact().first_item is None:
            self._told.first_item()

    def _leave(self) -> None:
        WITHIN.reset(self._token)

    def _counts(self, sequences: Any) -> list[int]:
        """How many tokens were generated, by row."""
        if getattr(sequences, "ndim", 0) != 2:  # noqa: PLR2004
            return []
        rows, length = sequences.shape[0], sequences.shape[1] - self._offset
        if length <= 0:
            return []
        if sequences.device.type != "cpu":
            return [length] * rows
        tokens = sequences.detach()[:, self._offset :].numpy()
        ended = np.isin(tokens, self._ends)
        counts = np.full(rows, length)
        if self._pad is not None and int(self._pad) not in self._ends:  # a row may end without a token of its own
            kept = np.hstack([np.ones((rows, 1), bool), tokens != int(self._pad)])
            counts = length - np.argmax(kept[:, ::-1], axis=1)
        counts = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, counts)
        return [int(count) for count in counts]


def _kept(mask: Any, shape: Any, everything: int) -> int:
    """How many of the tokens of a prompt are no padding, where that can be seen without asking a device."""
    if mask is None or mask.device.type != "cpu" or tuple(mask.shape) != tuple(shape):
        return everything
    return int(mask.sum())


def _setting(name: str, kwargs: dict[str, Any], configs: Iterable[Any]) -> Any:
    """A setting of `generate`: as given, as in the settings given, or as the model's."""
    found = kwargs.get(name)
    for config in configs:
        found = getattr(config, name, None) if found is None else found
    return found
