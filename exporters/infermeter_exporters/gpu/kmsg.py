"""Errors of GPUs in the kernel's log: they are there when the driver's own events are not, and with their true times.

Format: https://www.kernel.org/doc/Documentation/ABI/testing/dev-kmsg
"""

import errno
import os
import re
import time

from infermeter_exporters.gpu.readings import Xid
from infermeter_exporters.gpu.sysfs import pci_address

# "6,1234,987654321,-;text", with more fields before the semicolon in later kernels.
_RECORD = re.compile(r"([0-9]{1,9}),[0-9]+,([0-9]{1,18})(?:,[^;]*)?;(.*)")
# "NVRM: Xid (PCI:0000:65:00): 79, ..."; old drivers leave out PCI:, and an instance of MIG follows the address.
_XID = re.compile(
    r"NVRM: Xid \((?:PCI:)?([0-9A-Fa-f]{1,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}(?:\.[0-7])?)[^)]*\): ([0-9]{1,6})\b"
)
_FACILITY_SHIFT = 3
# A record is at most 8 KiB; the kernel refuses to give one to a smaller buffer.
_PIECE = 1 << 14
# Reads at one poll: whoever floods the log does not keep us from everything else.
_MOST = 4096


class Kmsg:
    """The kernel's log from now on.

    Args:
        path: of the log.

    Attributes:
        reason: why it cannot be read, one sentence; empty if it can.
    """

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self.reason = ""
        self._rest = b""
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.reason = f"{path} cannot be read ({error.strerror}), errors of GPUs are known from the driver alone"
            return
        try:
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError:  # a pipe, which begins now anyway
            pass

    def poll(self) -> list[Xid]:
        """The errors that were logged since the last call; waits for nothing."""
        found: list[Xid] = []
        for _ in range(_MOST if self._descriptor >= 0 else 0):
            try:
                piece = os.read(self._descriptor, _PIECE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in {errno.EPIPE, errno.EINTR}:  # records were overwritten before they were read
                    self._rest = b""
                    continue
                self.reason = f"the kernel's log can no longer be read ({error.strerror})"
                self.close()
                break
            if not piece:
                break
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._rest = self._rest[-_PIECE:]
            found += [xid for line in lines if (xid := _xid(line.decode("utf-8", "replace"))) is not None]
        return found

    def close(self) -> None:
        """Read no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _xid(line: str) -> Xid | None:
    """The error that a line of the log tells of; lines that continue a record begin with a space and tell of none."""
    record = _RECORD.fullmatch(line)
    # Only what the kernel itself says: a program that may write to the log cannot take on its name.
    if record is None or int(record[1]) >> _FACILITY_SHIFT:
        return None
    said = _XID.match(record[3])
    if said is None:
        return None
    # The log counts microseconds since the start of the system.
    age = max(0.0, time.monotonic() - int(record[2]) / 1e6)
    return Xid("", pci_address(said[1]), int(said[2]), time.time() - age, "kmsg")
