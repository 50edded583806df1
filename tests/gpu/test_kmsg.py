"""Errors of GPUs are found in the kernel's log, and nothing else is taken for one."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.gpu.kmsg import Kmsg, _xid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Log = tuple[Kmsg, Callable[[str], int]]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A log that behaves like that of a kernel: what is not there yet would have to be waited for."""
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    kmsg = Kmsg(str(path))
    writer = os.open(path, os.O_WRONLY)
    yield kmsg, lambda text: os.write(writer, text.encode())
    kmsg.close()
    os.close(writer)


def now() -> int:
    """Microseconds of the kernel's clock."""
    return int(time.monotonic() * 1e6)


@pytest.mark.parametrize(
    ("text", "pci", "code"),
    [
        (
            "NVRM: Xid (PCI:0000:65:00): 79, pid=1234, name=python, GPU has fallen off the bus.",
            "0000:65:00.0",
            79,
        ),
        ("NVRM: Xid (PCI:0000:C1:00): 31, pid='<unknown>', name=<unknown>, Ch 00000008", "0000:c1:00.0", 31),
        ("NVRM: Xid (0000:65:00): 31, Ch 0000001e, engmask 00000101", "0000:65:00.0", 31),
        ("NVRM: Xid (PCI:0000:03:00 GPU-I:05): 45, pid=2, Ch 8", "0000:03:00.0", 45),
        ("NVRM: Xid (PCI:0001:3b:00): 154, GPU recovery action changed", "0001:3b:00.0", 154),
    ],
)
@pytest.mark.parametrize("prefix", ["3,1201,{},-", "3,1201,{},c,caller=T42", "3,1201,{}"])
def test_forms_of_all_generations_are_read(log: Log, prefix: str, text: str, pci: str, code: int) -> None:
    """With or without PCI, an instance, further fields; the address is written as readings write it."""
    kmsg, write = log
    assert kmsg.poll() == []
    write(f"{prefix.format(now())};{text}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:65:00.0\n")
    [found] = kmsg.poll()
    assert (found.uuid, found.pci, found.code, found.source) == ("", pci, code, "kmsg")
    assert kmsg.poll() == []


def test_the_time_is_that_of_the_record_and_not_of_its_reading(log: Log) -> None:
    """The kernel counts since its start; it is known when that was."""
    kmsg, write = log
    write(f"3,1,{now() - 90_000_000},-;NVRM: Xid (PCI:0000:65:00): 48, DBE\n")
    [found] = kmsg.poll()
    assert 80 < time.time() - found.time < 100


def test_several_records_of_one_poll_keep_their_order_and_may_be_cut(log: Log) -> None:
    """A record whose end has not come yet is read when it has."""
    kmsg, write = log
    write(f"6,1,{now()},-;usb 1-1: new device\n3,2,{now()},-;NVRM: Xid (PCI:0000:65:00): 13, a\n3,3,{now()},-;NVRM: X")
    assert [xid.code for xid in kmsg.poll()] == [13]
    write("id (PCI:0000:65:00): 94, b\n")
    assert [xid.code for xid in kmsg.poll()] == [94]


@pytest.mark.parametrize(
    "line",
    [
        "12,1,5,-;NVRM: Xid (PCI:0000:65:00): 79, said by a program",
        " NVRM: Xid (PCI:0000:65:00): 79, a continuation",
        "3,1,5,-;nothing: NVRM: Xid (PCI:0000:65:00): 79, quoted",
        "3,1,5,-;NVRM: Xid (PCI:0000:65:00): , no number",
        "3,1,5,-;NVRM: GPU at PCI:0000:65:00: GPU-5a1fb2c8-0d5b-4f0e-9a39-1f6f5d5d2c11",
        "",
    ],
)
def test_what_the_kernel_does_not_say_is_no_error(line: str) -> None:
    """Programs may write to the log as well, under another number."""
    assert _xid(line) is None


@given(st.text(max_size=200), st.text(max_size=60))
def test_no_line_can_do_harm(text: str, more: str) -> None:
    """Whatever stands in the log."""
    for line in (text, f"3,1,5,-;{text}", f"3,1,5,-;NVRM: Xid (PCI:0000:65:00): 7{more}"):
        found = _xid(line)
        assert found is None or (found.pci == "0000:65:00.0" and found.code >= 7)


def test_a_log_that_may_not_be_read_says_so_once(tmp_path: Path) -> None:
    """The exporter goes on with what the driver says."""
    kmsg = Kmsg(str(tmp_path / "none"))
    assert kmsg.reason == (
        f"{tmp_path}/none cannot be read (No such file or directory), errors of GPUs are known from the driver alone"
    )
    assert kmsg.poll() == []


def test_a_log_is_read_from_its_end(tmp_path: Path) -> None:
    """What was logged before the exporter started was counted by the one before."""
    path = tmp_path / "kmsg"
    path.write_text("3,1,5,-;NVRM: Xid (PCI:0000:65:00): 79, before\n")
    kmsg = Kmsg(str(path))
    with path.open("a") as file:
        file.write("3,1,5,-;NVRM: Xid (PCI:0000:65:00): 31, after\n")
    assert [xid.code for xid in kmsg.poll()] == [31]
    kmsg.close()


def test_records_that_were_overwritten_are_not_waited_for(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says so once, by an error, and goes on with the oldest record that it has."""
    kmsg, write = log
    real = os.read
    told: list[bool] = []

    def read(descriptor: int, size: int) -> bytes:
        if not told:
            told.append(True)
            raise BrokenPipeError(32, "Broken pipe")
        return real(descriptor, size)

    write(f"3,9,{now()},-;NVRM: Xid (PCI:0000:65:00): 95, c\n")
    monkeypatch.setattr(os, "read", read)
    assert [xid.code for xid in kmsg.poll()] == [95]
    assert kmsg.reason == ""
