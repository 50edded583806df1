"""What is sent over HTTP: samples, labels, and triggers by hand."""

import asyncio
import math
import time
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from infermeter_exporters.drift import samples, tables, triggers
from infermeter_exporters.drift.config import PushSource
from infermeter_exporters.drift.intake import Full, Intake
from infermeter_exporters.drift.labels import Label
from infermeter_exporters.drift.samples import Samples, SamplesError, Times
from infermeter_exporters.drift.store import Store, StoreError

if TYPE_CHECKING:
    from concurrent.futures import Future

_BUSY = 16
"""Requests at a time, whose bodies are in memory."""
_CHECKED = 2
"""Bodies that are checked at a time: that takes several times their size."""
_STATUS = {"too_large": 413, "too_many_series": 422, "late": 422, "clock": 422, "dtype": 422, "unknown_model": 422}
_ARROW = {"application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"}
_LINES = {"application/x-ndjson", "application/jsonl", "application/x-jsonlines"}
_JSON = {"application/json", ""}


class Limits(NamedTuple):
    """What may be sent.

    Attributes:
        settings: of the source.
        keep: seconds for which samples are counted after they were taken.
    """

    settings: PushSource
    keep: float


class Push:
    """The HTTP part of a source.

    Args:
        intake: where it goes.
        limits: what may be sent.
        store: of triggers.
        told: whether a webhook is told of triggers.
    """

    def __init__(self, intake: Intake, limits: Limits, store: Store, *, told: bool) -> None:
        self._intake = intake
        self._limits = limits
        self._store = store
        self._told = told
        self._reading = 0
        self._checking = asyncio.Semaphore(_CHECKED)
        self._allowed = limits.settings.rate
        self._refilled = time.monotonic()

    async def answer(self, request: Request) -> Response:
        """Answer a POST to `/v1/samples`, `/v1/labels` or `/v1/trigger`."""
        what = request.url.path.rpartition("/")[2]
        work = {"samples": self._samples, "labels": self._labels, "trigger": self._trigger}[what]
        if self._reading >= _BUSY:
            return self._refused(what, "busy", 429, "too many requests are read at the moment")
        self._reading += 1
        try:
            found = await work(request)
        except SamplesError as error:
            return self._refused(what, error.reason, _STATUS.get(error.reason, 400), str(error))
        except Full:
            return self._refused(what, "busy", 429, "more waits to be kept than there is room for")
        except _TooFast as error:
            return self._refused(what, "rate", 429, str(error), error.wait)
        except StoreError as error:
            return self._refused(what, "store", 503, str(error))
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            self._reading -= 1
        return JSONResponse(found)

    def _refused(self, what: str, reason: str, status: int, text: str, wait: float = 1.0) -> Response:
        self._intake.counts[f"{what} {reason}"] += 1
        headers = {"Retry-After": str(max(math.ceil(wait), 1))} if status in {429, 503} else {}
        return JSONResponse({"error": text, "reason": reason}, status, headers)

    async def _samples(self, request: Request) -> dict[str, Any]:
        body = await self._body(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        async with self._checking:
            found = await asyncio.to_thread(self._parsed, body, kind)
        self._require_models({(one.key.service, one.key.model) for one in found.columns})
        name = _name(request, "samples")
        self._take(found.number)
        answer = await _kept(self._intake.samples(found, name))
        self._intake.counts["samples repeated" if answer.get("repeated") else "samples accepted"] += found.number
        return answer

    def _parsed(self, body: bytes, kind: str) -> Samples:
        now, most = time.time(), self._limits.settings.samples
        times = Times(now, now - self._limits.keep, now + samples.AHEAD)
        if kind in _ARROW:
            table = tables.read_ipc(body, file=kind.endswith("file"), most=self._limits.settings.body)
            return tables.from_table(table, times, most=most)
        if kind not in _LINES | _JSON:
            known = ", ".join(sorted(_ARROW | _LINES | _JSON - {""}))
            raise SamplesError("malformed", f"the Content-Type is {kind!r}, expected one of {known}")
        return samples.from_json(body, times, lines=kind in _LINES, most=most)

    async def _labels(self, request: Request) -> dict[str, Any]:
        body = await self._body(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        async with self._checking:
            found = await asyncio.to_thread(self._read_labels, body, lines=kind in _LINES)
        answer = await _kept(self._intake.labels(found, _name(request, "labels")))
        if not answer.get("repeated"):
            for outcome in ("joined", "unknown", "duplicate"):
                self._intake.counts[f"labels {outcome}"] += answer[outcome]
        return answer

    def _read_labels(self, body: bytes, *, lines: bool) -> list[Label]:
        found = samples.read_json(body, lines=lines, most=self._limits.settings.samples)
        now = time.time()
        times = Times(now, -math.inf, now + samples.AHEAD)
        return [_label(one, f"labels[{place}]", times) for place, one in enumerate(found)]

    async def _trigger(self, request: Request) -> dict[str, Any]:
        found = samples.read_json(await self._body(request), lines=False, most=1)
        content = samples.checked_object(found[0] if found else None, "the body", ("service", "model", "reason"))
        service, model = (samples.word(content.get(name), name) for name in ("service", "model"))
        reason = content.get("reason", "")
        if not isinstance(reason, str) or len(reason) > 1000:  # noqa: PLR2004
            raise SamplesError("invalid", "reason is no text of at most 1000 characters")
        self._require_models({(service, model)})
        name = _name(request, "trigger")

        def kept() -> str:
            with self._store.transaction() as transaction:
                return triggers.begin_manual(transaction, service, model, reason, name, time.time(), told=self._told)

        return {"id": await asyncio.to_thread(kept)}

    def _require_models(self, given: set[tuple[str, str]]) -> None:
        allowed = self._limits.settings.models
        for service, model in sorted(given):
            if allowed and f"{service}/{model}" not in allowed:
                raise SamplesError("unknown_model", f"{service}/{model} is none of the models of the configuration")

    def _take(self, number: int) -> None:
        rate = self._limits.settings.rate
        if not rate:
            return
        now = time.monotonic()
        # A message may be larger than what comes in a second: then the next ones wait for longer.
        self._allowed = min(self._allowed + (now - self._refilled) * rate, rate)
        self._refilled = now
        if self._allowed <= 0:
            raise _TooFast(f"more than {rate:g} samples a second were sent", -self._allowed / rate)
        self._allowed -= number

    async def _body(self, request: Request) -> bytes:
        """The body, decompressed; neither is kept beyond its limit.

        Raises:
            SamplesError: it is too large, or is not what it says.
        """
        most = self._limits.settings.body
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"identity", "gzip"}:
            raise SamplesError("malformed", f"the Content-Encoding is {encoding!r}, expected gzip or none")
        unpack = _Gzip(most) if encoding == "gzip" else None
        parts: list[bytes] = []
        size = received = 0
        async for chunk in request.stream():
            received += len(chunk)
            part = chunk if unpack is None else unpack.more(chunk)
            size += len(part)
            if size > most or received > most:
                raise SamplesError("too_large", f"the body has more than {most} bytes, which is the most")
            parts.append(part)
        if unpack is not None and not unpack.complete:
            raise SamplesError("malformed", "the body is not gzip: it ends too early")
        return b"".join(parts)


class _Gzip:
    """Decompresses one member after the other (RFC 1952), to one byte more than the most at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._member = zlib.decompressobj(wbits=31)
        self.complete = False

    def more(self, chunk: bytes) -> bytes:
        parts: list[bytes] = []
        size = 0
        while chunk and size <= self._most:
            if self.complete:
                self._member = zlib.decompressobj(wbits=31)
            try:
                parts.append(self._member.decompress(chunk, self._most + 1 - size))
            except zlib.error as error:
                raise SamplesError("malformed", f"the body is not gzip: {error}") from error
            size += len(parts[-1])
            self.complete, chunk = self._member.eof, self._member.unused_data
        return b"".join(parts)


class _TooFast(Exception):  # noqa: N818  (a state, of which a sender is told)
    def __init__(self, text: str, wait: float) -> None:
        super().__init__(text)
        self.wait = wait


async def _kept(done: "Future[dict[str, Any]]") -> dict[str, Any]:
    # Who leaves is not told; what was sent is kept all the same.
    return await asyncio.shield(asyncio.wrap_future(done))


def _name(request: Request, what: str) -> str:
    given = request.headers.get("idempotency-key", "")
    if len(given) > samples.LONGEST:
        raise SamplesError("invalid", f"the Idempotency-Key has more than {samples.LONGEST} characters")
    return f"{what} {given}" if given else ""


def _label(found: Any, where: str, times: Times) -> Label:
    content = samples.checked_object(found, where, ("service", "model", "id", "label", "time"))
    service, model, identity = (samples.word(content.get(key), f"{where}.{key}") for key in ("service", "model", "id"))
    if content.get("label") is None:
        raise SamplesError("invalid", f"{where} has no label, expected one")
    moment = samples.moment(content.get("time"), f"{where}.time", times)
    return Label(service, model, identity, samples.said(content["label"]), moment)
