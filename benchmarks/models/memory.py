"""A case tried in a process of its own: whether it runs at all, and how much memory it takes at most.

The process is forked from one that has imported the libraries and done nothing else, so what it takes is the case's:
neither what another case left to the allocator nor the import counts. A model that crashes, or is killed for its
memory, takes only that process with it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.models.cases import sentence
from benchmarks.models.turns import turn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from multiprocessing.connection import Connection

    from benchmarks.models.cases import Case, Model

PROCESS = Path("/proc/self")


class Trial(NamedTuple):
    """How a trial ended: `failure` is empty or one sentence; `bytes_` at most, of `device` "host" or "cuda"."""

    failure: str
    bytes_: int = 0
    device: str = "host"


def preload(modules: Iterable[str]) -> None:
    """Have these imported once, by the process from which those of the trials are forked."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(sorted(set(modules)))


def tried(model: Model, case: Case, warm_up: int) -> Trial:
    """Load a prepared model and call it in a process of its own, as often as it is warmed up."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_try, args=(sender, model, case, warm_up), daemon=True)
    process.start()
    sender.close()
    try:
        trial: Trial = receiver.recv()
    except EOFError:  # it ended without a word
        process.join()
        code = process.exitcode or 0
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        trial = Trial(f"the process that tried it {ended}")
    process.join()
    return trial


def _try(sender: Connection, model: Model, case: Case, warm_up: int) -> None:
    """The process of a trial."""
    try:
        for module in model.modules:
            importlib.import_module(module)
        (PROCESS / "clear_refs").write_text("5", encoding="ascii")  # the peak is counted from here
        resident, code = _resident("VmRSS"), _code()
        runner = model.runner(case)
        for _ in range(max(1, warm_up)):
            turn(runner, case, 0.0)
        taken = _resident("VmHWM") - resident - (_code() - code)
        on_device = runner.device_memory()
        trial = Trial("", max(0, taken)) if on_device is None else Trial("", on_device, "cuda")
    except Exception as error:  # of the library that runs the model, or of the model
        trial = Trial(sentence(error))
    sender.send(trial)


def _resident(field: str) -> int:
    """Bytes that the kernel tells under this name: `VmRSS` now, `VmHWM` at most."""
    for line in (PROCESS / "status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def _code() -> int:
    """Resident bytes of shared libraries: pages of code that a first call touches are not the model's memory."""
    total, counts = 0, False
    for line in (PROCESS / "smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        name, *values = line.split()
        if not name.endswith(":"):  # the heading of a mapping: addresses, rights, ..., the file
            counts = ".so" in Path(values[-1]).name if values else False
        elif counts and name == "Rss:":
            total += int(values[0]) * 1024
    return total
