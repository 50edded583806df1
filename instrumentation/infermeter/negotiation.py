"""Which format a scraper gets, by its Accept header."""

import re
from typing import Literal, NamedTuple

Format = Literal["protobuf", "openmetrics", "text"]
CONTENT_TYPES: dict[Format, str] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "protobuf": "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
}

# In the order in which they are preferred where the header does not care.
_TYPES: dict[str, Format] = {
    "text/plain": "text",
    "application/openmetrics-text": "openmetrics",
    "application/vnd.google.protobuf": "protobuf",
}
# What a parameter must be for us to have it; all other parameters are somebody else's business.
_OFFERED = {
    ("openmetrics", "version"): {"1.0.0", "0.0.1"},
    ("protobuf", "proto"): {"io.prometheus.client.metricfamily"},
    ("protobuf", "encoding"): {"delimited"},
}
# Quoted strings may contain the separators. The possessive quantifiers keep hostile headers from taking quadratic time.
_RANGE = re.compile(r'(?:[^,"]++|"(?:[^"\\]|\\.)*+"?+)++', re.DOTALL)
_PARAMETER = re.compile(r'(?:[^;"]++|"(?:[^"\\]|\\.)*+"?+)++', re.DOTALL)
_QUALITY = re.compile(r"0(?:\.[0-9]*)?|1(?:\.0*)?|\.[0-9]+")


class _Claim(NamedTuple):
    """What the header says about one format, greater where it says more.

    Attributes:
        specificity: 0 for `*/*`, 1 for `application/*`, 2 for the type, 3 for the type with parameters of its own.
        quality: 0 (never) to 1.
        earliness: minus the place in the header.
    """

    specificity: int
    quality: float
    earliness: int


def negotiate(accept: str | None) -> Format:
    """The format that `accept` likes best of those that we have.

    The most specific range that fits a format decides about it. Of formats that are liked equally, one that is named
    goes before one that a wildcard covers, then the one named first; a wildcard prefers text. Text is also what one
    gets who likes nothing of ours, or does not say.
    """
    claims: dict[Format, _Claim] = {}
    for place, found in enumerate(_RANGE.finditer(accept or "")):
        kind, *rest = _PARAMETER.findall(found[0]) or [""]
        kind = kind.strip().lower()
        formats = [format_ for type_, format_ in _TYPES.items() if kind in {type_, f"{type_.split('/')[0]}/*", "*/*"}]
        if not formats:
            continue
        specificity = 0 if kind == "*/*" else 1 if kind.endswith("*") else 2
        parameters = _parameters(rest)
        quality = parameters.pop("q", "1")
        if not _QUALITY.fullmatch(quality):
            continue
        for format_ in formats:
            own = [(name, value) for name, value in parameters.items() if (format_, name) in _OFFERED]
            if all(value in _OFFERED[format_, name] for name, value in own):
                claim = _Claim(specificity + bool(own), float(quality[:8]), -place)
                claims[format_] = max(claim, claims.get(format_, claim))
    acceptable = [format_ for format_ in _TYPES.values() if format_ in claims and claims[format_].quality > 0]
    # max() gives the first of equals, in the order of preference.
    return max(
        acceptable,
        key=lambda format_: (claims[format_].quality, min(claims[format_].specificity, 2), claims[format_].earliness),
        default="text",
    )


def _parameters(written: list[str]) -> dict[str, str]:
    """Names and values without quotes, in lower case; the first of a name counts."""
    parameters: dict[str, str] = {}
    for parameter in written:
        name, _, value = parameter.partition("=")
        parameters.setdefault(name.strip().lower(), value.strip().strip('"').lower())
    return parameters
