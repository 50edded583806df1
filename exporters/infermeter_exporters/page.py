"""The page of an exporter: samples in one of the formats that Prometheus reads."""

import math
import struct
from collections.abc import Mapping

from infermeter_exporters.accept import Format
from infermeter_exporters.families import Family, Samples, Series

# The beginnings of so many lines are remembered; a page of more is written all the same.
_MOST_KNOWN = 100_000
_GAUGE, _COUNTER = 1, 0  # of the protobuf format


class Page:
    """Writes pages of some families.

    Args:
        families: all that may come, in the order of the page.
    """

    def __init__(self, families: Mapping[str, Family]) -> None:
        self._families = families
        self._known: dict[tuple[str, tuple[str, ...]], bytes] = {}  # lines of the text formats without their values
        self._messages: dict[tuple[str, tuple[str, ...]], bytes] = {}  # labels in the protobuf format
        # What was written last of each family: most of a page is as it was at the scrape before.
        self._written: dict[tuple[str, Format], tuple[Series, bytes]] = {}

    def write(self, samples: Samples, format_: Format) -> bytes:
        """A page.

        Args:
            samples: what is shown; all of its families are known.
            format_: in which it is written.
        """
        parts: list[bytes] = []
        for name, family in self._families.items():
            series = samples.get(name)
            if not series:
                continue
            before, part = self._written.get((name, format_), (None, b""))
            if before != series:
                part = self._message(family, series) if format_ == "protobuf" else self._text(family, series, format_)
                self._written[name, format_] = dict(series), part
            parts.append(part)
        if format_ == "openmetrics":
            parts.append(b"# EOF\n")
        return b"".join(parts)

    def _text(self, family: Family, series: Series, format_: Format) -> bytes:
        known, name = self._lines(family, series), family.name
        lines = [b"%b %b\n" % (known[name, labels], _number(value)) for labels, value in sorted(series.items())]
        return _head(family, open_metrics=format_ == "openmetrics") + b"".join(lines)

    def _lines(
        self, family: Family, series: Mapping[tuple[str, ...], float]
    ) -> dict[tuple[str, tuple[str, ...]], bytes]:
        known = self._known
        if len(known) > _MOST_KNOWN:
            known.clear()
        for labels in series:
            if (family.name, labels) not in known:
                text = ",".join(
                    f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, labels, strict=True)
                )
                known[family.name, labels] = (f"{family.name}{{{text}}}" if text else family.name).encode()
        return known

    def _message(self, family: Family, series: Series) -> bytes:
        counts = family.kind == "counter"
        metrics = [
            _framed(4, self._labels(family, labels) + _framed(3 if counts else 2, b"\x09" + struct.pack("<d", value)))
            for labels, value in sorted(series.items())
        ]
        kind = b"\x18" + bytes([_COUNTER if counts else _GAUGE])
        message = _framed(1, family.name.encode()) + _framed(2, family.help.encode()) + kind + b"".join(metrics)
        return _varint(len(message)) + message

    def _labels(self, family: Family, labels: tuple[str, ...]) -> bytes:
        key = family.name, labels
        if len(self._messages) > _MOST_KNOWN:
            self._messages.clear()
        if key not in self._messages:
            self._messages[key] = b"".join(
                _framed(1, _framed(1, name.encode()) + _framed(2, _clean(value).encode()))
                for name, value in sorted(zip(family.labels, labels, strict=True))
            )
        return self._messages[key]


def _head(family: Family, *, open_metrics: bool) -> bytes:
    name, kind = family.name, family.kind
    if open_metrics:
        name = name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, ""))
    elif kind == "info":
        kind = "gauge"
    return f"# HELP {name} {family.help}\n# TYPE {name} {kind}\n".encode()


def _number(value: float) -> bytes:
    if math.isfinite(value):
        return repr(float(value)).encode()
    return b"NaN" if math.isnan(value) else b"+Inf" if value > 0 else b"-Inf"


def _escaped(value: str) -> str:
    return _clean(value).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _clean(value: str) -> str:
    """A value that can be written as UTF-8: names of processes and files may not be."""
    return value.encode("utf-8", "replace").decode()


def _framed(field: int, content: bytes) -> bytes:
    """A field that has a length."""
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:  # noqa: PLR2004  (seven bits a byte)
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
