"""What one inference costs."""

import sys
from dataclasses import dataclass, fields
from typing import Any

from infermeter.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Prices, from which the marginal cost of one inference follows.

    cost [USD] = duration [s] / concurrency * (usd_per_hour / 3600 + watts / 1000 * usd_per_kwh / 3600)
               + prompt tokens / 1000 * usd_per_1k_prompt_tokens
               + completion tokens / 1000 * usd_per_1k_completion_tokens

    Args:
        usd_per_hour: rent of the machine (or its share for this service), USD per hour.
        usd_per_kwh: price of energy, USD per kilowatt-hour.
        watts: power drawn while inferring, W.
        usd_per_1k_prompt_tokens: USD per 1,000 tokens read.
        usd_per_1k_completion_tokens: USD per 1,000 tokens generated.
        concurrency: inferences that share the machine at a time when it is busy (1 or more, need not be whole): an
            hour of that many back-to-back streams adds up to `usd_per_hour`.

    Raises:
        ConfigError: a price that is not a finite number of 0 or more, or a concurrency below 1.
    """

    usd_per_hour: float = 0.0
    usd_per_kwh: float = 0.0
    watts: float = 0.0
    usd_per_1k_prompt_tokens: float = 0.0
    usd_per_1k_completion_tokens: float = 0.0
    concurrency: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            lowest = 1 if field.name == "concurrency" else 0
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not lowest <= value <= sys.float_info.max:  # an int may be larger than any float
                message = f"CostModel({field.name}={value!r}) is not a finite number of {lowest} or more"
                raise ConfigError(message)

    @property
    def usd_per_second(self) -> float:
        """What a second of one inference costs, USD."""
        per_hour = self.usd_per_hour + self.watts / 1000 * self.usd_per_kwh
        return per_hour / 3600 / self.concurrency

    def usd_for_tokens(self, prompt: float, completion: float) -> float:
        """What so many tokens cost, USD."""
        return prompt / 1000 * self.usd_per_1k_prompt_tokens + completion / 1000 * self.usd_per_1k_completion_tokens


# Models whose prices are remembered.
_MOST = 1024


class Prices:
    """What each model costs, the same wherever it is tracked."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], CostModel] = {}

    def set(self, model: str, version: str, cost: CostModel) -> None:
        """Take the prices of a model.

        Raises:
            ConfigError: it has others already.
        """
        if len(self._models) >= _MOST:  # request ids as models: each track keeps its own
            return
        given = self._models.setdefault((model, version), cost)
        if given != cost:
            message = (
                f"track(model={model!r}, version={version!r}, cost={cost!r}) is the second price of one model, "
                f"expected {given!r} as before"
            )
            raise ConfigError(message)

    def of(self, model: str, version: str) -> CostModel | None:
        """The prices of a model, if it has some of its own."""
        return self._models.get((model, version))
