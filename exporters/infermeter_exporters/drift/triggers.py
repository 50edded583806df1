"""Triggers of a fine-tuning: one for an episode of drift, or by hand; told to a webhook once, or not at all.

A trigger is kept in the transaction that begins the episode. Before it is sent it is marked as being sent: if the
process dies between that and the answer, or the connection does, nobody knows whether it arrived, and it is not sent
again. It is sent again only where it cannot have done anything: where nobody could be reached, or the receiver refused
it for now (429 and 503).
"""

import hashlib
import hmac
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from infermeter_exporters.drift.store import Store, StoreError, Transaction

log = logging.getLogger("infermeter.drift.triggers")

Kind = Literal["automatic", "manual"]
KINDS: tuple[Kind, ...] = ("automatic", "manual")
STATES = ("recorded", "waiting", "sending", "sent", "refused", "unknown", "given_up")
"""recorded: there is no webhook. unknown: it may have arrived. given_up: nobody could be reached for too long."""
_FOR_NOW = {429, 503}
_MOST_ATTEMPTS = 12
_LONGEST_WAIT = 900.0
_IDLE = 1.0


class Webhook(NamedTuple):
    """Who is told.

    Attributes:
        url: where to POST.
        secret: with which a message is signed; empty for none.
        timeout: seconds that it may take to answer.
        first_wait: seconds before the second attempt; doubled each time.
    """

    url: str
    secret: bytes = b""
    timeout: float = 10.0
    first_wait: float = 1.0


class Cause(NamedTuple):
    """An episode of drift that began.

    Attributes:
        service: whose.
        model: of the service.
        feature: that drifts.
        baseline: from which.
        episode: its number, from 1 on.
        statistics: of the window that decided.
    """

    service: str
    model: str
    feature: str
    baseline: str
    episode: int
    statistics: dict[str, float]


def begin_automatic(
    transaction: Transaction, causes: Iterable[Cause], now: float, cooldown: float, *, told: bool
) -> int:
    """Keep a trigger for each model of which an episode begins, unless its last one is too recent; gives how many.

    Args:
        transaction: that begins the episodes.
        causes: those that begin.
        now: the end of the window that decided, in seconds since 1970.
        cooldown: seconds after a trigger in which a model gets no other automatic one.
        told: whether there is a webhook.
    """
    by_model: dict[tuple[str, str], list[Cause]] = {}
    for cause in causes:
        by_model.setdefault((cause.service, cause.model), []).append(cause)
    made = 0
    for (service, model), of_model in by_model.items():
        last = transaction("SELECT MAX(created) FROM triggers WHERE service = ? AND model = ?", service, model)[0][0]
        if last is not None and now - last < cooldown:
            continue
        episode = "\0".join(f"{one.feature}\0{one.baseline}\0{one.episode}" for one in sorted(of_model))
        identity = hashlib.sha256(f"{service}\0{model}\0{episode}".encode()).hexdigest()[:32]
        reasons = [
            {"feature": one.feature, "baseline": one.baseline, "episode": one.episode, "statistics": one.statistics}
            for one in of_model
        ]
        made += _keep(transaction, identity, "automatic", (service, model), now, {"reasons": reasons}, told=told)
    return made


def begin_manual(
    transaction: Transaction, service: str, model: str, reason: str, identity: str, now: float, *, told: bool
) -> str:
    """Keep a trigger that somebody asked for; gives its identity. Asked for again by the same, it is the same."""
    identity = (
        hashlib.sha256(f"manual\0{service}\0{model}\0{identity}".encode()).hexdigest()[:32]
        if identity
        else uuid.uuid4().hex
    )
    _keep(transaction, identity, "manual", (service, model), now, {"reason": reason}, told=told)
    return identity


def _keep(
    transaction: Transaction, identity: str, kind: Kind, of: tuple[str, str], now: float, more: Any, *, told: bool
) -> int:
    content = {"id": identity, "trigger": kind, "service": of[0], "model": of[1], "created": now, **more}
    return len(
        transaction(
            "INSERT INTO triggers VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT (id) DO NOTHING RETURNING id",
            *(identity, kind, *of, now, json.dumps(content), "waiting" if told else "recorded", now),
        )
    )


def counted(transaction: Transaction) -> dict[tuple[str, ...], float]:
    """How many triggers there were, by service, model and kind."""
    rows = transaction("SELECT service, model, kind, COUNT(*) FROM triggers GROUP BY service, model, kind")
    return {(service, model, kind): float(number) for service, model, kind, number in rows}


def by_state(transaction: Transaction) -> dict[str, float]:
    """How many triggers are in which of `STATES`."""
    found = dict.fromkeys(STATES, 0.0)
    found.update({state: float(number) for state, number in transaction(_BY_STATE)})
    return found


