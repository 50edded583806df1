"""Samples and labels that are sent to a real exporter: all of a message is counted, once, or nothing of it."""

from __future__ import annotations

import gzip
import select
import socket
import threading
import time
import zlib
from collections import Counter
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from infermeter_exporters.drift.slots import Rules, Slots
from infermeter_exporters.drift.store import opened
from tests.drift.exporting import Exporting, exporting
from tests.drift.messages import OWNER, arrow, samples, table, written
from tests.page import Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY, SAMPLES, LEARN = 50_000, 500, 100
CONFIG = f"""
store: drift.sqlite
sources:
  - type: push
    models: [vision/yolo, vision/retina, sound/words]
    learn: {LEARN}
    features: 10
    body: {BODY}
    samples: {SAMPLES}
"""
JSON, LINES = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson"}
STREAM = {"Content-Type": "application/vnd.apache.arrow.stream"}
FILE = {"Content-Type": "application/vnd.apache.arrow.file"}


def post(exporter: Exporting, body: Any, what: str = "samples", **headers: str) -> tuple[int, dict[str, Any]]:
    """The status and the content of an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else written(body)
    answer = exporter.client.post(f"/v1/{what}", content=content, headers=named)
    return answer.status_code, answer.json()


def outcomes(exporter: Exporting, name: str = "drift_received_samples_total") -> Counter[str]:
    """What became of all that was sent."""
    found = Page(exporter.client.get("/metrics").text).by("outcome", name)
    return Counter({outcome: int(number) for outcome, number in found.items() if number})


def kept(folder: Path) -> dict[tuple[str, str, str], float]:
    """How many values of which feature are in the store."""
    with closing(opened(str(folder / "drift.sqlite"))) as store, store.transaction() as transaction:
        counted = Slots("push", Rules(300.0)).read(transaction, 0, time.time() + 1e6)
        learning = transaction("SELECT service, model, feature, SUM(number) FROM learning GROUP BY 1, 2, 3")
    found: dict[tuple[str, str, str], float] = {key: one.samples + one.non_finite for key, one in counted.items()}
    return found | {(service, model, feature): float(number) for service, model, feature, number in learning}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where its files are."""
    found = tmp_path_factory.mktemp("push")
    (found / "drift.yml").write_text(CONFIG)
    return found


@pytest.fixture(scope="module")
def exporter(folder: Path) -> Iterator[Exporting]:
    """An exporter to which may be sent."""
    with exporting(folder, "--config.file=drift.yml") as found:
        yield found


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (written(samples(3)), {}),
        (written(samples(3)), {**JSON, "Content-Type": "Application/JSON; charset=utf-8"}),
        (gzip.compress(written(samples(3))), {**JSON, "Content-Encoding": "gzip"}),
        (b"".join(map(gzip.compress, (b"[", written(samples(3))[1:]))), {"Content-Encoding": "GZIP"}),
        (b"\n".join(map(written, samples(3))), LINES),
        (gzip.compress(b"\r\n".join(map(written, samples(3))) + b"\n\n"), {**LINES, "Content-Encoding": "gzip"}),
        (arrow(table(3)), STREAM),
        (arrow(table(3), file=True), FILE),
        (gzip.compress(arrow(table(3))), {**STREAM, "Content-Encoding": "gzip"}),
        (arrow(table(3), compression="zstd"), STREAM),
        (arrow(table(3) | {"word": pa.array(["x"] * 3).dictionary_encode()}, compression="lz4", file=True), FILE),
    ],
    ids=["json", "type", "gzip", "members", "lines", "gzip lines", "stream", "file", "gzip stream", "zstd", "lz4"],
)  # fmt: skip
def test_what_is_accepted(exporter: Exporting, folder: Path, body: bytes, headers: dict[str, str]) -> None:
    """Is kept when that is answered."""
    before, counted = outcomes(exporter), kept(folder)
    assert post(exporter, body, **headers) == (200, {"accepted": 3})
    assert outcomes(exporter) - before == Counter(accepted=3)
    key = "vision", "yolo", "a"
    assert kept(folder)[key] == counted.get(key, 0) + 3


