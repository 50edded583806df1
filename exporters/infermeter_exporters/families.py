"""What a metric of an exporter is, and what an exporter shows at one moment."""

from typing import Literal, NamedTuple

# Label values in the order of the family's labels, and the value.
Series = dict[tuple[str, ...], float]
# By the name of the family. A family without series is not shown.
Samples = dict[str, Series]


class Family(NamedTuple):
    """One metric family: its contract with rules, dashboards and people.

    Attributes:
        name: with its suffix: `_total` of a counter, `_info` of an info.
        kind: an info is a gauge of 1 whose labels are what it says.
        help: one sentence, with the unit.
        labels: names, in the order in which series give their values.
        source: where it comes from, for the documentation: the call of a driver, the field of an answer.
        since: the release that has it first.
    """

    name: str
    kind: Literal["gauge", "counter", "info"]
    help: str
    labels: tuple[str, ...] = ()
    source: str = ""
    since: str = "0.2.0"


def by_name(*families: Family) -> dict[str, Family]:
    """Families by their names, in their order; a name that comes twice raises ValueError."""
    found = {family.name: family for family in families}
    if len(found) != len(families):
        names = [family.name for family in families]
        raise ValueError(f"more than one family is called {max(names, key=names.count)}")
    return found
