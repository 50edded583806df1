"""Reads GPUs through the NVML source and the stub, in a process of its own: a line in, what was read as lines out.

open                the machine
units               names of the GPUs
read GPU TIER       readings
xid SECONDS         an error, if there is one
calls GPU           how many calls were made so far
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

from infermeter_exporters.gpu.readings import Machine, Reading, Tier, Xid, packed, unpacked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.gpu.nvml_stub import Scenario


class Nvml:
    """The source, in a process that follows a scenario; the addresses in `asleep` are those of suspended GPUs."""

    def __init__(self, scenario: Scenario, library: Path, asleep: tuple[str, ...] = ()) -> None:
        self.scenario = scenario
        environment = scenario.save().environment(library) | {"ASLEEP": " ".join(asleep)}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, *words: object) -> Any:
        """What the process says to a line; a SourceError as its text."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(*words, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def open(self) -> Machine:
        """Open the source."""
        found = unpacked(self.ask("open"))
        assert isinstance(found, Machine)
        return found

    def read(self, tier: Tier, gpu: int = 0) -> Reading:
        """The one reading of a tier of a GPU, without what differs each time."""
        [line] = self.ask("read", gpu, tier)
        found = unpacked(line)
        assert isinstance(found, Reading)
        return found._replace(time=0.0, seconds=0.0)

    def values(self, tier: Tier, gpu: int = 0) -> dict[tuple[str, ...], float]:
        """The values of a reading by family, without what all begin with, and labels."""
        found = self.read(tier, gpu)
        assert (found.state, found.errors) == ("ok", [])
        return {(name.removeprefix("nvidia_gpu_"), *labels): value for name, labels, value in found.values}

    def xid(self, seconds: float) -> Xid | None:
        """The next error."""
        line = self.ask("xid", seconds)
        found = unpacked(line) if line else None
        assert found is None or isinstance(found, Xid)
        return found


def main() -> None:
    """Do what the lines say."""
    from infermeter_exporters.gpu import nvml
    from infermeter_exporters.gpu.readings import SourceError

    source = nvml.Nvml(set(os.environ["ASLEEP"].split()).__contains__)
    for line in sys.stdin:
        word, *rest = line.split()
        said: object
        try:
            if word == "open":
                said = packed(source.open())
            elif word == "units":
                said = [unit.name for unit in source.units()]
            elif word == "read":
                said = [packed(one) for one in source.units()[int(rest[0])].read(rest[1])]  # type: ignore[arg-type]
            elif word == "xid":
                xid = source.wait_for_xid(float(rest[0]))
                said = packed(xid) if xid is not None else ""
            else:
                said = source.units()[int(rest[0])]._calls.asked  # type: ignore[attr-defined]
        except SourceError as error:
            said = f"SourceError: {error}"
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
