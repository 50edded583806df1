"""Night falls on the street camera: the confidences move, and the alert about that fires, it alone.

Seven hours pass in seconds: the detector sees every frame for real and the library records it, but the page of each
minute goes to the clock of `promtool test rules`, which runs the real rules on it.
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry

from demo.detector import CLASSES, Detector
from demo.scenes import DAY, NIGHT, Camera
from infermeter import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DUSK = 6 * 60 + 15
"""The minute in which night falls: the alert compares with the six hours before."""
END = DUSK + 40
FRAMES = 2
"""Frames a minute."""
WINDOW = 5
LABELS = 'service="object-detection",model="scenes-s"'
FIRING = f'{{alertname="ConfidenceDropped",alertstate="firing",severity="warning",{LABELS}}}'


class Past(NamedTuple):
    """What happened in those hours."""

    pages: dict[str, list[float]]
    """By series: its value at the end of every minute, from the first on."""
    confidences: list[list[float]]
    """Of the detections of every minute."""


@pytest.fixture(scope="module")
def past() -> Past:
    """Six hours of day and some minutes of night, watched."""
    model, camera = Detector(), Camera(seed=11)
    recorder = Recorder(service="object-detection", registry=CollectorRegistry())
    track = recorder.track(model="scenes-s", names=CLASSES, detections="auto")
    pages: defaultdict[str, list[float]] = defaultdict(list)
    confidences: list[list[float]] = []
    for minute in range(END + 1):
        camera.exposure = DAY if minute < DUSK else NIGHT
        confidences.append([])
        for _ in range(FRAMES):
            found = model.detect(camera.frame().pixels)
            call = track.begin()
            call.detections(found.confidences, classes=found.classes)
            track.finish(call, 0.005)
            confidences[-1] += found.confidences.tolist()
        for series, value in page(recorder):
            pages[series].append(value)
    return Past(dict(pages), confidences)


def page(recorder: Recorder) -> Iterator[tuple[str, float]]:
    """Every sample of the service now, its series as Prometheus writes it."""
    for family in recorder.collect():
        for name, labels, value, *_ in family.samples:
            matchers = ",".join(f'{label}="{text}"' for label, text in labels.items())
            yield f"{name}{{{matchers}}}", value


def asked(past: Past, tmp_path: Path, promtool: str, *cases: tuple[str, int, list[tuple[str, float]]]) -> None:
    """Demand of the rules what each expression gives at a minute: series and their values."""
    test = {
        "interval": "1m",
        # A series that begins later has no value before.
        "input_series": [
            {
                "series": series,
                "values": " ".join(["_"] * (END + 1 - len(values)) + [f"{value:.17g}" for value in values]),
            }
            for series, values in past.pages.items()
        ],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": labels, "value": value} for labels, value in samples],
            }
            for expression, minute, samples in cases
        ],
    }
    file = tmp_path / "night.test.yml"
    rules = str(ROOT / "rules" / "inference.rules.yml")
    document: dict[str, Any] = {"rule_files": [rules], "evaluation_interval": "1m", "tests": [test]}
    file.write_text(yaml.safe_dump(document, width=10**9), encoding="utf-8")
    found = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr


def latest(past: Past, minute: int) -> np.ndarray:
    """The confidences of the window before the end of a minute."""
    return np.concatenate([past.confidences[one] for one in range(minute - WINDOW + 1, minute + 1)])


def test_night_moves_the_confidences(past: Past, tmp_path: Path, promtool: str) -> None:
    """The recorded mean and the share of unsure detections are those of the frames, and night is another world."""
    cases = []
    for minute in (DUSK - 1, END):
        sure = latest(past, minute)
        for name, value in (
            ("detection_confidence:mean5m", sure.mean()),
            ("detection_confidence_up_to_half:ratio_rate5m", (sure <= 0.5).mean()),
        ):
            cases.append((f"round(service_model:{name}, 0.0001)", minute, [(f"{{{LABELS}}}", round(float(value), 4))]))
    asked(past, tmp_path, promtool, *cases)

    day, night = latest(past, DUSK - 1), latest(past, END)
    assert day.mean() - night.mean() > 0.1
    assert (night <= 0.5).mean() - (day <= 0.5).mean() > 0.2


def test_night_fires_one_alert(past: Past, tmp_path: Path, promtool: str) -> None:
    """By day none; ConfidenceDropped once the night has lasted, and never another."""
    firing = 'ALERTS{alertstate="firing"}'
    asked(
        past, tmp_path, promtool,
        (firing, DUSK - 1, []),
        (firing, DUSK + 5, []),
        (firing, DUSK + 25, [(f"ALERTS{FIRING}", 1)]),
        (firing, END, [(f"ALERTS{FIRING}", 1)]),
        (f"count_over_time({firing}[7h]) > 0 unless on (alertname) ALERTS{FIRING}", END, []),
    )  # fmt: skip


def test_a_day_without_night_fires_nothing(past: Past, tmp_path: Path, promtool: str) -> None:
    """The same hours, looked at before the dusk: not even pending."""
    asked(past, tmp_path, promtool, ("ALERTS", DUSK - 1, []), ("count_over_time(ALERTS[6h])", DUSK - 1, []))
