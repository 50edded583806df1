"""Options that nobody should give: each works, or is refused in one sentence where it is given, and never later."""

from __future__ import annotations

import math
from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter

from infermeter import ConfigError, CostModel, Recorder
from infermeter.catalogue import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.instrumentation.conftest import NewRecorder, Scrape

HUGE = 10**400
ANYTHING: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    1.5,
    math.nan,
    math.inf,
    HUGE,
    -HUGE,
    Decimal(2),
    np.float64(2),
    np.int64(2),
]
ANYTHING += ["", " ", "a", "_a", "a b", "\ud800", "\n", "\0", "é" * 5000, b"a", [], ["a"], {}, {"a": "b"}, (), object()]
ANYTHING += [len, int, CollectorRegistry, CostModel(), CollectorRegistry(), {1: "a"}, {"a": None}, np.array([1, 2])]

OPTIONS: dict[str, list[Any]] = {
    "service": [],
    "cost": [CostModel(usd_per_hour=1e308, concurrency=1.0)],
    "registry": [],
    "buckets": [
        {"inference_duration": edges}
        for edges in (
            HUGE,
            [HUGE],
            [1, HUGE],
            "123",
            "1",
            b"12",
            [True],
            [math.nan],
            [1, math.inf],
            [math.inf],
            [-1, 0],
        )
    ]
    + [{"detection_confidence": edges} for edges in ([1e300], [5e-324, 1e-323], [1e39], [0.1, 0.1 + 1e-17], {1, 2})]
    + [{family: [0.5, 1, 1e300]} for family in FAMILIES]
    + [{None: [1]}, {1: [1]}, {"inferences_total": [1]}, {"inference_durations": [1]}],
    "labels": [{name: "a"} for name in ("a", "_", "__a", "é", "a-b", "a:b", "", "service", "class", "le", "instance")]
    + [{"zone": text} for text in ("\ud800", "", "\n", '"', 1, None)],
    "max_label_values": [{name: 1} for name in ("model", "class", "error_type", "service", 1)]
    + [{"model": limit} for limit in (0, HUGE, None, 1.0)],
    "max_series": [],
}

TRACK_OPTIONS: dict[str, list[Any]] = {
    "model": [],
    "version": [],
    "detections": ["Auto", "auto", lambda _: None, np.array(["auto", "auto"])],
    "names": [range(3), ("a", "b"), {"0": "a"}, {1.0: "a"}, "ab", {"a", "b"}, iter("ab"), np.array(["a", "b"])],
    "cost": [],
    "stream": ["call", "item", "CALL", ["call"], {"call": 1}],
}


EXPECTED = ("is not", "are not", "expected", "did you mean", "neither", "cannot serve on")


def given(options: dict[str, list[Any]]) -> list[Any]:
    """Every value of every option, as parameters."""
    return [
        pytest.param(name, value, id=f"{name}-{number}")
        for name, values in options.items()
        for number, value in enumerate([*ANYTHING, *values])
    ]


def accepted(make: Callable[[], Any]) -> Any:
    """What `make` gives, or None where it refuses as it should."""
    try:
        return make()
    except ConfigError as error:
        sentence = str(error)
        assert "\n" not in sentence.replace("\\n", "")
        assert any(words in sentence for words in EXPECTED), sentence
        return None


def works(recorder: Recorder, scrape: Scrape, track: Any) -> None:
    """Every kind of use, and a scrape that can be read."""
    for number in range(3):
        with track as call:
            call.detections([0.5, 0.7], classes=[number, "a"])
            call.tokens(prompt=5)
            call.batch_size(2)
            call.input_size(2000)
    with pytest.raises(IndexError):
        track([].pop)()
    track(len)("abc")
    page = scrape(recorder)
    assert page.value("inferences_total") == page.value("inference_duration_bucket", le="+Inf") == 5
    assert page.value("detection_confidence_count") == page.value("detections_total")
    assert page.dropped().keys() <= {"unrecognised_result", "extractor_error", "unreadable"}


@pytest.mark.parametrize(("name", "value"), given(OPTIONS))
def test_options_of_a_recorder(new_recorder: NewRecorder, scrape: Scrape, name: str, value: Any) -> None:
    """Accepted means that inferences are recorded and scraped."""
    options: Any = {name: value}
    recorder = accepted(lambda: new_recorder(**options))
    if recorder is not None:
        works(recorder, scrape, recorder.track(model="m"))


