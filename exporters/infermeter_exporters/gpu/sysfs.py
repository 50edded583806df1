"""NVIDIA GPUs as the kernel knows them: whether they are there, and whether they sleep. No driver is asked.

As the last source it says what is known where nothing else answers: how many GPUs are on the bus, which of them a
driver holds, and what they are called.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from infermeter_exporters.gpu.readings import Machine, Reading, Tier, Unit, Value, Xid

_VENDOR, _DISPLAY = "0x10de", "0x03"
_ADDRESS = re.compile(r"([0-9a-f]+):([0-9a-f]{2}):([0-9a-f]{2})(\.[0-7])?")
_VERSION = re.compile(r"NVRM version:.*?\s([0-9]+\.[0-9]+(?:\.[0-9]+)*)\s")
_UUID = re.compile(r"GPU-[0-9a-fA-F-]+")
# What these files hold is short; whatever is in their place is not read further.
_MOST = 1 << 16


def pci_devices(root: str = "/sys") -> list[str]:
    """Addresses of the NVIDIA GPUs on the PCI bus, "0000:65:00.0", in order; empty if there is no such bus.

    Args:
        root: where sysfs is.
    """
    bus = Path(root, "bus/pci/devices")
    try:
        names = sorted(entry.name for entry in bus.iterdir())
    except OSError:
        return []
    return [
        pci_address(name)
        for name in names
        if _text(bus / name / "vendor").strip() == _VENDOR and _text(bus / name / "class").startswith(_DISPLAY)
    ]


def asleep(pci: str, root: str = "/sys") -> bool:
    """Whether the GPU at this address is suspended, so that a call of the driver would wake it.

    Args:
        pci: its address; "0000:65:00.0" as well as "00000000:65:00.0", in small or capital letters.
        root: where sysfs is.
    """
    status = Path(root, "bus/pci/devices", pci_address(pci), "power/runtime_status")
    return _text(status).strip() == "suspended"


def pci_address(written: str) -> str:
    """An address as the kernel writes it, "0000:65:00.0", however else it is written; anything else as it is.

    Drivers and programs write the domain with four or eight digits, in small or capital letters, with or without the
    function, which of a GPU is 0.
    """
    found = _ADDRESS.fullmatch(written.strip().lower())
    return f"{int(found[1], 16):04x}:{found[2]}:{found[3]}{found[4] or '.0'}" if found else written


def _text(path: Path) -> str:
    """What a file holds; empty if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST)
    except (OSError, ValueError):  # ValueError: a path with a zero in it
        return ""


class Sysfs:
    """GPUs that are there. Of none of them it is known how it is, so all have the state `unknown`.

    Args:
        root: where `sys` and `proc` are.
    """

    name = "sysfs"

    def __init__(self, root: str = "/") -> None:
        self._root = Path(root)

    def open(self) -> Machine:
        """What the bus and the driver's files say; a driver that is not loaded knows no GPU."""
        version = _VERSION.search(_text(self._root / "proc/driver/nvidia/version"))
        values: list[Value] = [("nvidia_gpu_pci_devices", (), float(len(pci_devices(str(self._root / "sys")))))]
        if version:
            values.append(("nvidia_gpu_driver_info", (version[1], "", ""), 1.0))
        return Machine(self.name, len(self._held()), values)

    def units(self) -> Sequence[Unit]:
        """One for all, which cannot hang."""
        return [self]

    def read(self, tier: Tier) -> Sequence[Reading]:
        """The GPUs that a driver holds and whose identity it tells; the others are only counted, by `open`.

        One without a uuid has no reading, because under another name it would be another GPU, down for ever, as soon
        as a better source says what it is called.
        """
        readings = []
        began = time.monotonic()
        for number, pci in enumerate(self._held()):
            said = self._information(pci)
            uuid = said.get("GPU UUID", "")
            if not _UUID.fullmatch(uuid):
                continue
            info = (
                said.get("Model", ""),
                pci,
                "",
                said.get("Device Minor", ""),
                "",
                "",
                "",
                "" if "?" in said.get("Video BIOS", "?") else said["Video BIOS"],
                self._numa_node(pci),
                "",
                "false",
            )
            now = time.monotonic()
            values: list[Value] = [("nvidia_gpu_info", info, 1.0)]
            readings.append(Reading(uuid, number, pci, tier, now, "unknown", values, seconds=now - began))
        return readings

    def wait_for_xid(self, seconds: float) -> Xid | None:
        """Wait; there is no way to know."""
        time.sleep(seconds)
        return None

    def _held(self) -> list[str]:
        """Addresses of the GPUs that a driver holds, in the order in which it numbers them."""
        try:
            return sorted(pci_address(entry.name) for entry in (self._root / "proc/driver/nvidia/gpus").iterdir())
        except OSError:
            return []

    def _information(self, pci: str) -> dict[str, str]:
        text = _text(self._root / "proc/driver/nvidia/gpus" / pci / "information")
        pairs = (line.partition(":")[::2] for line in text.splitlines())
        return {name.strip(): value.strip() for name, value in pairs}

    def _numa_node(self, pci: str) -> str:
        node = _text(self._root / "sys/bus/pci/devices" / pci / "numa_node").strip()
        return node if node.isdecimal() else ""  # -1 is none
