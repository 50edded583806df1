"""The rows of a ledger as protobuf, which carries native histograms."""

from collections.abc import Mapping

from prometheus_client.samples import Exemplar

from infermeter import protobuf
from infermeter.catalogue import FAMILIES
from infermeter.pace import Pace
from infermeter.rows import Row, Rows, batched, labels_of


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
            for some in batched(self._rows.of(name)):
                if classic and family.kind == "histogram":
                    encoded += [self._histogram(row, "classic") for row in some]
                else:
                    encoded += [row.message or self._encoded(row) for row in some]
                pace.step()
            if encoded:
                parts.append(protobuf.family(name, family.help, family.kind, encoded))
        return b"".join(parts)

    def _encoded(self, row: Row) -> bytes:
        """The message of a row, made anew."""
        family = row.family
        if family.kind == "histogram":
            row.message = self._histogram(row, self._rows.modes.get(family.name, "classic"))
            return row.message
        labels = protobuf.labels(labels_of(row, self._constant))
        values = row.values.tolist()
        if family.kind == "summary":
            row.message = protobuf.summary(labels, int(values[0]), values[1])
        elif family.kind == "counter":
            row.message = protobuf.counter(labels, values[0])
        else:
            row.message = protobuf.gauge(labels, values[0])
        return row.message

    def _histogram(self, row: Row, mode: str) -> bytes:
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