@pytest.mark.parametrize(("name", "value"), given(TRACK_OPTIONS))
def test_options_of_a_track(new_recorder: NewRecorder, scrape: Scrape, name: str, value: Any) -> None:
    """Accepted at `track` means the same."""
    recorder = new_recorder()
    options: Any = {"model": "m"} | {name: value}
    track = accepted(lambda: recorder.track(**options))
    if track is not None:
        works(recorder, scrape, track)


@pytest.mark.parametrize("value", ANYTHING, ids=range(len(ANYTHING)))
@pytest.mark.parametrize("field", [field.name for field in fields(CostModel)])
def test_prices(new_recorder: NewRecorder, scrape: Scrape, field: str, value: Any) -> None:
    """A price that is accepted gives costs that are numbers."""
    options: Any = {field: value}
    cost = accepted(lambda: CostModel(**options))
    if cost is not None:
        recorder = new_recorder(cost=cost)
        works(recorder, scrape, recorder.track(model="m"))
        assert math.isfinite(scrape(recorder).value("inference_cost_sum"))


@pytest.mark.parametrize("value", ANYTHING, ids=range(len(ANYTHING)))
def test_ports(recorder: Recorder, value: Any) -> None:
    """What is no port is refused, whatever it is; what is one is served, where it may be."""
    server = accepted(lambda: recorder.serve(value, "127.0.0.1"))
    assert server is None or type(value) is int
    if server is not None:
        server.close()


@pytest.mark.parametrize("value", [5, 1.5, b"127.0.0.1", ["127.0.0.1"], "\ud800", "é" * 5000, "192.0.2.1"])
def test_addresses(recorder: Recorder, value: Any) -> None:
    """What is no address of this host is refused, whatever it is."""
    assert accepted(lambda: recorder.serve(0, value)) is None


def test_later_options_add_to_earlier_ones(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """Also within the options that are mappings."""
    recorder = new_recorder(max_label_values={"model": 1}, buckets={"inference_duration": [1, 2]}, labels={"zone": "a"})
    recorder.configure(max_label_values={"class": 1})
    recorder.configure(buckets={"inference_cost": [1]})
    recorder.configure(labels={"rack": "b"}, cost=CostModel())
    for model in ("m", "n"):
        with recorder.track(model=model) as call:
            call.detections([0.5, 0.5], classes=["a", "b"])
    page = scrape(recorder)
    assert page.by("model", "inferences_total", zone="a", rack="b") == {"m": 1, "_other": 1}
    assert set(page.by("class", "detections_total")) == {"a", "_other"}
    assert set(page.by("le", "inference_duration_bucket")) == {"1.0", "2.0", "+Inf"}
    assert set(page.by("le", "inference_cost_bucket")) == {"1.0", "+Inf"}


def test_a_refused_configuration_changes_nothing(recorder: Recorder, scrape: Scrape) -> None:
    """One bad option, or a registry that cannot be used, leaves all others as they were."""
    taken = CollectorRegistry()
    Counter("inferences", "mine", registry=taken)
    before = recorder.settings
    with pytest.raises(ConfigError):
        recorder.configure(service="other", registry=taken)
    with pytest.raises(ConfigError):
        recorder.configure(service="other", max_series=-1)
    assert recorder.settings == before
    with recorder.track(model="m"):
        pass
    assert scrape(recorder).by("service", "inferences_total") == {"test": 1}


def test_registering_twice_is_harmless(recorder: Recorder) -> None:
    """A registry that has our families because we are in it already is no clash."""
    registry = CollectorRegistry()
    recorder.register(registry)
    recorder.register(registry)
    assert [metric.name for metric in registry.collect()].count("infermeter_build") == 1


def test_two_recorders_cannot_share_a_registry() -> None:
    """Their families would appear twice on one page."""
    registry = CollectorRegistry()
    Recorder(registry=registry, service="test").track(model="m")
    with pytest.raises(ConfigError, match=r"^the registry already holds a metric of a name that infermeter uses"):
        Recorder(registry=registry, service="test").track(model="m")
