"""Histograms that a Prometheus has: buckets of a whole fleet, summed by it before anything is computed here."""

import json
import math
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx

from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.layout import Histogram, from_cumulative, from_native
from infermeter_exporters.drift.source import SourceError

_BAD_REQUEST = 400
_UNAVAILABLE = 500


class Family(NamedTuple):
    """A histogram that is watched.

    Attributes:
        metric: its name, without `_bucket`.
        kind: classic has a series for each `le`.
        service: the label of the service.
        model: the label of the model; empty for histograms of no model, whose model is then empty too.
        match: further matchers, for example `job="vision"`.
    """

    metric: str
    kind: Literal["classic", "native"] = "classic"
    service: str = "service"
    model: str = "model"
    match: str = ""


class Access(NamedTuple):
    """How a Prometheus is asked.

    Attributes:
        url: of it, or of whatever speaks as it does: Mimir, Thanos, VictoriaMetrics.
        timeout: seconds for a query.
        user: for basic authentication; empty for none.
        password_file: the same; read anew for each connection.
        bearer_token_file: instead of a user.
        ca_file: certificates of authorities that are trusted; empty for those of the system.
        headers: more of them, for example a tenant.
    """

    url: str
    timeout: float = 30.0
    user: str = ""
    password_file: str = ""
    bearer_token_file: str = ""
    ca_file: str = ""
    headers: Mapping[str, str] = {}


