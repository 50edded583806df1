"""The marginal cost of an inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import infermeter
from infermeter import CostModel
from infermeter.errors import ConfigError

if TYPE_CHECKING:
    from tests.instrumentation.conftest import NewRecorder, Scrape


def recorded(recorder: infermeter.Recorder, seconds: float, *, prompt: int = 0, completion: int = 0) -> None:
    """One inference of `seconds`, as the clock would have given it."""
    track = recorder.track(model="m")
    call = track.begin()
    call.tokens(prompt=prompt, completion=completion)
    track.finish(call, seconds)


def test_an_hour_of_back_to_back_inferences_costs_the_hourly_price(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """36,000 inferences of 0.1 s fill an hour and add up to its price."""
    recorder = new_recorder(cost=CostModel(usd_per_hour=2.10))
    for _ in range(36_000):
        recorded(recorder, 0.1)
    page = scrape(recorder)
    assert page.value("inference_cost_sum") == pytest.approx(2.10)
    assert page.value("inference_cost_count") == 36_000


def test_concurrent_streams_share_the_hourly_price(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """With concurrency 4, four streams of an hour each add up to one hourly price."""
    recorder = new_recorder(cost=CostModel(usd_per_hour=3.0, concurrency=4))
    for _ in range(4 * 360):
        recorded(recorder, 10.0)
    assert scrape(recorder).value("inference_cost_sum") == pytest.approx(3.0)


def test_energy_is_priced_by_the_kilowatt_hour(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """300 W for 2 h at 0.25 USD/kWh are 0.15 USD."""
    recorder = new_recorder(cost=CostModel(watts=300, usd_per_kwh=0.25))
    recorded(recorder, 7200.0)
    assert scrape(recorder).value("inference_cost_sum") == pytest.approx(0.15)


def test_tokens_are_priced_by_the_thousand(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """Prompt and completion tokens have prices of their own, on top of the time."""
    prices = CostModel(usd_per_hour=3.6, usd_per_1k_prompt_tokens=0.5, usd_per_1k_completion_tokens=1.5)
    recorder = new_recorder(cost=prices)
    recorded(recorder, 1.0, prompt=2000, completion=500)
    recorded(recorder, 1.0)
    page = scrape(recorder)
    assert page.value("inference_cost_sum") == pytest.approx(0.001 + 1.0 + 0.75 + 0.001)
    assert page.value("inference_cost_bucket", le="0.001") == 1


def test_failed_inferences_cost(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """A call that raised used the machine all the same."""
    recorder = new_recorder(cost=CostModel(usd_per_hour=3600))
    track = recorder.track(model="m")
    track.fail(track.begin(), ValueError(), 0.5)
    assert scrape(recorder).value("inference_cost_sum") == pytest.approx(0.5)


def test_without_prices_there_is_no_cost(recorder: infermeter.Recorder, scrape: Scrape) -> None:
    """What is unknown is absent, not 0."""
    recorded(recorder, 1.0)
    assert "inference_cost_sum" not in scrape(recorder).names


def test_a_model_has_its_own_price_wherever_it_is_tracked(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """Prices given to one `track` of a model hold for another, also one that was made before."""
    recorder = new_recorder(cost=CostModel(usd_per_hour=3600))
    first = recorder.track(model="m")
    recorder.track(model="m", cost=CostModel(usd_per_hour=7200))
    first.finish(first.begin(), 1.0)
    other = recorder.track(model="other")
    other.finish(other.begin(), 1.0)
    page = scrape(recorder)
    assert page.by("model", "inference_cost_sum") == {"m": 2.0, "other": 1.0}


def test_two_prices_of_one_model_are_refused(recorder: infermeter.Recorder) -> None:
    """Which one should hold could not be told."""
    recorder.track(model="m", cost=CostModel(usd_per_hour=1))
    recorder.track(model="m", cost=CostModel(usd_per_hour=1))
    with pytest.raises(ConfigError, match=r"model='m'.*second price"):
        recorder.track(model="m", cost=CostModel(usd_per_hour=2))


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("usd_per_hour", -1, "CostModel(usd_per_hour=-1) is not a finite number of 0 or more"),
        ("watts", float("nan"), "CostModel(watts=nan) is not a finite number of 0 or more"),
        ("usd_per_kwh", float("inf"), "CostModel(usd_per_kwh=inf) is not a finite number of 0 or more"),
        ("usd_per_hour", "2.10", "CostModel(usd_per_hour='2.10') is not a finite number of 0 or more"),
        ("usd_per_hour", True, "CostModel(usd_per_hour=True) is not a finite number of 0 or more"),
        ("concurrency", 0.5, "CostModel(concurrency=0.5) is not a finite number of 1 or more"),
    ],
)
def test_impossible_prices_are_refused(option: str, value: float, expected: str) -> None:
    """The sentence names the value and what was expected."""
    with pytest.raises(ConfigError) as raised:
        CostModel(**{option: value})
    assert str(raised.value) == expected
