"""Triggers of a fine-tuning: one for an episode, told to a real receiver once or not at all."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from infermeter_exporters.drift import triggers, verdicts
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.evaluation import Comparison, Finding, Key, evaluated
from infermeter_exporters.drift.layout import Histogram, Layout
from infermeter_exporters.drift.store import StoreError
from infermeter_exporters.drift.triggers import Cause, Sender, Webhook, headers
from infermeter_exporters.drift.verdicts import Policy
from tests.drift.receiving import Receiver
from tests.prometheus.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from infermeter_exporters.drift.store import Store

NOW = 1_700_000_000.0
SECRET = b"a secret"
PATIENCE = 30


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """It listens."""
    found = Receiver()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be sent is looked for often."""
    monkeypatch.setattr(triggers, "_IDLE", 0.02)


def begin(store: Store, identity: str = "x", *, told: bool = True) -> str:
    """A trigger by hand."""
    with store.transaction() as transaction:
        return triggers.begin_manual(transaction, "vision", "yolo", "new camera", identity, NOW, told=told)


def states(store: Store) -> list[tuple[str, int]]:
    """State and attempts of each trigger."""
    with store.transaction() as transaction:
        return [tuple(row) for row in transaction("SELECT state, attempts FROM triggers ORDER BY created, id")]


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def sending(store: Store, url: str, **more: Any) -> Iterator[Sender]:
    """What sends, in its thread."""
    found = Sender(store, Webhook(url, SECRET, timeout=PATIENCE, first_wait=0.001), **more)
    found.start()
    try:
        yield found
    finally:
        found.stop()


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_a_trigger_is_sent(store: Store, receiver: Receiver) -> None:
    """Once, with its identity, signed, so that who has the secret can tell that it is ours."""
    identity = begin(store)
    with sending(store, receiver.url):
        until(lambda: states(store) == [("sent", 1)])
    (message,) = receiver.messages
    assert message.path == "/hook?x=1"
    assert json.loads(message.body) == {
        "id": identity,
        "trigger": "manual",
        "service": "vision",
        "model": "yolo",
        "created": NOW,
        "reason": "new camera",
    }
    assert (message.headers["Content-Type"], message.headers["Idempotency-Key"]) == ("application/json", identity)
    moment = message.headers["X-Infermeter-Timestamp"]
    assert abs(int(moment) - time.time()) < PATIENCE
    digest = hmac.new(SECRET, moment.encode() + b"." + message.body, hashlib.sha256).hexdigest()
    assert message.headers["X-Infermeter-Signature"] == f"sha256={digest}"


def test_a_signature() -> None:
    """As `openssl dgst -sha256 -hmac key` makes it of "1700000000.{}"."""
    found = headers(b"key", "a", b"{}", 1_700_000_000)
    expected = hmac.digest(b"key", b"1700000000.{}", "sha256").hex()
    assert found["X-Infermeter-Signature"] == f"sha256={expected}"
    assert "X-Infermeter-Signature" not in headers(b"", "a", b"{}", 1_700_000_000)


@pytest.mark.parametrize("status", [429, 503])
def test_who_refuses_for_now_is_asked_again(store: Store, receiver: Receiver, status: int) -> None:
    """With the same message, which has the same identity, until it is taken."""
    begin(store)
    receiver.answers.extend([status] * 3)
    with sending(store, receiver.url):
        until(lambda: states(store) == [("sent", 4)])
    assert len(receiver.messages) == 4
    assert len({message.body for message in receiver.messages}) == 1
    assert len({message.headers["Idempotency-Key"] for message in receiver.messages}) == 1


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *((status, "sent") for status in (200, 299)),
        *((status, "refused") for status in (301, 307, 308, 400, 404, 408)),
        *((status, "unknown") for status in (500, 502, 504, 0)),
    ],
)
def test_what_is_not_sent_again(store: Store, receiver: Receiver, status: int, state: str) -> None:
    """What was refused, and what may have arrived; nobody is sent anywhere else."""
    begin(store)
    receiver.answers.append(status)
    with sending(store, receiver.url):
        until(lambda: states(store) == [(state, 1)])
        begin(store, "another one")
        until(lambda: ("sent", 1) in states(store)[-2:] and len(receiver.messages) == 2)
    assert [message.path for message in receiver.messages] == ["/hook?x=1"] * 2
    assert sorted(states(store)) == sorted([(state, 1), ("sent", 1)])