class Prometheus:
    """A source of histograms; see `source.Source`.

    Args:
        name: of the source.
        access: how it is asked.
        families: what is watched.
        baselines: with what it is compared.
        learn: observations of a window that makes the first version of a named one.
    """

    def __init__(
        self, name: str, access: Access, families: Sequence[Family], baselines: Sequence[str], learn: int = 0
    ) -> None:
        self.name = name
        self.baselines = baselines
        self.learn = learn
        self._access = access
        self._families = families
        self._client: httpx.Client | None = None
        self.waited = 0.0

    def feed(self, end: threading.Event) -> None:
        """There is nothing to be fetched."""

    def learning(self) -> dict[Key, float]:
        """None: bins are those of the histograms."""
        return {}

    def counted(self, begin: float, end: float) -> dict[Key, Histogram]:
        """What was observed; buckets that only some instances have are merged into those that all have.

        Raises:
            SourceError: no answer, an error, or one that makes no sense.
        """
        found: dict[Key, Histogram] = {}
        for family in self._families:
            ask = self._native if family.kind == "native" else self._classic
            found.update(ask(family, end, f"{round(end - begin)}s"))
        return found

    def require_fresh(self, end: float) -> None:
        """Nothing, if any of the histograms has a sample that is fresh at `end`.

        Raises:
            SourceError: none has, although one has an older one: what is asked does not get any new data.
        """
        for family in self._families:
            if self._vector(f"count({_one_series(family)})", end):
                return
        for family in self._families:
            if self._vector(f"count(present_over_time({_one_series(family)}[1h]))", end):
                raise SourceError("stale", f"{self.name}: no histogram has a sample of the last five minutes")

    def _classic(self, family: Family, end: float, window: str) -> dict[Key, Histogram]:
        buckets = f"{family.metric}_bucket{_selector(family)}[{window}]"
        by = ", ".join(filter(None, (family.service, family.model)))
        values = self._by_owner(self._vector(f"sum by ({by}, le) (increase({buckets}))", end), family)
        instances = f"count by ({by}, le) (present_over_time({buckets}))"
        of_owner = (
            f"group_left () (count by ({by}) (present_over_time({family.metric}_bucket{_infinite(family)}[{window}])))"
        )
        # Nearly always all instances have all bounds, and there is nothing to be read of this.
        uneven = self._vector(f"{instances} != on ({by}) {of_owner}", end)
        numbers = self._by_owner(self._vector(instances, end), family) if uneven else {}
        found = {}
        for owner, cumulative in values.items():
            bounds = set(cumulative)
            if owner in numbers:
                of_bound = numbers[owner]
                bounds = {bound for bound in bounds if of_bound.get(bound) == of_bound.get(math.inf)}
            kept = sorted(bounds)
            counts = [cumulative[bound] for bound in kept]
            if owner[0] and len(kept) > 1 and kept[-1] == math.inf and all(map(math.isfinite, counts)):
                found[Key(*owner, family.metric)] = from_cumulative(kept, counts)
        return found

    def _by_owner(self, series: Iterable[Any], family: Family) -> dict[tuple[str, str], dict[float, float]]:
        """Values by service and model, and by bound: releases write 1 and 1.0, which is the same."""
        found: dict[tuple[str, str], dict[float, float]] = defaultdict(dict)
        known: dict[str, float] = {}
        service, model = family.service, family.model
        for labels, number in series:
            text = labels.get("le", "")
            bound = known.get(text)
            if bound is None:
                bound = known[text] = self._bound(text, family)
            bounds = found[labels.get(service, ""), labels.get(model, "")]
            bounds[bound] = bounds.get(bound, 0.0) + float(number)
        return found

    def _native(self, family: Family, end: float, window: str) -> dict[Key, Histogram]:
        by = ", ".join(filter(None, (family.service, family.model)))
        found = {}
        for labels, histogram in self._vector(f"sum by ({by}) (increase({_native_series(family)}[{window}]))", end):
            owner = labels.get(family.service, ""), labels.get(family.model, "")
            try:
                buckets = [(float(low), float(high), float(count)) for _, low, high, count in histogram["buckets"]]
            except (TypeError, KeyError, ValueError):
                continue  # classic, or nothing was observed
            if buckets and owner[0]:
                found[Key(*owner, family.metric)] = from_native(buckets)
        return found

    def _bound(self, text: str, family: Family) -> float:
        try:
            return float(text)
        except ValueError as error:
            said = f"{self.name}: {family.metric}_bucket has the bound {text!r}, expected a number"
            raise SourceError("invalid", said) from error

    def _vector(self, query: str, moment: float) -> list[tuple[dict[str, str], Any]]:
        """Labels and value of each series of an answer; the value of a native histogram is a mapping."""
        began = time.monotonic()
        try:
            answer = self._connected().post(
                "api/v1/query", data={"query": query, "time": f"{moment:.3f}", "timeout": f"{self._access.timeout:g}s"}
            )
        except (httpx.HTTPError, OSError) as error:
            self.close()
            text = f"{self.name}: {self._access.url} does not answer: {str(error) or type(error).__name__}"
            raise SourceError("unreachable", text) from error
        finally:
            self.waited += time.monotonic() - began
        if answer.status_code >= _BAD_REQUEST:
            self.close()  # secrets may have changed
        try:
            content = json.loads(answer.content)
            if content["status"] != "success":
                raise SourceError("refused", f"{self.name}: {content.get('error', 'an error without a reason')}")
            result, kind = content["data"]["result"], content["data"]["resultType"]
            if kind != "vector":
                raise SourceError("invalid", f"{self.name}: the answer is a {kind}, expected a vector")
            return [(one["metric"], one["value"][1] if "value" in one else one["histogram"][1]) for one in result]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            if answer.status_code >= _BAD_REQUEST:
                reason = "unreachable" if answer.status_code >= _UNAVAILABLE else "refused"
                text = f"{self.name}: {self._access.url} answers with {answer.status_code}"
                raise SourceError(reason, text) from error
            raise SourceError(
                "invalid", f"{self.name}: {self._access.url} does not speak as Prometheus does"
            ) from error

    def _connected(self) -> httpx.Client:
        if self._client is None:
            access = self._access
            headers = dict(access.headers)
            try:
                if access.bearer_token_file:
                    headers["Authorization"] = f"Bearer {_secret(access.bearer_token_file)}"
                auth = (access.user, _secret(access.password_file)) if access.user else None
                self._client = httpx.Client(
                    base_url=access.url.rstrip("/") + "/",
                    timeout=access.timeout + 5,
                    headers=headers,
                    auth=auth,
                    verify=ssl.create_default_context(cafile=access.ca_file or None),
                )
            except OSError as error:
                raise SourceError(
                    "refused", f"{self.name}: {error.filename} cannot be read: {error.strerror}"
                ) from error
        return self._client

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


def _selector(family: Family) -> str:
    return f"{{{family.match}}}" if family.match else ""


def _native_series(family: Family) -> str:
    return family.metric + _selector(family)


def _one_series(family: Family) -> str:
    """One for each histogram."""
    return _native_series(family) if family.kind == "native" else f"{family.metric}_bucket{_infinite(family)}"


def _infinite(family: Family) -> str:
    return "{" + ", ".join(filter(None, (family.match, 'le="+Inf"'))) + "}"


def _secret(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()
