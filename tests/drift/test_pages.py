"""Whole pages of the drift exporter, in states that are made one window after the other, against `tests/golden`.

Who changes a metric on purpose rewrites them with `pytest tests/drift/test_pages.py --update-golden`. That Prometheus's
linter has nothing against them is checked where all expected pages are: tests/exposition/test_lint.py.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from infermeter_exporters.drift import config
from infermeter_exporters.drift.catalogue import FAMILIES
from infermeter_exporters.drift.exporter import DriftExporter, Settings
from infermeter_exporters.server import Application, WebSettings
from infermeter_exporters.web_config import WebConfig
from tests.page import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOLDEN = Path(__file__).parents[1] / "golden"
HOUR = 3600.0
BEGAN = 472_223 * HOUR
"""The beginning of a window, in November 2023."""
ROWS = 600
PATIENCE = 30.0
# What depends on how quick a machine is, and on which release of what runs here. What stands for a number is one.
MASKS = [
    (r"^(drift_evaluation_duration_seconds\{.*\}) .*$", r"\1 NaN"),
    (r"^(drift_exporter_build_info)\{.*\}", r"\1"),
]
DIGITS = 6
"""Of each number: the last ones depend on the vector instructions that NumPy finds."""


class Clock:
    """The time, which moves when it is told to."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> float:
        return self.now


class Exporter:
    """The exporter with its pages, of which nothing runs by itself but what keeps samples.

    Args:
        folder: of the store.
        clock: that it reads.
        content: of the configuration file.
    """

    def __init__(self, folder: Path, clock: Clock, content: dict[str, Any]) -> None:
        self.clock = clock
        web = WebSettings((), "", WebConfig(), lifecycle=False, most=40)
        parsed = config.parsed({"store": str(folder / "store.sqlite"), **content}, "drift.yml")
        self.exporter = DriftExporter(Settings("", "", (), ""), parsed, web)
        self.setup = self.exporter._setup
        self.application = Application(self.exporter, web)
        for intake in self.setup.intakes.values():
            intake.start()

    def ask(self, method: str, path: str, content: object = None, accept: str = "text/plain") -> httpx.Response:
        """Answer of a page."""

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.application)
            async with httpx.AsyncClient(transport=transport, base_url="http://drift") as client:
                return await client.request(method, path, json=content, headers={"Accept": accept})

        return asyncio.run(asked())

    def send(self, path: str, content: object) -> Any:
        """What a sender is told, whose message is accepted."""
        answer = self.ask("POST", path, content)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def evaluate(self) -> None:
        """Do what happens by itself."""
        for watch in self.setup.watches:
            watch.evaluate(self.clock.now)
        self.exporter._known = self.setup.look_up(self.clock.now)

    def text(self) -> str:
        """The page, without what depends on the machine."""
        answer = self.ask("GET", "/metrics")
        assert answer.status_code == 200
        text = re.sub(
            r"^([^#].* )([-+.e\d]+)$", lambda found: found[1] + rounded(found[2]), answer.text, flags=re.MULTILINE
        )
        for pattern, mask in MASKS:
            text = re.sub(pattern, mask, text, flags=re.MULTILINE)
        return text


def rounded(number: str) -> str:
    """A number with so many digits as every machine agrees on; whole ones are left alone."""
    return number if float(number).is_integer() else f"{float(number):.{DIGITS}g}"


def samples(window: int, *, drifting: bool = False) -> list[dict[str, Any]]:
    """What a model saw and said in a window; Python promises to make the same numbers for ever."""
    chance = Random(window)
    found = []
    for row in range(ROWS):
        place = chance.random()
        values = {
            # Sun is as bright as ever, or brighter than anything that the model learnt of.
            "brightness": round(80 + 40 * place + (15 if drifting else 0), 3),
            "weather": "fog" if drifting and place < 0.25 else "rain" if place < 0.4 else "sun",
            "lens": 35,
            "embedding": [round(chance.gauss(2 if drifting else 0), 3) for _ in range(3)],
            "distance": None if drifting and row % 5 == 0 else round(1 + 9 * place, 3),
        }
        found.append(
            {
                "service": "gate",
                "model": "yolo",
                "time": BEGAN + window * HOUR + row * HOUR / ROWS,
                "id": f"{window}-{row}",
                "features": values,
                "prediction": "car" if row % 3 else "person",
                "confidence": round(place**0.25 - (0.2 * place if drifting else 0), 6),
            }
        )
    return found


