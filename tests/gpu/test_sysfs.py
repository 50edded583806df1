"""What the kernel says of GPUs, without a driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from infermeter_exporters.gpu.catalogue import DEVICE, FAMILIES
from infermeter_exporters.gpu.readings import Machine
from infermeter_exporters.gpu.sysfs import Sysfs, asleep, pci_address, pci_devices

if TYPE_CHECKING:
    from pathlib import Path

UUID = "GPU-5a1fb2c8-0d5b-4f0e-9a39-1f6f5d5d2c11"
INFORMATION = f"""Model: \t\t NVIDIA L40S
IRQ:   \t\t 162
GPU UUID: \t {UUID}
Video BIOS: \t 95.02.66.00.02
Bus Type: \t PCIe
Bus Location: \t 0000:65:00.0
Device Minor: \t 1
GPU Excluded:\t No
"""
VERSION = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (dvs@host)  Wed Feb
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""


def device(root: Path, pci: str, vendor: str = "0x10de", kind: str = "0x030200", **files: str) -> None:
    """Put something on the bus."""
    folder = root / "sys/bus/pci/devices" / pci
    (folder / "power").mkdir(parents=True)
    written = {"vendor": vendor, "class": kind, "power/runtime_status": "active", **files}
    for name, text in written.items():
        (folder / name).write_text(text + "\n")


def held(root: Path, pci: str, text: str = INFORMATION) -> None:
    """Have a driver hold a GPU."""
    folder = root / "proc/driver/nvidia/gpus" / pci
    folder.mkdir(parents=True)
    (folder / "information").write_text(text)
    (root / "proc/driver/nvidia/version").write_text(VERSION)


def test_the_bus_is_searched_for_gpus_of_one_maker(tmp_path: Path) -> None:
    """Data-centre GPUs (3D controllers) and those with a display count; their sound, switches and others do not."""
    device(tmp_path, "0000:c1:00.0", kind="0x030000")
    device(tmp_path, "0000:65:00.0")
    device(tmp_path, "0000:65:00.1", kind="0x040300")
    device(tmp_path, "0000:05:00.0", kind="0x068000")
    device(tmp_path, "0000:02:00.0", vendor="0x1002")
    assert pci_devices(str(tmp_path / "sys")) == ["0000:65:00.0", "0000:c1:00.0"]


def test_no_bus_has_no_gpus(tmp_path: Path) -> None:
    """A container without sysfs is no error."""
    assert pci_devices(str(tmp_path)) == []
    assert not asleep("0000:65:00.0", str(tmp_path))


def test_a_gpu_that_sleeps_is_found_however_its_address_is_written(tmp_path: Path) -> None:
    """Drivers write domains of eight digits and capital letters."""
    device(tmp_path, "0000:c1:00.0", **{"power/runtime_status": "suspended"})
    device(tmp_path, "0000:65:00.0")
    sysfs = str(tmp_path / "sys")
    written = ["0000:c1:00.0", "00000000:C1:00.0", "0000:65:00.0", "00000000:65:00.0", "", "nonsense\0"]
    assert [asleep(one, sysfs) for one in written] == [True, True, False, False, False, False]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("00000000:C1:00.0", "0000:c1:00.0"),
        ("0000:c1:00", "0000:c1:00.0"),
        ("00010000:3B:00.0", "10000:3b:00.0"),
        ("0001:3B:00.0", "0001:3b:00.0"),
        ("MIG-1", "MIG-1"),
    ],
)
def test_addresses_are_written_as_the_kernel_writes_them(written: str, found: str) -> None:
    """Whoever writes them, they can be compared; domains of more than four digits (behind VMD) keep them."""
    assert pci_address(written) == found


def test_what_the_driver_holds_is_told_and_what_it_does_is_unknown(tmp_path: Path) -> None:
    """One GPU on the bus has fallen off the driver; of the other it is known what it is, and not how it is."""
    device(tmp_path, "0000:65:00.0", numa_node="1")
    device(tmp_path, "0000:c1:00.0")
    held(tmp_path, "0000:65:00.0")
    source = Sysfs(str(tmp_path))
    assert source.open() == Machine(
        "sysfs", 1, [("nvidia_gpu_pci_devices", (), 2.0), ("nvidia_gpu_driver_info", ("570.124.06", "", ""), 1.0)]
    )
    [unit] = source.units()
    [reading] = unit.read("slow")
    assert (reading.uuid, reading.number, reading.pci, reading.tier) == (UUID, 0, "0000:65:00.0", "slow")
    assert (reading.state, reading.busy, reading.power, reading.processes) == ("unknown", None, None, None)
    info = ("NVIDIA L40S", "0000:65:00.0", "", "1", "", "", "", "95.02.66.00.02", "1", "", "false")
    assert reading.values == [("nvidia_gpu_info", info, 1.0)]
    assert len(DEVICE + info) == len(FAMILIES["nvidia_gpu_info"].labels)


@pytest.mark.parametrize("text", ["", "Model: Unknown\nGPU UUID: GPU-????????-????-????-????-????????????\n", "\0:\n:"])
def test_a_gpu_whose_name_is_not_known_is_counted_and_not_named(tmp_path: Path, text: str) -> None:
    """A made-up name would be another GPU for ever, once the driver tells the real one."""
    held(tmp_path, "0000:65:00.0", text)
    source = Sysfs(str(tmp_path))
    assert source.open().devices == 1
    assert source.read("fast") == []


def test_a_machine_without_a_driver_has_gpus_on_the_bus_and_none_that_is_known(tmp_path: Path) -> None:
    """The two numbers differ, which is what an alert looks at."""
    device(tmp_path, "0000:65:00.0")
    assert Sysfs(str(tmp_path)).open() == Machine("sysfs", 0, [("nvidia_gpu_pci_devices", (), 1.0)])
    assert Sysfs(str(tmp_path / "nothing")).open() == Machine("sysfs", 0, [("nvidia_gpu_pci_devices", (), 0.0)])
