"""The rows of a ledger as protobuf, which carries native histograms."""

from collections.abc import Mapping

from prometheus_client.samples import Exemplar

from infermeter import protobuf
from infermeter.catalogue import FAMILIES
from infermeter.pace import Pace
from infermeter.rows import HistogramRow, Row, Rows, batched, labels_of


class Encoder:
    """Encodes the rows of one ledger; those that did not change since the last time are as they were.

    Args:
        rows: whose rows.
        constant: labels that every family of a service carries besides its own.
    """

    def __init__(self, rows: Rows, constant: Mapping[str, str]) -> None:
        self._rows = rows
        self._constant = constant

    def page(self, *, classic: bool) -> bytes:
        """The messages of every family that has rows; the caller holds the fold lock.

        Args:
            classic: leave native buckets out, and classic ones of native histograms in.
        """
        parts = []
        pace = Pace()
        for name, family in FAMILIES.items():
            encoded: list[bytes] = []
            for group in self._rows.groups(name):
                for some in batched(list(group.values())) if family.kind == "histogram" else ():
                    encoded += self._histograms(some, classic=classic)
                    pace.step()
                if family.kind != "histogram":
                    if group.messages is None:
                        group.messages = [self._encoded(row) for row in list(group.values())]
                    encoded += group.messages
                pace.step()
            if encoded:
                parts.append(protobuf.family(name, family.help, family.kind, encoded))
        return b"".join(parts)

    def _histograms(self, rows: list[Row], *, classic: bool) -> list[bytes]:
        """The messages of histograms, as they were where nothing changed."""
        some = [row for row in rows if isinstance(row, HistogramRow)]
        if classic:
            return [self._histogram(row, "classic") for row in some]
        for row in some:
            if row.message is None:
                row.message = self._histogram(row, self._rows.modes.get(row.family.name, "classic"))
        return [row.message or b"" for row in some]

    def _encoded(self, row: Row) -> bytes:
        """The message of a row that is no histogram."""
        family = row.family
        labels = protobuf.labels(labels_of(row, self._constant))
        values = row.values.tolist()
        if family.kind == "summary":
            return protobuf.summary(labels, int(values[0]), values[1])
        if family.kind == "counter":
            return protobuf.counter(labels, values[0])
        return protobuf.gauge(labels, values[0])

    def _histogram(self, row: HistogramRow, mode: str) -> bytes:
        *cumulative, count, total = row.values.tolist()
        edges = self._rows.edges[row.family.name]
        shown = {place: Exemplar(one.labels, one.value, one.time) for place, one in row.exemplars.items()}
        native = row.native if mode != "classic" else None
        return protobuf.histogram(
            protobuf.labels(labels_of(row, self._constant)),
            int(count),
            total,
            edges=edges if mode != "native" else (),
            cumulative=[int(number) for number in cumulative] if mode != "native" else (),
            exemplars=[shown.get(place) for place in range(len(edges) + 1)] if shown and mode != "native" else (),
            sparse=native.sparse() if native is not None else None,
            native_exemplars=shown.values() if native is not None else (),
        )
