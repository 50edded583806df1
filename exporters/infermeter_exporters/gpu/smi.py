"""GPUs as `nvidia-smi` tells of them, where the library of the driver cannot be loaded."""

import math
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from infermeter_exporters.gpu.readings import Machine, Reading, SourceError, State, Tier, Unit, Xid
from infermeter_exporters.gpu.smi_values import fast, normal, number, slow, text
from infermeter_exporters.gpu.sysfs import pci_address

# The program starts a driver client and asks everything of all GPUs: it is not run more often.
_EVERY = 5.0
_TIMEOUT = 20.0
_MOST = 1 << 24
_MOST_GPUS = 1024
_END = b"</nvidia_smi_log>"
_STATES: dict[str, State] = {"gpu is lost": "lost", "gpu requires reset": "reset_required"}


class Smi:
    """The program, which tells of all GPUs at once.

    Args:
        path: of the program, or its name, which is looked for in PATH.
        timeout: seconds after which it hangs.
    """

    name = "nvidia-smi"

    def __init__(self, path: str = "nvidia-smi", timeout: float = _TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout
        self._log: ET.Element | None = None
        self._ran = -math.inf
        self._seconds = 0.0
        self._given: set[Tier] = set()  # tiers that have read this answer
        # By address: uuid and number. A lost GPU says neither, and may no longer be counted with the others.
        self._known: dict[str, tuple[str, int]] = {}

    def open(self) -> Machine:
        """Run it."""
        log = self._answer()
        version, cuda = text(log, "driver_version"), text(log, "cuda_version")
        told = number(log.findtext("attached_gpus"))
        devices = max(len(log.findall("gpu")), min(int(told or 0), _MOST_GPUS))
        return Machine(self.name, devices, [("nvidia_gpu_driver_info", (version, "", cuda), 1.0)])

    def units(self) -> Sequence[Unit]:
        """One for all."""
        return [self]

    def read(self, tier: Tier) -> Sequence[Reading]:
        """What it said last; nothing if this tier has had that."""
        log = self._answer()
        if tier in self._given:
            return []
        self._given.add(tier)
        found: dict[str, Reading] = {}
        for place, gpu in enumerate(log.findall("gpu")):
            reading = self._reading(place, gpu, tier)
            if reading is not None:
                found.setdefault(reading.pci, reading)
        gone = [
            Reading(uuid, place, pci, tier, self._ran, "lost", seconds=self._seconds)
            for pci, (uuid, place) in self._known.items()
            if pci not in found
        ]
        return [*found.values(), *gone]

    def wait_for_xid(self, seconds: float) -> Xid | None:
        """Wait; there is no way to know."""
        time.sleep(seconds)
        return None

    def _answer(self) -> ET.Element:
        """What it says now, or said a moment ago."""
        now = time.monotonic()
        if self._log is None or now - self._ran >= _EVERY:
            self._log = parsed(_run([self._path, "-q", "-x"], self._timeout))
            # Before the answer: periods are from start to start.
            self._ran, self._seconds = now, time.monotonic() - now
            self._given = set()
        return self._log

    def _reading(self, place: int, gpu: ET.Element, tier: Tier) -> Reading | None:
        pci = pci_address(gpu.get("id") or text(gpu, "pci/pci_bus_id"))
        uuid = text(gpu, "uuid")
        if uuid.startswith("GPU-"):
            before = self._known.get(pci)
            # What a GPU was called at first it stays: those behind one that fell off the bus move up.
            self._known[pci] = (uuid, before[1] if before is not None and before[0] == uuid else self._free(place))
        elif pci not in self._known:  # it never said who it is
            return None
        blank = Reading(*self._known[pci], pci, tier, self._ran, seconds=self._seconds)
        # What processes call themselves is no state of a GPU.
        said = {
            (part.text or "").strip(" .[]\n\t").lower() for one in gpu if one.tag != "processes" for part in one.iter()
        }
        state = next((state for words, state in _STATES.items() if words in said), None)
        if state is not None or not uuid.startswith("GPU-"):
            return blank._replace(state=state or "unknown")
        if tier == "slow":
            return blank._replace(values=list(slow(gpu, pci)))
        if tier == "normal":
            return blank._replace(values=list(normal(gpu)))
        return fast(blank, gpu)

    def _free(self, place: int) -> int:
        """The number of a GPU that is new: its place, but where another GPU has that."""
        taken = {number for _, number in self._known.values()}
        return place if place not in taken else max(taken) + 1


def parsed(answer: bytes) -> ET.Element:
    """The XML in an answer, around which warnings may stand.

    Raises:
        SourceError: there is none.
    """
    begin, end = answer.find(b"<nvidia_smi_log"), answer.rfind(_END)
    if begin < 0 or end < begin:
        raise SourceError(f"nvidia-smi says no XML{_said(answer)}")
    # Without the document type, no entity is defined that could expand.
    whole = answer[begin : end + len(_END)].decode("utf-8", "replace")
    try:
        return ET.fromstring(whole)  # noqa: S314  (see above)
    except (ET.ParseError, ValueError) as error:
        raise SourceError(f"nvidia-smi says XML that cannot be read: {error}") from error


def _run(command: Sequence[str], timeout: float) -> bytes:
    """What a program writes; its process group is killed if it hangs or writes too much."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env=os.environ | {"LC_ALL": "C"},
        )
    except (OSError, ValueError) as error:
        raise SourceError(f"{command[0]} cannot be run: {getattr(error, 'strerror', None) or error}") from error
    assert process.stdout is not None
    written, ends = bytearray(), time.monotonic() + timeout
    try:
        with process.stdout as pipe, selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while (left := ends - time.monotonic()) > 0 and selector.select(left):
                piece = os.read(pipe.fileno(), 1 << 16)
                written += piece
                if not piece:
                    break
                if len(written) > _MOST:
                    raise SourceError(f"{command[0]} writes more than {_MOST >> 20} MiB")
            else:
                raise SourceError(f"{command[0]} does not answer within {timeout:g} s")
        code = process.wait(max(0.1, ends - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{command[0]} does not end within {timeout:g} s") from error
    finally:
        _kill(process)
    # One GPU whose memory of itself is broken, or that fell off the bus, makes a code too; the others are told of.
    if code and _END not in written:
        raise SourceError(f"{command[0]} failed with exit code {code}{_said(written)}")
    return bytes(written)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started; one that hangs in the driver is not waited for.

    As long as nobody has asked for its code, its number is still its own, whether it has ended or not.
    """
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(1.0)
        except (OSError, subprocess.TimeoutExpired):
            pass


def _said(answer: bytes | bytearray) -> str:
    """The beginning of what a program said instead, to be put behind a sentence."""
    words = " ".join(answer.decode("utf-8", "replace").split())[:200]
    return f": {words.rstrip('.')}" if words else ""