_BY_STATE = "SELECT state, COUNT(*) FROM triggers GROUP BY state"


Post = Callable[[bytes, dict[str, str]], int]


class Sender:
    """Sends triggers in a thread of its own.

    Args:
        store: where they are.
        webhook: who is told.
        post: how: gives a status, and raises `Unreached` or any other error; by default that of `poster`.
    """

    def __init__(self, store: Store, webhook: Webhook, post: Post | None = None) -> None:
        self._store = store
        self._webhook = webhook
        self._post = post or poster(webhook)
        self._unnoted: tuple[str, float, str] | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="triggers", daemon=True)

    def start(self) -> None:
        """Begin; what an earlier process was sending when it died may have arrived."""
        self._thread.start()

    def stop(self) -> None:
        """End, once what is being sent has been answered."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(self._webhook.timeout + 1)

    def _run(self) -> None:
        recovered = False
        while True:
            try:
                if not recovered:
                    with self._store.transaction() as transaction:
                        transaction("UPDATE triggers SET state = 'unknown' WHERE state = 'sending'")
                    recovered = True
                while not self._end.is_set() and self.send_one():
                    pass
            except StoreError as error:
                log.warning("triggers wait: %s", error)
            if self._end.wait(_IDLE):
                return

    def send_one(self) -> bool:
        """Send one trigger that is due; gives whether there was one.

        Raises:
            StoreError: the store does not answer; what was sent and could not be noted is noted the next time.
        """
        self._note()
        now = time.time()
        with self._store.transaction() as transaction:
            claimed = transaction(
                "UPDATE triggers SET state = 'sending', attempts = attempts + 1 WHERE id = (SELECT id FROM triggers"
                " WHERE state = 'waiting' AND due <= ? ORDER BY due LIMIT 1) AND state = 'waiting'"
                " RETURNING id, attempts, body",
                now,
            )
        if not claimed:
            return False
        identity, attempts, body = claimed[0]
        state = self._sent(identity, body.encode(), attempts)
        wait = min(self._webhook.first_wait * 2 ** (attempts - 1), _LONGEST_WAIT)
        self._unnoted = state, now + wait, identity
        self._note()
        return True

    def _note(self) -> None:
        if self._unnoted is not None:
            with self._store.transaction() as transaction:
                transaction("UPDATE triggers SET state = ?, due = ? WHERE id = ?", *self._unnoted)
            self._unnoted = None

    def _sent(self, identity: str, body: bytes, attempts: int) -> str:
        try:
            status = self._post(body, headers(self._webhook.secret, identity, body, int(time.time())))
        except Unreached as error:
            log.warning("trigger %s could not be sent: %s", identity, error)
            return "waiting" if attempts < _MOST_ATTEMPTS else "given_up"
        except Exception as error:
            # Whatever it was, some of the message may have been read.
            log.warning("trigger %s may have been sent: %s", identity, error)
            return "unknown"
        if status in _FOR_NOW:
            return "waiting" if attempts < _MOST_ATTEMPTS else "given_up"
        if 200 <= status < 300:  # noqa: PLR2004
            return "sent"
        log.warning("trigger %s was answered with %d", identity, status)
        return "refused" if status < 500 else "unknown"  # noqa: PLR2004


class Unreached(Exception):  # noqa: N818  (what happened)
    """Nobody can have read anything of a message."""


def headers(secret: bytes, identity: str, body: bytes, moment: int) -> dict[str, str]:
    """What a message bears besides its body: who has the secret can tell that it is ours, and not an old one.

    `X-Infermeter-Signature` is `sha256=` and the HMAC-SHA256 (RFC 2104), in hexadecimal, of the timestamp, a dot and
    the body.
    """
    found = {
        "Content-Type": "application/json",
        "Idempotency-Key": identity,
        "X-Infermeter-Timestamp": str(moment),
    }
    if secret:
        digest = hmac.new(secret, b"%d." % moment + body, hashlib.sha256).hexdigest()
        found["X-Infermeter-Signature"] = f"sha256={digest}"
    return found


def poster(webhook: Webhook) -> Post:
    """What sends messages by HTTP, and gives their status; made before a message is marked as being sent.

    It raises `Unreached` where nobody can have read anything. Each message has a connection of its own: of one that
    idled, nobody knows whether the other side has closed it.
    """
    import httpx  # noqa: PLC0415  (only who has a webhook pays for it)

    verified = httpx.create_ssl_context()

    def post(body: bytes, given: dict[str, str]) -> int:
        try:
            # What is answered besides the status may have any size, and is not read.
            with (
                httpx.Client(timeout=webhook.timeout, follow_redirects=False, verify=verified) as client,
                client.stream("POST", webhook.url, content=body, headers=given) as answer,
            ):
                return answer.status_code
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreached(str(error) or "no connection within the timeout") from error

    return post
