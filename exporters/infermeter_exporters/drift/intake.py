"""What is sent is kept by one thread, many batches in one transaction; a sender is answered when it is on the disk."""

import json
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from infermeter_exporters.drift import labels
from infermeter_exporters.drift.labels import Label
from infermeter_exporters.drift.samples import Samples, SamplesError
from infermeter_exporters.drift.slots import Slots
from infermeter_exporters.drift.source import SourceError
from infermeter_exporters.drift.store import Store, StoreError, Transaction

log = logging.getLogger("infermeter.drift.intake")

_AT_ONCE = 64
"""Batches in a transaction."""
_MOST_WAITING = 256
_REMEMBERED = 86_400.0
"""Seconds for which the name of a batch is known."""


class Full(Exception):  # noqa: N818  (a state, of which a sender is told)
    """More batches wait than there is room for."""


Work = Callable[[Transaction], dict[str, Any]]


class _Batch(NamedTuple):
    name: str
    work: Work
    done: "Future[dict[str, Any]]"


class Intake:
    """Keeps what one source is sent.

    Args:
        store: where it is kept.
        slots: how it is counted.
        outcome_slot: seconds of the slots in which predictions and labels are counted.

    Attributes:
        counts: samples, labels and what became of them, by words.
    """

    def __init__(self, store: Store, slots: Slots, outcome_slot: float) -> None:
        self.counts: Counter[str] = Counter()
        self._store = store
        self._slots = slots
        self._outcome_slot = outcome_slot
        self._ended = False
        self._ending = threading.Lock()
        self._waiting: queue.Queue[_Batch | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name=f"{slots.source} intake", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what waits is kept first."""
        with self._ending:
            self._ended = True
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(30)

    def samples(self, found: Samples, name: str = "") -> "Future[dict[str, Any]]":
        """Have samples kept.

        Args:
            found: those.
            name: of the batch; another one of that name is taken for the same, and not counted.

        Returns:
            What the sender is told, once it is so. It raises SamplesError if they cannot be counted, and StoreError if
            they could not be kept; nothing of them is counted then.

        Raises:
            Full: too many batches wait.
        """

        def work(transaction: Transaction) -> dict[str, Any]:
            self.keep(transaction, found)
            return {"accepted": found.number}

        return self._put(name, work)

    def labels(self, found: Sequence[Label], name: str = "") -> "Future[dict[str, Any]]":
        """Have labels joined to predictions; arguments, returns and errors are as of `samples`."""

        def work(transaction: Transaction) -> dict[str, Any]:
            return labels.join(transaction, found, self._outcome_slot)._asdict()

        return self._put(name, work)

    def keep(self, transaction: Transaction, found: Samples) -> None:
        """Count samples in a transaction of one's own; who has it calls `forget` if it does not happen.

        Raises:
            SamplesError: they cannot be counted; nothing has been changed.
        """
        self._slots.add(transaction, found.columns, time.time())
        labels.keep(transaction, found.predictions, self._outcome_slot)

    def forget(self) -> None:
        """What is known of a transaction that did not happen."""
        self._slots.forget()

    def prune(self, transaction: Transaction) -> None:
        """Forget names of batches that nobody sends again."""
        transaction("DELETE FROM batches WHERE seen < ?", time.time() - _REMEMBERED)

    def _put(self, name: str, work: Work) -> "Future[dict[str, Any]]":
        done: Future[dict[str, Any]] = Future()
        with self._ending:  # or a batch could come after the last one
            if self._ended:
                raise Full
            try:
                self._waiting.put_nowait(_Batch(name, work, done))
            except queue.Full:
                raise Full from None
        return done

    def _run(self) -> None:
        ended = False
        while not ended:
            batches: list[_Batch] = []
            one = self._waiting.get()
            while one is not None:
                batches.append(one)
                if len(batches) == _AT_ONCE:
                    break
                try:
                    one = self._waiting.get_nowait()
                except queue.Empty:
                    break
            ended = one is None
            if batches:
                self._kept(batches)

    def _kept(self, batches: Sequence[_Batch]) -> None:
        answers: list[dict[str, Any] | Exception] = []
        try:
            with self._store.transaction() as transaction:
                answers.extend(self._answer(transaction, batch) for batch in batches)
        except Exception as error:
            self.forget()
            if not isinstance(error, StoreError):
                if len(batches) > 1:  # one of them is to blame, which keeps back none of the others
                    for batch in batches:
                        self._kept([batch])
                    return
                log.exception("a batch could not be kept")
            answers = [error] * len(batches)
        for batch, answer in zip(batches, answers, strict=True):
            if isinstance(answer, Exception):
                batch.done.set_exception(answer)
            else:
                batch.done.set_result(answer)

    def _answer(self, transaction: Transaction, batch: _Batch) -> dict[str, Any] | Exception:
        if batch.name:
            known = transaction("SELECT answer FROM batches WHERE name = ?", batch.name)
            if known:
                answer: dict[str, Any] = json.loads(known[0][0])
                return answer | {"repeated": True}
        try:
            with _alone(transaction):
                found = batch.work(transaction)
                if batch.name:
                    row = batch.name, time.time(), json.dumps(found)
                    transaction("INSERT INTO batches VALUES (?, ?, ?)", *row)
                return found
        except SamplesError as error:
            return error


@contextmanager
def _alone(transaction: Transaction) -> Any:
    """What is done in the block is undone if it raises, and nothing else of the transaction is."""
    transaction("SAVEPOINT batch")
    try:
        yield
    except BaseException:
        transaction("ROLLBACK TO SAVEPOINT batch")
        raise
    transaction("RELEASE SAVEPOINT batch")


class Feeder(Protocol):
    """Fetches what is not sent by others."""

    def __call__(self, end: threading.Event) -> None:
        """Fetch again and again, until `end` is set."""

    def refresh(self) -> None:
        """Fetch what there is by now.

        Raises:
            SourceError: nobody answers, or what is there makes no sense.
            StoreError: the store does not answer.
        """


class Kept:
    """A source of what was sent; see `source.Source`.

    Args:
        store: where it is kept.
        slots: how it is counted.
        baselines: with what its windows are compared.
        feeder: fetches what is not sent by others.
    """

    def __init__(
        self,
        store: Store,
        slots: Slots,
        baselines: Sequence[str],
        feeder: Feeder | None = None,
    ) -> None:
        self.name = slots.source
        self.baselines = baselines
        self._store = store
        self._slots = slots
        self._feeder = feeder
        self.learn = 0  # that is done where values are counted
        self.waited = 0.0

    def counted(self, begin: float, end: float) -> Any:
        """What was observed from `begin` on and before `end`.

        Raises:
            SourceError: the store does not answer.
        """
        try:
            with self._store.transaction() as transaction:
                return self._slots.read(transaction, begin, end)
        except StoreError as error:
            raise SourceError("store", f"{self.name}: {error}") from error

    def learning(self) -> Any:
        """Features whose bins are not known yet, and how many of their values are kept.

        Raises:
            SourceError: the store does not answer.
        """
        try:
            with self._store.transaction() as transaction:
                return self._slots.learning(transaction)
        except StoreError as error:
            raise SourceError("store", f"{self.name}: {error}") from error

    def require_fresh(self, end: float) -> None:  # noqa: ARG002  (of all times)
        """What was sent is all there is; what has to be fetched is fetched now, so that no window ends without it.

        Raises:
            SourceError: it cannot be fetched.
            StoreError: the store does not answer.
        """
        if self._feeder is not None:
            began = time.monotonic()
            self._feeder.refresh()
            self.waited += time.monotonic() - began

    def close(self) -> None:
        """There is nothing to be closed."""

    def feed(self, end: threading.Event) -> None:
        """Fetch until `end` is set."""
        if self._feeder is not None:
            self._feeder(end)
