"""The configuration file of the GPU exporter: what GPUs cost, and whose processes are.

prices:
  - gpu: NVIDIA H100.*        # a regular expression that fits the whole name of a GPU; the first one counts
    usd_per_gpu_hour: 2.5
usd_per_kwh: 0.25
attribution:                  # see `attribution_rules`
  - match: {container: face-.*}
    service: face-detection
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from infermeter_exporters.errors import ConfigError
from infermeter_exporters.gpu.accounts import Price
from infermeter_exporters.yaml_file import loaded

if TYPE_CHECKING:
    from infermeter_exporters.gpu.attribution_rules import Rule

_KEYS = ("prices", "usd_per_kwh", "attribution")


class Config(NamedTuple):
    """What a file says, checked.

    Attributes:
        prices: patterns of names of GPUs, and the USD that an hour of such a one costs.
        usd_per_kwh: price of energy.
        rules: by which services are named.
    """

    prices: Sequence[tuple[re.Pattern[str], float]] = ()
    usd_per_kwh: float = 0.0
    rules: "Sequence[Rule]" = ()

    def price(self) -> Callable[[str], Price]:
        """What gives the price of a GPU by its name; remembers what it gave."""
        known: dict[str, Price] = {}

        def price(name: str) -> Price:
            if name not in known:
                hour = next((usd for pattern, usd in self.prices if pattern.fullmatch(name)), 0.0)
                known[name] = Price(hour, self.usd_per_kwh)
            return known[name]

        return price


def load(path: str) -> Config:
    """Read a file; without a path, what holds without one.

    Raises:
        ConfigError: it cannot be read, or something in it cannot work.
    """
    if not path:
        return Config()
    found = loaded(path)
    return parsed({} if found is None else found, path)


def parsed(found: object, where: str) -> Config:
    """What the content of a file means.

    Raises:
        ConfigError: something in it cannot work.
    """
    content = _mapping(found, where, _KEYS)
    rules: Sequence[Rule] = ()
    if content.get("attribution") is not None:
        from infermeter_exporters.gpu.attribution_rules import rules as parsed_rules  # noqa: PLC0415

        rules = parsed_rules(content["attribution"], f"{where}: attribution")
    return Config(
        _prices(content.get("prices"), f"{where}: prices"),
        _amount(content.get("usd_per_kwh", 0), f"{where}: usd_per_kwh"),
        rules,
    )


def _prices(found: object, where: str) -> tuple[tuple[re.Pattern[str], float], ...]:
    if found is None:
        return ()
    if not isinstance(found, list):
        raise ConfigError(f"{where} is {found!r}, expected a list of gpu and usd_per_gpu_hour")
    prices = []
    for place, one in enumerate(found):
        here = f"{where}[{place}]"
        price = _mapping(one, here, ("gpu", "usd_per_gpu_hour"))
        for key in ("gpu", "usd_per_gpu_hour"):
            if key not in price:
                raise ConfigError(
                    f"{here} has no {key}, expected a gpu (a regular expression) and its usd_per_gpu_hour"
                )
        pattern = price["gpu"]
        try:
            prices.append((re.compile(pattern), _amount(price["usd_per_gpu_hour"], f"{here}.usd_per_gpu_hour")))
        except (re.error, TypeError) as error:
            raise ConfigError(f"{here}.gpu is {pattern!r}, expected a regular expression: {error}") from error
    return tuple(prices)


def _mapping(found: object, where: str, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ConfigError(f"{where} is {found!r}, expected a mapping with {', '.join(keys)}")
    for key in found:
        if key not in keys:
            raise ConfigError(f"{where} has the key {key!r}, expected {', '.join(keys)}")
    return found


def _amount(found: object, where: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
        raise ConfigError(f"{where} is {found!r}, expected an amount of USD, 0 or more")
    return float(found)