def labels(window: int, *, wrong: int) -> list[dict[str, Any]]:
    """The truth about half of a window, a quarter of an hour after it ended; of so many predictions one was wrong."""
    return [
        {
            "service": "gate",
            "model": "yolo",
            "id": f"{window}-{row}",
            "label": "bus" if row % wrong == 0 else "car" if row % 3 else "person",
            "time": BEGAN + (window + 1.25) * HOUR,
        }
        for row in range(0, ROWS, 2)
    ]


PUSH = {
    "sources": [{"type": "push", "learn": ROWS, "models": ["gate/yolo"], "embeddings": True}],
    "trigger": {"url": "http://127.0.0.1:1/never-asked"},
}


def healthy(folder: Path, clock: Clock) -> Exporter:
    """A window was learnt from, and two more were as it was; half of what was predicted has a label."""
    exporter = Exporter(folder, clock, PUSH)
    for window in range(3):
        clock.now = BEGAN + (window + 1) * HOUR + 30
        exporter.send("/v1/samples", samples(window))
        exporter.evaluate()
        clock.now += HOUR / 4
        exporter.send("/v1/labels", labels(window, wrong=10))
    exporter.evaluate()
    return exporter


def drifting(folder: Path, clock: Clock) -> Exporter:
    """After that, two windows were not; somebody asked for a fine-tuning, and sent what is none of a model."""
    exporter = healthy(folder, clock)
    for window in (3, 4):
        clock.now = BEGAN + (window + 1) * HOUR + 30
        exporter.send("/v1/samples", samples(window, drifting=True))
        exporter.evaluate()
    exporter.send("/v1/labels", labels(3, wrong=2))
    exporter.send("/v1/labels", labels(2, wrong=10)[:5])
    exporter.send("/v1/trigger", {"service": "gate", "model": "yolo", "reason": "the camera was moved"})
    assert exporter.ask("POST", "/v1/samples", [{"service": "gate", "model": "llm"}]).status_code == 400
    exporter.evaluate()
    return exporter


def late(folder: Path, clock: Clock) -> Exporter:
    """After that, nothing was evaluated for two hours: the verdicts hold, statistics are not shown any more."""
    exporter = drifting(folder, clock)
    clock.now += 2 * HOUR
    return exporter


def no_data(folder: Path, clock: Clock) -> Exporter:
    """Nothing was sent yet."""
    exporter = Exporter(folder, clock, {})
    exporter.evaluate()
    return exporter


def unreachable(folder: Path, clock: Clock) -> Exporter:
    """Nobody listens where the Prometheus should be; it is tried by the thread that does so, which counts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        exporter = Exporter(folder, clock, {"sources": [{"type": "prometheus", "url": url}, {"type": "push"}]})
        asked, pushed = exporter.setup.watches
        asked.start()
        deadline = time.monotonic() + PATIENCE
        while not asked.error:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pushed.evaluate(clock.now)
        exporter.exporter._known = exporter.setup.look_up(clock.now)
    return exporter


STATES: dict[str, Callable[[Path, Clock], Exporter]] = {
    "healthy": healthy,
    "drifting": drifting,
    "late": late,
    "no-data": no_data,
    "unreachable": unreachable,
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of everything in this process that asks for the time of day."""
    made = Clock()
    monkeypatch.setattr(time, "time", made)
    return made


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[tuple[str, str]]:
    """The name of a state, and the page in it."""
    exporter = STATES[request.param](tmp_path, clock)
    try:
        yield request.param, exporter.text()
    finally:
        exporter.exporter.stop()


def test_the_page_is_as_expected(request: pytest.FixtureRequest, state: tuple[str, str]) -> None:
    """Every family, label, value and help, in the order of the catalogue."""
    name, text = state
    file = GOLDEN / f"drift-{name}.prom"
    if request.config.getoption("update_golden"):
        file.write_text(text)
    assert file.exists(), f"{file} is not there: write it with --update-golden"
    assert text.splitlines() == file.read_text().splitlines()


