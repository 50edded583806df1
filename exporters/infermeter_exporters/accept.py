"""Which format a scraper gets, by its Accept header."""

from typing import Literal

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
# What a parameter must be for us to have it; all others are somebody else's business.
_OFFERED = {
    "openmetrics": {"version": {"1.0.0", "0.0.1"}},
    "protobuf": {"proto": {"io.prometheus.client.metricfamily"}, "encoding": {"delimited"}},
}


def negotiate(accept: str) -> Format:
    """The format that `accept` likes best of those that we have; text if it likes none, or does not say.

    The most specific range that fits a format decides about it; of formats that are liked equally, one that is named
    goes before one that a wildcard covers, then the one named first.
    """
    claims: dict[Format, tuple[int, float, int]] = {}  # how specific, how much, minus where
    for place, written in enumerate(accept.split(",")):
        kind, *parameters = (part.strip().lower() for part in written.split(";"))
        given = {
            name.strip(): value.strip().strip('"') for name, _, value in (one.partition("=") for one in parameters)
        }
        try:
            quality = float(given.pop("q", "1"))
        except ValueError:
            continue
        for known, format_ in _TYPES.items():
            if kind not in {known, known.split("/")[0] + "/*", "*/*"}:
                continue
            offered = _OFFERED.get(format_, {})
            own = [name for name in given if name in offered]
            if all(given[name] in offered[name] for name in own):
                specific = 0 if kind == "*/*" else 1 if kind.endswith("*") else 2 + bool(own)
                claim = specific, min(max(quality, 0.0), 1.0), -place
                claims[format_] = max(claim, claims.get(format_, claim))
    liked = [format_ for format_ in _TYPES.values() if format_ in claims and claims[format_][1] > 0]
    # max() gives the first of equals, in the order of preference.
    return max(liked, key=lambda one: (claims[one][1], min(claims[one][0], 2), claims[one][2]), default="text")