def test_nobody_is_there(store: Store) -> None:
    """It is sent when somebody is, since nobody can have read it."""
    begin(store)
    port = free_port()
    with sending(store, f"http://127.0.0.1:{port}/"):
        until(lambda: states(store)[0][1] >= 2)
        assert states(store)[0][0] in {"waiting", "sending"}
        late = Receiver(port)
        try:
            until(lambda: states(store)[0][0] == "sent")
        finally:
            late.close()
    assert len(late.messages) == 1


def test_nobody_is_ever_there(store: Store) -> None:
    """After twelve attempts it is given up, which is shown."""
    begin(store)
    sender = Sender(store, Webhook(f"http://127.0.0.1:{free_port()}/", first_wait=0.0))
    while sender.send_one():
        pass
    assert states(store) == [("given_up", 12)]
    with store.transaction() as transaction:
        assert triggers.by_state(transaction)["given_up"] == 1


def test_names_that_are_of_nobody(store: Store) -> None:
    """Are the same as nobody."""
    begin(store)
    Sender(store, Webhook("http://nobody.invalid/")).send_one()
    assert states(store) == [("waiting", 1)]


def test_who_does_not_answer(store: Store, receiver: Receiver) -> None:
    """May have done what was asked."""
    begin(store)
    done = threading.Event()
    receiver.answers.append(lambda: done.wait(PATIENCE) * 0)
    Sender(store, Webhook(receiver.url, timeout=0.1)).send_one()
    done.set()
    assert states(store) == [("unknown", 1)]


def test_an_answer_without_end(store: Store, receiver: Receiver) -> None:
    """Is not read: only its status says anything."""

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                pass

        def log_message(self, *arguments: object) -> None:
            pass

    receiver.server.RequestHandlerClass = Endless
    begin(store)
    Sender(store, Webhook(receiver.url, timeout=PATIENCE)).send_one()
    assert states(store) == [("sent", 1)]


def test_what_was_being_sent_when_a_process_died(store: Store, receiver: Receiver) -> None:
    """May have arrived, and is not sent again; what waited is."""
    first = begin(store, "first")
    with store.transaction() as transaction:
        transaction("UPDATE triggers SET state = 'sending', attempts = 1")
    second = begin(store, "second")
    with sending(store, receiver.url):
        until(lambda: len(receiver.messages) == 1 and ("sent", 1) in states(store))
    with store.transaction() as transaction:
        found = dict(transaction("SELECT id, state FROM triggers"))
    assert found == {first: "unknown", second: "sent"}


def test_a_store_that_is_gone_when_the_answer_comes(store: Store, receiver: Receiver) -> None:
    """What became of it is noted when the store is there again, and it is not sent another time."""
    begin(store)

    class Flaky:
        """The store, of which the second transaction fails."""

        calls = 0

        def transaction(self) -> Any:
            self.calls += 1
            if self.calls == 2:
                raise StoreError("gone")
            return store.transaction()

        def close(self) -> None:
            """It is closed by who opened it."""

    sender = Sender(Flaky(), Webhook(receiver.url))
    with pytest.raises(StoreError):
        sender.send_one()
    assert states(store) == [("sending", 1)]
    assert not sender.send_one()
    assert states(store) == [("sent", 1)]
    assert len(receiver.messages) == 1


def test_it_ends_once_it_is_answered(store: Store, receiver: Receiver) -> None:
    """What is being sent is noted first."""
    begin(store)
    go = threading.Event()

    def late() -> int:
        go.wait(PATIENCE)
        return 204

    receiver.answers.append(late)
    with sending(store, receiver.url):
        until(lambda: receiver.messages)
        threading.Timer(0.1, go.set).start()
    assert states(store) == [("sent", 1)]


# --- which there are -------------------------------------------------------------------------------------------------


