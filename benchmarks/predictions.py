"""What watching costs a prediction of ultralytics; needs that and PyTorch.

Two figures, because one of them cannot be had well: how much longer a watched prediction takes than one that is not,
which is less than a machine varies by; and what the added code alone takes, on the results of a real prediction.
"""

import statistics
from collections.abc import Callable, Generator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

import infermeter

_SIZES = (96, 640)  # pixels: as small as a network takes, and what is usual
_REPLAYS = 2000
_IN_A_ROW = 5


@dataclass
class Prediction:
    """What one prediction of an image of `size` pixels takes, in seconds: medians.

    Attributes:
        alone: not watched.
        watched: watched, in the same rounds.
        added: the code that watching adds.
    """

    size: int
    alone: float
    watched: float
    added: float

    @property
    def share(self) -> float:
        """What the added code is of a prediction."""
        return self.added / self.alone

    @property
    def ratio(self) -> float:
        """How much longer a watched prediction took, noise included."""
        return self.watched / self.alone


def predictions(rounds: int) -> list[Prediction]:
    """Measure predictions of a yolov8n of random weights, in so many rounds for the smallest size."""
    import ultralytics  # noqa: PLC0415  (only this benchmark needs it)

    model = ultralytics.YOLO("yolov8n.yaml")
    return [_measured(model, size, max(5, rounds * _SIZES[0] // size)) for size in _SIZES]


def _measured(model: Any, size: int, rounds: int) -> Prediction:
    recorder = infermeter.Recorder(service="bench", registry=CollectorRegistry())
    image = np.random.default_rng(7).integers(0, 255, (size, size, 3), dtype=np.uint8)

    def predict() -> Any:
        return model.predict(image, imgsz=size, conf=0.00001, max_det=20, verbose=False)

    recorder.instrument("ultralytics")
    results = predict()  # warms up
    added = _added(recorder, model.predictor, results)
    alone: list[float] = []
    watched: list[float] = []
    for _ in range(rounds):
        for times, change in ((alone, recorder.uninstrument), (watched, recorder.instrument)):
            change("ultralytics")
            predict()  # the caches are cold after that
            times += [_seconds(predict) for _ in range(_IN_A_ROW)]
    recorder.uninstrument()
    return Prediction(size, statistics.median(alone), statistics.median(watched), added)


def _added(recorder: infermeter.Recorder, predictor: Any, results: list[Any]) -> float:
    """What driving `results` through the hooks takes more than giving them: every step of one prediction."""
    from infermeter.integrations.ultralytics import _Predictors  # noqa: PLC0415  (the code in question)

    hooks = _Predictors(recorder)

    def steps() -> Generator[Any, None, None]:
        predictor.seen = 0
        predictor.results = results
        predictor.seen = len(results)
        yield from results

    def plain() -> None:
        list(steps())

    def driven() -> None:
        list(hooks.drive(steps(), predictor))

    driven()
    times = [(_seconds(driven), _seconds(plain)) for _ in range(_REPLAYS)]
    recorder.fold()
    return statistics.median(with_hooks - without for with_hooks, without in times)


def _seconds(function: Callable[[], object]) -> float:
    started = perf_counter()
    function()
    return perf_counter() - started


if __name__ == "__main__":
    for found in predictions(60):
        print(
            f"{found.size} px: {found.alone * 1e3:.2f} ms alone, {found.watched * 1e3:.2f} ms watched "
            f"({found.ratio - 1:+.2%}); the added code takes {found.added * 1e6:.1f} us ({found.share:.3%})"
        )
