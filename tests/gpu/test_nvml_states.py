"""What the driver refuses, loses and cannot tell: each error of NVML has its meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infermeter_exporters.gpu.nvml_calls import error_name
from infermeter_exporters.gpu.readings import Process, Xid
from tests.gpu.nvml_reading import Nvml
from tests.gpu.nvml_stub import EVERY, GIB, Scenario, h100x8_busy, no_driver, t4

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UUID = "GPU-00000000-0000-4000-8000-000000000000"
TEMPERATURE = "nvidia_gpu_temperature_celsius"


@pytest.fixture
def gpu(nvml_library: Path, tmp_path: Path) -> Iterator[Nvml]:
    """One T4 that has been read."""
    with Nvml(t4(tmp_path / "scenario"), nvml_library) as source:
        source.open()
        source.read("fast")
        yield source


def told(source: Nvml, function: str, code: int) -> None:
    """A function fails from now on."""
    source.scenario.tell(function, EVERY, code)
    source.scenario.save()


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (9, "the NVIDIA driver is not loaded: modprobe nvidia, or look at dmesg for why"),
        (
            18,
            "libnvidia-ml.so.1 and the loaded NVIDIA driver are of different versions: the driver was upgraded, a new "
            "process is needed, and a restart of the host if the old module is still loaded",
        ),
        (4, "no permission to open the NVIDIA driver: /dev/nvidiactl and /dev/nvidia* must be readable and writable"),
        (999, "the NVIDIA driver cannot be used (unknown): dmesg may say why"),
    ],
)
def test_a_driver_that_cannot_be_used(nvml_library: Path, tmp_path: Path, code: int, sentence: str) -> None:
    """One sentence says why, and what would help."""
    scenario = Scenario(tmp_path / "scenario")
    scenario.tell("nvmlInitWithFlags", EVERY, code)
    with Nvml(scenario, nvml_library) as source:
        assert source.ask("open") == f"SourceError: {sentence}"


def test_no_library(tmp_path: Path) -> None:
    """As on a host without a driver."""
    with Nvml(no_driver(tmp_path / "scenario"), tmp_path) as source:
        assert source.ask("open") == (
            "SourceError: libnvidia-ml.so.1 is not found: install the NVIDIA driver, or give the container the "
            "capability utility"
        )


@pytest.mark.parametrize("code", [1, 9, 12, 18])
@pytest.mark.parametrize("tier", ["fast", "normal", "slow"])
def test_a_driver_that_goes_away(gpu: Nvml, code: int, tier: str) -> None:
    """Whatever is asked then, the source as a whole is gone."""
    gpu.scenario.tell(EVERY, EVERY, code)
    gpu.scenario.save()
    assert str(gpu.ask("read", 0, tier)).startswith("SourceError: ")


@pytest.mark.parametrize(("code", "state"), [(15, "lost"), (16, "reset_required")])
@pytest.mark.parametrize("function", ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetUtilizationRates", EVERY])
def test_a_gpu_that_goes_away(gpu: Nvml, code: int, state: str, function: str) -> None:
    """One call that says so is enough: nothing else of the reading is kept. When it answers again it is well."""
    gpu.scenario.tell(function, 0, code)
    gpu.scenario.save()
    for _ in range(2):
        read = gpu.read("fast")
        assert (read.uuid, read.state, read.values, read.power, read.processes) == (UUID, state, [], None, None)
        if function != EVERY:  # it can be found, and says at the next reading that it is gone
            break
    gpu.scenario.forget(function, 0)
    gpu.scenario.save()
    read = gpu.read("fast")
    assert (read.uuid, read.state, read.busy) == (UUID, "ok", 0.6)


@pytest.mark.parametrize(("code", "state"), [(4, "no_permission"), (10, "timeout"), (999, "unknown")])
def test_a_gpu_that_answers_nothing(gpu: Nvml, code: int, state: str) -> None:
    """Nothing but errors: it is not well, and they are counted."""
    told(gpu, EVERY, code)
    read = gpu.read("normal")
    assert (read.state, read.values) == (state, [])
    assert {error for _, error in read.errors} == {error_name(code)}


@pytest.mark.parametrize("code", [4, 10, 17, 23, 999, 12345])
def test_one_call_that_fails_takes_its_own_value_only(gpu: Nvml, code: int) -> None:
    """It is counted, and tried again."""
    told(gpu, "nvmlDeviceGetTemperature", code)
    for _ in range(2):
        read = gpu.read("normal")
        assert (read.state, read.errors) == ("ok", [("DeviceGetTemperature", error_name(code))])
        names = {name for name, _, _ in read.values}
        assert TEMPERATURE not in names
        assert "nvidia_gpu_clock_hertz" in names
    gpu.scenario.forget("nvmlDeviceGetTemperature", EVERY)
    gpu.scenario.save()
    assert gpu.values("normal")["temperature_celsius",] == 55


@pytest.mark.parametrize("code", [2, 3, 13, 25])
def test_what_is_not_supported_is_no_error(gpu: Nvml, code: int) -> None:
    """An argument that an old driver does not know among it."""
    told(gpu, "nvmlDeviceGetPerformanceState", code)
    read = gpu.read("normal")
    assert (read.state, read.errors) == ("ok", [])
    assert "nvidia_gpu_performance_state" not in {name for name, _, _ in read.values}


def test_gpus_are_numbered_anew_without_the_lost_one(nvml_library: Path, tmp_path: Path) -> None:
    """Each keeps its name and its number, and the lost one is not taken for another."""
    scenario = h100x8_busy(tmp_path / "scenario")
    with Nvml(scenario, nvml_library) as source:
        source.open()
        uuids = source.ask("units")
        scenario.lose(0)
        scenario.save()
        assert source.read("fast", 0).state == "lost"
        scenario.lose(0, lost=False)
        for gpu in range(7):  # as the driver counts them now
            scenario.gpu(gpu, "uuid", uuids[gpu + 1])
            scenario.gpu(gpu, "power", 1000 * (gpu + 1))
        scenario.machine("gpus", 7)
        scenario.save()
        lost = source.read("fast", 0)
        assert (lost.uuid, lost.number, lost.state) == (uuids[0], 0, "lost")
        assert source.ask("units") == uuids


def test_a_gpu_that_is_lost_at_the_start_has_no_name_yet(nvml_library: Path, tmp_path: Path) -> None:
    """It is counted, and read as soon as it says which one it is."""
    scenario = h100x8_busy(tmp_path / "scenario")
    scenario.lose(2)
    with Nvml(scenario, nvml_library) as source:
        assert source.open().devices == 8
        assert source.ask("read", 2, "fast") == []
        scenario.lose(2, lost=False)
        scenario.save()
        read = source.read("fast", 2)
        assert (read.uuid, read.number, read.state) == ("GPU-00000002-0000-4000-8000-000000000000", 2, "ok")


def test_a_sleeping_gpu_is_not_asked(nvml_library: Path, tmp_path: Path) -> None:
    """Any question would wake it."""
    with Nvml(t4(tmp_path / "scenario"), nvml_library, asleep=("0000:10:00.0",)) as source:
        source.open()
        before = source.ask("calls", 0)
        read = source.read("fast")
        assert (read.state, read.values) == ("ok", [("nvidia_gpu_runtime_suspended", (), 1.0)])
        assert [source.read(tier).values for tier in ("normal", "slow")] == [[], []]
        assert source.ask("calls", 0) == before


def processes(source: Nvml, *rows: str, samples: tuple[str, ...] = ()) -> list[Process]:
    """What is read of processes."""
    source.scenario.gpu(0, "process", *rows)
    source.scenario.gpu(0, "sample", *samples)
    source.scenario.save()
    read = source.read("fast")
    assert read.processes is not None
    assert read.errors == []
    return list(read.processes)


def test_processes_are_merged(gpu: Nvml) -> None:
    """One that computes and draws is one process, with its memory once; that of another may not be known."""
    found = processes(gpu, f"7 compute {GIB}", f"7 graphics {GIB}", "8 graphics na", f"9 mps {2 * GIB}", "8 compute 5")
    assert found == [
        Process(7, ("compute", "graphics"), GIB, None),
        Process(8, ("compute", "graphics"), 5, None),
        Process(9, ("mps",), 2 * GIB, None),
    ]


def test_no_processes_are_known_to_be_none(gpu: Nvml) -> None:
    """An idle GPU is not one that cannot tell."""
    assert processes(gpu) == []
    gpu.scenario.gpu(0, "no_processes", 1)
    gpu.scenario.save()
    assert gpu.read("fast").processes is None


def test_what_is_no_process_is_left_out(gpu: Nvml) -> None:
    """Lists of some drivers are shifted, and so are their numbers."""
    assert processes(gpu, "0 compute 1", "4294967295 compute 1", "1073741824 compute 5", "7 compute 1") == [
        Process(7, ("compute",), 1, None)
    ]


def at(seconds: float) -> str:
    """A time of a sample, so many seconds after 2030, which is after all others."""
    return f"@{1_893_456_000_000_000 + round(seconds * 1e6)}"


def test_of_samples_the_newest_counts(gpu: Nvml) -> None:
    """What was seen before, or cannot be, does not."""
    rows = ("7 compute 1", "8 compute 1", "9 compute 1")
    samples = (f"7 10 0 0 0 {at(1)}", f"7 30 0 0 0 {at(3)}", f"7 20 0 0 0 {at(2)}", f"8 150 0 0 0 {at(3)}")
    assert [one.sm for one in processes(gpu, *rows, samples=(*samples, "9 5 0 0 0 3600"))] == [30, None, None]
    assert [one.sm for one in processes(gpu, *rows, samples=samples)] == [None, None, None]
    more = (*samples, f"9 7 0 0 0 {at(4)}", f"7 150 0 0 0 {at(4)}")
    assert [one.sm for one in processes(gpu, *rows, samples=more)] == [None, None, 7]


def test_samples_of_the_first_reading_are_of_an_unknown_time(nvml_library: Path, tmp_path: Path) -> None:
    """They may be minutes old: the driver keeps them."""
    with Nvml(t4(tmp_path / "scenario"), nvml_library) as source:
        source.open()
        first, second = source.read("fast").processes, source.read("fast").processes
    assert first is not None
    assert second is not None
    assert ([one.sm for one in first], [one.sm for one in second]) == ([None], [60])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 5), st.integers(0, 120), st.integers(0, 99)),
            max_size=12,
            unique_by=lambda sample: (sample[0], sample[2]),
        ),
        max_size=4,
    )
)
def test_any_samples(nvml_library: Path, tmp_path: Path, readings: list[list[tuple[int, int, int]]]) -> None:
    """Of each process the newest valid one that is newer than all that were there at the last reading."""
    rows = [f"{pid} compute 1" for pid in range(1, 6)]
    with Nvml(t4(tmp_path / "scenario"), nvml_library) as source:
        source.open()
        processes(source, *rows, samples=(f"1 0 0 0 0 {at(0)}",))
        newest = 0
        for samples in readings:
            found = processes(source, *rows, samples=tuple(f"{pid} {sm} 0 0 0 {at(time)}" for pid, sm, time in samples))
            for process in found:
                valid = {time: sm for pid, sm, time in samples if pid == process.pid and sm <= 100 and time > newest}
                assert process.sm == (valid[max(valid)] if valid else None)
            newest = max([newest, *(time for _, _, time in samples)])


def test_errors_of_gpus_come_as_events(nvml_library: Path, tmp_path: Path) -> None:
    """Each once, with the GPU that it is of, also when that is lost by then."""
    scenario = h100x8_busy(tmp_path / "scenario")
    with Nvml(scenario, nvml_library) as source:
        source.open()
        assert source.xid(0) is None
        scenario.xid(3, 79)
        scenario.lose(3)
        scenario.save()
        found = source.xid(2)
        assert found is not None
        assert found._replace(time=0) == Xid("GPU-00000003-0000-4000-8000-000000000000", "0000:13:00.0", 79, 0, "nvml")
        assert source.xid(0) is None