large = gzip.compress(b"[" + b" " * 200_000_000 + b"]", 9)
zeros = arrow({f"f{place}": np.zeros(1_000_000) for place in range(20)}, compression="zstd")
repeated = arrow({"a": pa.DictionaryArray.from_arrays([0], pa.array(["x" * 40_000_000]))}, compression="zstd")
words = arrow({**table(3), "b": ["ab", "cd", "\u00e9\u00e9"]}).replace("\u00e9\u00e9".encode(), b"\xff\xfe\xfd\xfc")


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"", {}, 400, "malformed"),
        (b"{", {}, 400, "malformed"),
        (b"[" * 40_000, {}, 400, "malformed"),
        (b"\xff\xfe", {}, 400, "malformed"),
        (b"[1]", {}, 400, "invalid"),
        (written(samples()), LINES | {"Content-Type": "text/plain"}, 400, "malformed"),
        (written(samples()), {"Content-Encoding": "br"}, 400, "malformed"),
        (written(samples()), {"Content-Encoding": "gzip"}, 400, "malformed"),
        (gzip.compress(written(samples()))[:-1], {"Content-Encoding": "gzip"}, 400, "malformed"),
        (gzip.compress(written(samples())) + b"more", {"Content-Encoding": "gzip"}, 400, "malformed"),
        (zlib.compress(written(samples())), {"Content-Encoding": "gzip"}, 400, "malformed"),
        (written(samples()), STREAM, 400, "malformed"),
        (arrow(table(3))[:-40], FILE, 400, "malformed"),
        (arrow(table(3))[:100], STREAM, 400, "malformed"),
        (words, STREAM, 400, "malformed"),
        (zeros, STREAM, 413, "too_large"),
        (repeated, STREAM, 413, "too_large"),
        (arrow(table(3)), FILE, 400, "malformed"),
        (large, {"Content-Encoding": "gzip"}, 413, "too_large"),
        (b" " * (BODY + 1), {}, 413, "too_large"),
        (written(samples(SAMPLES + 1)), {}, 413, "too_large"),
        (b"\n".join([b"1"] * (SAMPLES + 1)), LINES, 413, "too_large"),
        (arrow(table(SAMPLES + 1)), STREAM, 413, "too_large"),
        (written(samples(model="other")), {}, 422, "unknown_model"),
        (arrow(table(3) | {"model": ["yolo", "yolo", "mine"]}), STREAM, 422, "unknown_model"),
        (written(samples(features={"a": "x"})), {}, 422, "dtype"),
        (written([*samples(2), *samples(features={"a": "x"})]), {}, 422, "dtype"),
        (written(samples(features={"a": 10**400})), {}, 422, "dtype"),
        (arrow(table(3) | {"a": [[1.0]] * 3}), STREAM, 422, "dtype"),
        (written(samples(time=time.time() + 1000)), {}, 422, "clock"),
        (written(samples(time=time.time() * 1000)), {}, 422, "clock"),
        (written(samples(time=time.time() - 86_400)), {}, 422, "late"),
        (written(samples(features={f"new {place}": 1 for place in range(11)})), {}, 422, "too_many_series"),
        (written([*samples(5), *samples(service="_idle")]), {}, 400, "invalid"),
        (written([*samples(5), *samples(time="2023-11-14T22:13:20")]), {}, 400, "invalid"),
        (written(samples()), {"Idempotency-Key": "x" * 201}, 400, "invalid"),
    ],
)  # fmt: skip
def test_what_is_refused(
    exporter: Exporting, folder: Path, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    """With a status, a word and a sentence; nothing of it is counted but that it was refused."""
    post(exporter, samples(3))
    before, counted = outcomes(exporter), kept(folder)
    code, answer = post(exporter, body, **headers)
    assert (code, answer["reason"]) == (status, reason)
    assert answer["error"]
    assert set(answer) == {"error", "reason"}
    assert outcomes(exporter) - before == Counter({reason: 1})
    assert kept(folder) == counted


def test_broken_tables(exporter: Exporting) -> None:
    """Whatever is broken of a table, the exporter lives."""
    whole = arrow(table(50) | {"word": [str(place) for place in range(50)]})
    chance = np.random.default_rng(1)
    codes = set()
    for _ in range(100):
        broken = bytearray(whole)
        for place in chance.integers(0, len(whole), 4):
            broken[place] = chance.integers(0, 256)
        codes.add(post(exporter, bytes(broken), **STREAM)[0])
    assert codes <= {200, 400, 413, 422}
    assert 400 in codes
    assert exporter.process.poll() is None


def test_much_more_than_is_taken(exporter: Exporting) -> None:
    """A sender that goes on and on is cut off, or reads why."""
    before = outcomes(exporter)

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 100_000

    try:
        assert exporter.client.post("/v1/samples", content=endless()).status_code == 413
    except httpx.TransportError:
        pass
    assert outcomes(exporter) - before == Counter(too_large=1)
    assert post(exporter, samples())[0] == 200


@pytest.mark.parametrize("what", ["samples", "labels", "trigger"])
def test_only_post(exporter: Exporting, what: str) -> None:
    """Everything else is no way to send."""
    assert exporter.client.get(f"/v1/{what}").status_code == 405
    assert exporter.client.put(f"/v1/{what}", content=b"[]").status_code == 405


def test_a_message_that_is_sent_again(exporter: Exporting, folder: Path) -> None:
    """Is answered as the first time, and counted once, whatever is in it then."""
    before, counted = outcomes(exporter), kept(folder)["vision", "yolo", "a"]
    answers = [post(exporter, samples(number), Idempotency_Key="one") for number in (4, 4, 5)]
    again = {"accepted": 4, "repeated": True}
    assert answers == [(200, {"accepted": 4}), (200, again), (200, again)]
    assert outcomes(exporter) - before == Counter(accepted=4, repeated=4 + 5)
    assert kept(folder)["vision", "yolo", "a"] == counted + 4
    refused = post(exporter, samples(features={"a": "x"}), Idempotency_Key="two")
    assert refused[0] == 422
    assert post(exporter, samples(2), Idempotency_Key="two") == (200, {"accepted": 2})  # nothing was counted of it


def test_too_many_who_send(exporter: Exporting) -> None:
    """Are told to come back later; those who were there first are not disturbed, nor are scrapes."""
    before = outcomes(exporter)
    host, port = exporter.url.removeprefix("http://").split(":")
    body = written(samples())
    head = f"POST /v1/samples HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((host, int(port)), timeout=30)) for _ in range(17)]
        for connection in slow:
            connection.sendall(head + body[:1])
        ((refused,), _, _) = select.select(slow, [], [], 30)
        answer = refused.recv(1000)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert exporter.client.get("/metrics").status_code == 200
        for connection in slow:
            if connection is not refused:
                connection.sendall(body[1:])
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert outcomes(exporter) - before == Counter(accepted=16, busy=1)
    assert post(exporter, samples())[0] == 200


def test_labels(exporter: Exporting) -> None:
    """Of predictions that were sent; each way to be wrong is answered, and counted."""
    predictions = [
        {**OWNER, "id": place, "prediction": place % 2, "confidence": 0.9, "features": {"a": 1}} for place in range(4)
    ]
    assert post(exporter, predictions) == (200, {"accepted": 4})
    before = outcomes(exporter, "drift_labels_total")
    given = [{**OWNER, "id": place, "label": "1"} for place in (1, 2, 1, 99)]
    answer = {"joined": 2, "unknown": 1, "duplicate": 1}
    assert post(exporter, given, "labels", Idempotency_Key="one") == (200, answer)
    assert post(exporter, given, "labels", Idempotency_Key="one") == (200, answer | {"repeated": True})
    lines = b"\n".join(written({**OWNER, "id": place, "label": 1.0}) for place in (0, 3))
    assert post(exporter, lines, "labels", **LINES) == (200, {"joined": 2, "unknown": 0, "duplicate": 0})
    for wrong, reason in (
        (b"{", "malformed"),
        ({**OWNER, "id": 1}, "invalid"),
        ({**OWNER, "id": 1, "label": []}, "dtype"),
        ({**OWNER, "id": 1, "label": 1, "truth": 1}, "invalid"),
        ([{**OWNER, "id": 1, "label": 1}] * (SAMPLES + 1), "too_large"),
    ):
        code, refused = post(exporter, wrong, "labels")
        assert (code // 100, refused["reason"]) == (4, reason)
    expected = Counter(joined=4, unknown=1, duplicate=1, malformed=1, invalid=2, dtype=1, too_large=1)
    assert outcomes(exporter, "drift_labels_total") - before == expected


def test_triggers_by_hand(exporter: Exporting) -> None:
    """Are kept once for each name that they are given, and shown; nobody is told where there is no webhook."""
    asked = {"service": "sound", "model": "words", "reason": "new microphones \ud83c\udfa4"}
    first, again = (post(exporter, asked, "trigger", Idempotency_Key="x") for _ in range(2))
    other = post(exporter, asked, "trigger")
    assert first[0] == again[0] == other[0] == 200
    assert first[1]["id"] == again[1]["id"] != other[1]["id"]
    for wrong, code in (
        ([], 400),
        ([asked, asked], 413),
        ({**asked, "model": "other"}, 422),
        ({**asked, "reason": 3}, 400),
        ({**asked, "reason": "x" * 1001}, 400),
        ({"service": "sound"}, 400),
    ):
        assert post(exporter, wrong, "trigger")[0] == code
    with closing(opened(f"{exporter._log.parent}/drift.sqlite")) as store, store.transaction() as transaction:
        found = transaction("SELECT kind, service, model, state FROM triggers")
    assert [tuple(row) for row in found] == [("manual", "sound", "words", "recorded")] * 2


def test_senders_at_the_same_time(exporter: Exporting, folder: Path) -> None:
    """Each of their samples is counted once, however they come together."""
    before, counted = outcomes(exporter), kept(folder)
    number, each, threads = 15, 40, 8
    answers: list[int] = []

    def send(thread: int) -> None:
        with httpx.Client(base_url=exporter.url, trust_env=False, timeout=60) as client:
            for place in range(number):
                if place % 2:
                    body, headers = written(samples(each, f"of {thread % 2}")), JSON
                else:
                    body, headers = arrow(table(each, f"of {thread % 2}")), STREAM
                key = {"Idempotency-Key": f"{thread} {place // 3}"} if place % 3 < 2 else {}
                answers.append(client.post("/v1/samples", content=body, headers=headers | key).status_code)

    workers = [threading.Thread(target=send, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert answers == [200] * threads * number
    # Of three messages, two have the same name.
    once, twice = (threads * number // 3 * part * each for part in (2, 1))
    assert outcomes(exporter) - before == Counter(accepted=once, repeated=twice)
    for feature in ("of 0", "of 1"):
        assert kept(folder)["vision", "yolo", feature] - counted.get(("vision", "yolo", feature), 0) == once / 2


def test_killed_while_it_is_sent_to(tmp_path: Path) -> None:
    """What is sent again, because nobody answered, is counted once."""
    (tmp_path / "drift.yml").write_text(CONFIG)
    answered: set[int] = set()
    total, each = 240, 10

    def send(exporter: Exporting, numbers: list[int]) -> None:
        with httpx.Client(base_url=exporter.url, trust_env=False, timeout=60) as client:
            for number in numbers:
                named = {"Idempotency-Key": f"{number}"}
                try:
                    answer = client.post("/v1/samples", content=written(samples(each)), headers=named)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                answered.add(number)

    def send_all(exporter: Exporting) -> list[threading.Thread]:
        left = [number for number in range(total) if number not in answered]
        threads = [threading.Thread(target=send, args=(exporter, left[place::4])) for place in range(4)]
        for thread in threads:
            thread.start()
        return threads

    with exporting(tmp_path, "--config.file=drift.yml") as exporter:
        threads = send_all(exporter)
        exporter.until(lambda: len(answered) > 30)
        exporter.process.kill()
        for thread in threads:
            thread.join()
    assert len(answered) < total
    before = len(answered)
    with exporting(tmp_path, "--config.file=drift.yml") as exporter:
        first = next(iter(answered))
        again = post(exporter, samples(each), Idempotency_Key=f"{first}")
        assert again == (200, {"accepted": each, "repeated": True})
        for thread in send_all(exporter):
            thread.join()
        assert len(answered) == total
        found = outcomes(exporter)
        assert found["accepted"] + found["repeated"] == (total - before + 1) * each
    assert kept(tmp_path) == {("vision", "yolo", "a"): total * each}


def test_a_rate(tmp_path: Path) -> None:
    """Who sends more is told when to come back; it is an average, so that one large message is taken."""
    (tmp_path / "drift.yml").write_text("store: drift.sqlite\nsources: [{type: push, rate: 1}]\n")
    with exporting(tmp_path, "--config.file=drift.yml") as exporter:
        assert post(exporter, samples(600))[0] == 200
        answer = exporter.client.post("/v1/samples", content=written(samples()))
        assert (answer.status_code, answer.json()["reason"]) == (429, "rate")
        assert answer.json()["error"] == "more than 1 samples a second were sent"
        assert 500 < int(answer.headers["Retry-After"]) <= 599
        assert outcomes(exporter) == Counter(accepted=600, rate=1)


def test_no_source_to_send_to(tmp_path: Path) -> None:
    """Is said."""
    (tmp_path / "drift.yml").write_text(
        "store: drift.sqlite\nsources: [{type: files, path: '*.csv', service: a, model: b}]\n"
    )
    with exporting(tmp_path, "--config.file=drift.yml") as exporter:
        answer = exporter.client.post("/v1/samples", content=written(samples()))
    assert (answer.status_code, answer.text) == (404, "the configuration has no source of the type push\n")
