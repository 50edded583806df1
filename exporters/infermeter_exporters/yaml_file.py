"""A configuration file, read key by key: what is wrong with it is one sentence that says where."""

import math
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from infermeter_exporters.errors import ConfigError

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def seconds(text: object, where: str) -> float:
    """A time like 500ms, 30s, 5m, 1h, 7d or 1w.

    Raises:
        ConfigError: it is none.
    """
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    made = float(found[1]) * _UNITS[found[2]] if found is not None else 0.0
    if not 0 < made < math.inf:
        raise ConfigError(f"{where} is {text!r}, expected a time, for example 30s, 5m or 1w")
    return made


class Mapping:
    """A mapping in a file, of which each key is asked for by what it should be.

    Args:
        content: what was read.
        where: file and key, as they stand in a sentence.
        keys: all that there may be.

    Raises:
        ConfigError: it is no mapping, or has other keys.
    """

    def __init__(self, content: object, where: str, keys: Sequence[str]) -> None:
        self.where = where
        if content is None:
            content = {}
        if not isinstance(content, dict):
            raise ConfigError(f"{where} is {content!r}, expected a mapping with {', '.join(keys)}")
        for key in content:
            if key not in keys:
                raise ConfigError(f"{where} has the key {key!r}, expected {', '.join(keys)}")
        self._content = content

    def at(self, key: str) -> str:
        """A key, as it stands in a sentence: after the file, and from the second one on after that it is in."""
        return f"{self.where}.{key}" if ": " in self.where else f"{self.where}: {key}"

    def has(self, key: str) -> bool:
        """Whether something is there."""
        return self._content.get(key) is not None

    def text(self, key: str, default: str | None = "") -> str:
        """A text; without a default it has to be there, and not empty."""
        found = self._content.get(key)
        if found is None and default is not None:
            return default
        if not isinstance(found, str) or (default is None and not found):
            raise ConfigError(f"{self.at(key)} is {found!r}, expected a text")
        return found

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of some words."""
        found = self._content.get(key)
        if found is None:
            found = default
        if not isinstance(found, str) or found not in choices:
            raise ConfigError(f"{self.at(key)} is {found!r}, expected one of {', '.join(choices)}")
        return found

    def number(self, key: str, default: float, least: float = 0.0, most: float = math.inf) -> float:
        """A number within limits; an infinite one is none."""
        found = self._content.get(key)
        if found is None:
            return float(default)
        highest = min(most, sys.float_info.max)
        if isinstance(found, bool) or not isinstance(found, int | float) or not least <= found <= highest:
            limits = f"from {least:g} on" if most == math.inf else f"from {least:g} to {most:g}"
            raise ConfigError(f"{self.at(key)} is {found!r}, expected a number {limits}")
        return float(found)

    def truth(self, key: str, default: bool) -> bool:  # noqa: FBT001  (as the others)
        """True or false."""
        found = self._content.get(key)
        if found is None:
            return default
        if not isinstance(found, bool):
            raise ConfigError(f"{self.at(key)} is {found!r}, expected true or false")
        return found

    def whole(self, key: str, default: int, least: int = 0, most: float = math.inf) -> int:
        """A whole number within limits."""
        found = self.number(key, default, least, most)
        if not found.is_integer():
            raise ConfigError(f"{self.at(key)} is {found!r}, expected a whole number")
        return int(found)

    def seconds(self, key: str, default: float) -> float:
        """A time, in seconds."""
        return seconds(self._content[key], self.at(key)) if self.has(key) else default

    def texts(self, key: str, default: Sequence[str] = ()) -> list[str]:
        """A list of texts."""
        found = self._content.get(key)
        if found is None:
            return list(default)
        if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
            raise ConfigError(f"{self.at(key)} is {found!r}, expected a list of texts")
        return found

    def mapping(self, key: str, keys: Sequence[str]) -> "Mapping":
        """A mapping; an empty one where there is none."""
        return Mapping(self._content.get(key), self.at(key), keys)

    def pairs(self, key: str) -> dict[str, str]:
        """A mapping of any texts to texts."""
        found = self._content.get(key)
        if found is None:
            return {}
        if not isinstance(found, dict) or not all(isinstance(one, str) for pair in found.items() for one in pair):
            raise ConfigError(f"{self.at(key)} is {found!r}, expected a mapping of texts to texts")
        return found

    def items(self, key: str) -> Iterator[tuple[Any, str]]:
        """Each of a list, and where it is."""
        found = self._content.get(key)
        if found is None:
            return
        if not isinstance(found, list):
            raise ConfigError(f"{self.at(key)} is {found!r}, expected a list")
        for place, one in enumerate(found):
            yield one, f"{self.at(key)}[{place}]"


def loaded(path: str) -> object:
    """The content of a file.

    Raises:
        ConfigError: it cannot be read, or is no YAML.
    """
    try:
        import yaml  # noqa: PLC0415  (only who has a file pays for it)
    except ImportError as error:
        raise ConfigError(f"{path} needs PyYAML: pip install pyyaml") from error
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  (pathlib would be imported for this line)
            return yaml.safe_load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A ValueError is of a text that looks like a date or a number and is none, or of bytes that are no text.
        problem = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {problem}") from error
