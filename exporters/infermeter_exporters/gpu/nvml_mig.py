"""The instances of a GPU that is divided by MIG."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from infermeter_exporters.gpu.nvml_calls import Calls, text
from infermeter_exporters.gpu.readings import Value

_NO_INSTANCE = 0xFFFFFFFF


class Instance(NamedTuple):
    """A compute instance.

    Attributes:
        handle: of it.
        uuid: "MIG-...".
        gpu_instance: number of the part of the GPU that it is in.
        compute_instance: its number in there.
        profile: "1g.10gb", as the driver writes it.
    """

    handle: Any
    uuid: str
    gpu_instance: int | None
    compute_instance: int | None
    profile: str

    @property
    def place(self) -> tuple[str, str]:
        """Its values of the labels `mig_uuid` and `gpu_instance`."""
        return self.uuid, _label(self.gpu_instance)


class Mig:
    """Whether a GPU is divided, and into what. Found out at each slow reading, and before if it is asked for.

    Args:
        calls: to the driver.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._mode: bool | None = None
        self._known = False
        self._instances: Sequence[Instance] | None = None

    def on(self) -> bool:
        """Whether the GPU is divided."""
        if not self._known:
            self._known = True
            found = self._calls.ask("MigMode")
            self._mode = None if found is None else bool(found[0])
        return bool(self._mode)

    def instances(self) -> Sequence[Instance]:
        """What it is divided into; nothing if it is not."""
        if self._instances is None:
            self._instances = list(self._found()) if self.on() else []
        return self._instances

    def slow(self) -> Iterator[Value]:
        """The mode and the inventory, found out anew."""
        self._known, self._instances = False, None
        instances = self.instances()
        if self._mode is not None:
            yield "nvidia_gpu_mig_mode", (), float(self._mode)
        for one in instances:
            yield "nvidia_gpu_mig_info", (*one.place, _label(one.compute_instance), one.profile), 1.0

    def memory(self) -> Iterator[Value]:
        """Memory of each instance."""
        for one in self.instances():
            found = self._calls.ask("MemoryInfo", of=one.handle, about=one.uuid)
            if found is not None and found.total:
                yield "nvidia_gpu_mig_memory_used_bytes", one.place, float(found.used)
                yield "nvidia_gpu_mig_memory_total_bytes", one.place, float(found.total)

    def _found(self) -> Iterator[Instance]:
        ask = self._calls.ask
        for place in range(ask("MaxMigDeviceCount") or 0):
            handle = ask("MigDeviceHandleByIndex", place)
            uuid = text(ask("UUID", of=handle, about=f"mig {place}")) if handle is not None else ""
            if uuid:
                yield Instance(
                    handle,
                    uuid,
                    ask("GpuInstanceId", of=handle, about=uuid),
                    ask("ComputeInstanceId", of=handle, about=uuid),
                    # "NVIDIA A100-SXM4-80GB MIG 1g.10gb"
                    text(ask("Name", of=handle, about=uuid)).rpartition("MIG ")[2],
                )


def _label(number: int | None) -> str:
    return "" if number is None or number == _NO_INSTANCE else str(number)
