"""What the library tells of itself: its version, and what it refused or folded, at 0 from the start."""

import platform

from infermeter.catalogue import DROP_REASONS
from infermeter.guard import GUARDED
from infermeter.rows import Rows
from infermeter.version import __version__

DROPPED = "infermeter_observations_dropped_total"
FOLDED = "infermeter_label_values_folded_total"


def announce(rows: Rows) -> bool:
    """Show in `rows` what is told before anything was counted; gives whether that is still to be done: it is not."""
    for reason in sorted(DROP_REASONS):
        rows.row(DROPPED, (), (reason,))
    for label in sorted(GUARDED):
        rows.row(FOLDED, (), (label,))
    rows.row("infermeter_build_info", (), (__version__, platform.python_version())).set(1)
    return False
