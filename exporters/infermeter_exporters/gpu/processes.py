"""What /proc tells of a process: when it began, where it runs, what it is called, a few variables of its environment.

All of it may be refused, vanish in the middle, or be written by the process itself: reads are bounded, and what cannot
be read is absent.
"""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

from infermeter_exporters.gpu.cgroups import LONGEST, Place, parsed

# Nothing else of an environment is kept: it holds secrets.
VARIABLES = (
    "INFERMETER_SERVICE",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "SLURM_JOB_NAME",
    "HOSTNAME",
    "NVIDIA_VISIBLE_DEVICES",
)
_MOST_ENVIRONMENT, _MOST_COMMAND, _MOST_CGROUP, _MOST_STAT = 1 << 18, 1 << 14, 1 << 16, 1 << 12
_MOST_PARENTS = 4

_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*t?")
# What starts a script, or serves an application, is not what runs: the script or application is named behind it.
_LAUNCHERS = {"torchrun", "accelerate", "deepspeed", "torch.distributed.run", "torch.distributed.launch"}
_LAUNCHERS |= {"accelerate.commands.launch", "debugpy", "coverage", "nsys", "opentelemetry-instrument", "ddtrace-run"}
_SERVERS = {"gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve"}
_APPLICATION = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*(?:\(\))?")
_GUNICORN_TITLE = re.compile(r"gunicorn: [a-z]+ \[([^\]]+)\]")
_TITLE = re.compile(r"([A-Za-z][\w.-]*)::")
_TAKE_A_VALUE = {"-W", "-X", "--check-hash-based-pycs"}


class Process(NamedTuple):
    """What is known of a process.

    Attributes:
        place: where it runs.
        name: what it is called, never empty: the program, of Python the script or the module; no arguments.
        user: name of its user, or its number where it has no name.
        environment: those of `VARIABLES` that it was started with; None where that may not be read.
    """

    place: Place
    name: str
    user: str
    environment: Mapping[str, str] | None


class Gone(Exception):  # noqa: N818  (it is the process that is gone)
    """There is no such process."""


def start_time(proc: str, pid: int) -> int:
    """When the process began, in clock ticks since the machine did: with the pid, nobody else has it.

    Raises:
        Gone: there is no such process, or it has ended and only waits to be buried.
        PermissionError: it may not be looked at.
    """
    return int(_stat(proc, pid)[19])


def read(proc: str, pid: int) -> Process:
    """What is known of a process.

    Raises:
        Gone: there is no such process.
        PermissionError: not even its cgroup may be read.
    """
    place = parsed(_text(proc, pid, "cgroup", _MOST_CGROUP))
    try:
        environment = _environment(_bytes(f"{proc}/{pid}/environ", _MOST_ENVIRONMENT))
    except OSError as error:
        _unless_refused(error)
        environment = None
    return Process(place, _name(proc, pid, 0), _user(proc, pid), environment)


def _bytes(path: str, most: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while most > 0 and (piece := os.read(descriptor, min(most, 1 << 16))):
            pieces.append(piece)
            most -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def _text(proc: str, pid: int, name: str, most: int) -> str:
    try:
        return _bytes(f"{proc}/{pid}/{name}", most).decode("utf-8", "replace")
    except OSError as error:
        _unless_refused(error)
        raise PermissionError(error.errno, error.strerror, error.filename) from error


def _unless_refused(error: OSError) -> None:
    """Raises `Gone` unless the error says that something may not be read."""
    if not isinstance(error, PermissionError):
        raise Gone(error.strerror) from error


def _stat(proc: str, pid: int) -> list[str]:
    """Fields of the file from the third on: the second is a name, and may hold spaces and brackets."""
    text = _text(proc, pid, "stat", _MOST_STAT)
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or not fields[19].isdigit() or fields[0] in {"Z", "X"}:  # noqa: PLR2004  (field 22 is the start)
        raise Gone(f"{proc}/{pid}/stat says {text!r}")
    return fields


def _environment(content: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in content.split(b"\0"):
        name, _, value = line.partition(b"=")
        key = name.decode("ascii", "replace")
        if key in VARIABLES and key not in found:
            found[key] = value[: LONGEST * 16].decode("utf-8", "replace").strip()
    return found


def service_of(environment: Mapping[str, str]) -> str:
    """The name that a process was given for its service, empty if it was given none."""
    for key in ("INFERMETER_SERVICE", "OTEL_SERVICE_NAME"):
        if environment.get(key):
            return environment[key]
    for pair in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name":
            return unquote(value.strip())
    return ""


def _user(proc: str, pid: int) -> str:
    import pwd  # noqa: PLC0415

    try:
        number = os.stat(f"{proc}/{pid}").st_uid  # noqa: PTH116
    except OSError:
        return ""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _name(proc: str, pid: int, above: int) -> str:
    comm = _text(proc, pid, "comm", LONGEST).strip()
    try:
        content = _bytes(f"{proc}/{pid}/cmdline", _MOST_COMMAND)
    except OSError as error:
        _unless_refused(error)
        content = b""
    words = [word.decode("utf-8", "replace") for word in content.rstrip(b"\0").split(b"\0")]
    if above < _MOST_PARENTS and "--multiprocessing-fork" in words:
        # multiprocessing started it: it is called as what did.
        try:
            return _name(proc, int(_stat(proc, pid)[1]), above + 1)
        except (Gone, OSError):
            pass
    return process_name(comm, words)


def process_name(comm: str, words: list[str]) -> str:
    """What a process is called.

    Args:
        comm: its name at the kernel, cut after 15 bytes.
        words: its command line. Words behind a script or module are never part of a name: they may be secret.
    """
    first = words[0] if words else ""
    if len(words) == 1 or not first.strip():  # a title that the process wrote there itself
        if found := _GUNICORN_TITLE.match(first):
            return found[1]
        if title := _TITLE.match(first):
            return title[1].lower()  # vllm of VLLM::Worker_TP3, ray of ray::Replica.handle
    program = _base(first)
    if _PYTHON.fullmatch(program):
        return _python(words[1:]) or program
    if program in _LAUNCHERS | _SERVERS:
        return _behind(program, words[1:])
    # The whole name where the kernel cut it.
    return (program if comm and program.startswith(comm) else comm or program) or "unknown_process"


def _python(words: list[str]) -> str:
    """The script or module of Python; empty if it has none."""
    place = 0
    while place < len(words):
        word = words[place]
        if word == "-m" or (word.startswith("-m") and len(word) > len("-m")):
            module = word[2:] or (words[place + 1] if place + 1 < len(words) else "")
            return _behind(module, words[place + (1 if word != "-m" else 2) :])
        if word == "-c" or (word.startswith("-") and not word.startswith("--") and word.endswith("c")):
            return ""
        if not word.startswith("-"):
            return _behind(_script(word), words[place + 1 :])
        place += 2 if word in _TAKE_A_VALUE else 1
    return ""


def _behind(name: str, words: list[str]) -> str:
    """What a launcher or server runs; the name itself if it is none, or does not say."""
    if name in _LAUNCHERS:
        scripts = (_script(word) for word in words if word.endswith(".py") and not word.startswith("-"))
        return next(scripts, name)
    if name in _SERVERS:
        return next((found[1] for word in words if (found := _APPLICATION.fullmatch(word))), name)
    return name


def _script(path: str) -> str:
    name = _base(path).removesuffix(".py")
    return _base(os.path.dirname(path)) or name if name == "__main__" else name  # noqa: PTH120


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