def cause(feature: str = "a", episode: int = 1, model: str = "yolo") -> Cause:
    """An episode that begins."""
    return Cause("vision", model, feature, "frozen", episode, {"psi": 0.3})


def automatic(store: Store, *causes: Cause, now: float = NOW, cooldown: float = 3600.0) -> int:
    """Begin episodes."""
    with store.transaction() as transaction:
        return triggers.begin_automatic(transaction, causes, now, cooldown, told=True)


def test_one_for_a_model(store: Store) -> None:
    """However many of its features begin to drift at once; each of them is a reason."""
    assert automatic(store, cause("a"), cause("b"), cause(model="retina")) == 2
    with store.transaction() as transaction:
        rows = transaction("SELECT model, body FROM triggers ORDER BY model DESC")
        counted = triggers.counted(transaction)
    assert [row[0] for row in rows] == ["yolo", "retina"]
    assert [reason["feature"] for reason in json.loads(rows[0][1])["reasons"]] == ["a", "b"]
    assert json.loads(rows[0][1])["reasons"][0] == {
        "feature": "a",
        "baseline": "frozen",
        "episode": 1,
        "statistics": {"psi": 0.3},
    }
    assert counted == {("vision", "yolo", "automatic"): 1.0, ("vision", "retina", "automatic"): 1.0}


def test_one_for_an_episode(store: Store) -> None:
    """However often it is said to begin."""
    assert [automatic(store, cause(), now=NOW + place, cooldown=0.0) for place in range(3)] == [1, 0, 0]
    assert automatic(store, cause(episode=2), now=NOW + 9, cooldown=0.0) == 1


def test_cooldown(store: Store) -> None:
    """After a trigger of a model, also one by hand, there is no automatic one for a while; by hand there is."""
    begin(store)
    assert automatic(store, cause(), now=NOW + 3599) == 0
    assert automatic(store, cause(model="retina"), now=NOW + 3599) == 1
    assert automatic(store, cause(episode=2), now=NOW + 3600) == 1
    assert automatic(store, cause(episode=3), now=NOW + 3600 + 3599) == 0
    begin(store, "again")
    assert len(states(store)) == 4


def test_by_hand(store: Store) -> None:
    """Each name that is given is one trigger of a model; without a name each is another."""
    assert begin(store, "x") == begin(store, "x")
    assert begin(store, "") != begin(store, "")
    assert len(states(store)) == 3


def test_without_a_webhook(store: Store, receiver: Receiver) -> None:
    """Triggers are counted, and none of them is sent later."""
    begin(store, told=False)
    with sending(store, receiver.url):
        begin(store, "told")
        until(lambda: receiver.messages)
    assert sorted(states(store)) == [("recorded", 0), ("sent", 1)]


def finding(psi: float) -> Finding:
    """A window of a feature."""
    key = Key("vision", "yolo", "a")
    layout = Layout([1.0])
    one = Histogram(layout, layout.counted(np.arange(3.0)))
    (found,) = evaluated([Comparison(key, "frozen", one, one)], Gates(least=1, least_per_bin=0))
    return found._replace(status="ok", statistics={"psi": psi}, effect=psi, adjusted=1e-9)


def test_windows_that_are_decided_again(store: Store) -> None:
    """Begin no second episode, and no second trigger, whoever decides them."""
    policy = Policy(Gates(effect=0.2, windows=3, agreeing=2), 0.0, told=True)
    windows = [0.5, 0.5, 0.0, 0.0, 0.5, 0.5]
    made = []
    for place, psi in enumerate(windows):
        for _ in range(3):
            verdicts.decide(store, "push", NOW + place, [finding(psi)], policy)
        made.append(len(states(store)))
    assert made == [0, 1, 1, 1, 1, 2]


def test_what_is_logged_has_no_secret(store: Store, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Nor the message."""
    begin(store)
    receiver.answers.append(500)
    with caplog.at_level(logging.DEBUG, logger="infermeter"), sending(store, receiver.url):
        until(lambda: states(store) == [("unknown", 1)])
    assert "was answered with 500" in caplog.text
    assert SECRET.decode() not in caplog.text
    assert "new camera" not in caplog.text