def pages() -> dict[str, str]:
    """The expected pages, by state."""
    return {file.stem.removeprefix("drift-"): file.read_text() for file in sorted(GOLDEN.glob("drift-*.prom"))}


def test_every_expected_page_is_of_a_state() -> None:
    """No page of a state that is gone is left behind."""
    assert set(pages()) == set(STATES)


def test_all_that_is_declared_is_shown_and_nothing_else() -> None:
    """Every family of the catalogue is on some page; name, type, help and labels are those of the catalogue."""
    shown = set()
    for text in pages().values():
        for metric in text_string_to_metric_families(text):
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            family = FAMILIES[name]
            shown.add(name)
            kind = "gauge" if family.kind == "info" else family.kind
            assert (metric.type, metric.documentation) == (kind, family.help)
            masked = name == "drift_exporter_build_info"
            assert {tuple(one.labels) for one in metric.samples} == {() if masked else family.labels}
    assert shown == FAMILIES.keys()


def test_openmetrics_has_each_family_once(tmp_path: Path, clock: Clock) -> None:
    """A counter is a family without its `_total`, which must not be the name of another one."""
    exporter = healthy(tmp_path, clock)
    try:
        text = exporter.ask("GET", "/metrics", accept="application/openmetrics-text; version=1.0.0").text
        names = [metric.name for metric in open_metrics(text)]
        assert len(set(names)) == len(names)
    finally:
        exporter.exporter.stop()


def test_the_pages_say_what_was_made() -> None:
    """What the states are made to show, in numbers that were worked out otherwise."""
    found = {name: Page(text) for name, text in pages().items()}
    calm, drifts = found["healthy"], found["drifting"]
    moved = {"brightness", "weather", "distance", "confidence", "embedding"}
    features = {*moved, "lens", "prediction"}
    assert calm.by("feature", "drift_active", baseline="frozen") == dict.fromkeys(features, 0)
    assert drifts.by("feature", "drift_active", baseline="frozen") == {one: one in moved for one in features}
    # 15 of the 40 that brightness has between its ends; a quarter is fog; a fifth of the distances is missing.
    size, lens, words, gaps = (
        {"feature": name, "baseline": "frozen"} for name in ("brightness", "lens", "weather", "distance")
    )
    assert drifts.value("drift_tvd", **size) == pytest.approx(15 / 40, abs=0.1)
    # What is beyond the range counts as at its end: 25 of 40 moved by 15, the others by 7.5 on average.
    assert drifts.value("drift_wasserstein", **size) == pytest.approx((25 * 15 + 15 * 7.5) / 40, abs=0.6)
    assert drifts.value("drift_out_of_range_ratio", **size) == pytest.approx(15 / 40, abs=0.05)
    assert drifts.value("drift_new_category_ratio", **words) == pytest.approx(0.25, abs=0.05)
    assert drifts.value("drift_non_finite_ratio", **gaps) == pytest.approx(0.2)
    assert drifts.value("drift_status", state="constant", **lens) == 1
    # One in ten of those that are even is one in five; of 300 labels in each of three windows.
    assert calm.value("model_accuracy") == pytest.approx(0.8)
    assert calm.value("model_accuracy_labels") == 900
    assert calm.value("model_label_coverage_ratio") == pytest.approx(0.5)
    # The one of drift and the one by hand, both of which wait for the webhook.
    assert drifts.by("trigger", "finetuning_triggers_total") == {"automatic": 1, "manual": 1}
    assert drifts.by("state", "drift_triggers")["waiting"] == 2
    assert drifts.by("outcome", "drift_labels_total")["duplicate"] == 5
    assert drifts.by("outcome", "drift_received_samples_total")["invalid"] == 1
    assert found["late"].by("feature", "drift_active") == drifts.by("feature", "drift_active")
    assert {name for name in found["late"].names if name.startswith("drift_psi")} == set()
    assert "drift_active" not in found["no-data"].names
    assert found["unreachable"].by("source", "drift_source_up") == {"prometheus": 0, "push": 1}
    assert found["unreachable"].by("reason", "drift_source_errors_total", source="prometheus")["unreachable"] == 1
