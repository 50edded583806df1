"""What nvidia-smi says, whichever release and however it fails: a real program, which prints an answer."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.gpu.catalogue import DEVICE, FAMILIES
from infermeter_exporters.gpu.readings import TIERS, Machine, Process, Reading, SourceError, Tier
from infermeter_exporters.gpu.smi import Smi, parsed
from infermeter_exporters.gpu.smi_values import number

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWERS = Path(__file__).with_name("answers")
MIB = 1 << 20
A, B = (f"GPU-{letter * 8}-0000-4000-8000-000000000000" for letter in "ab")


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a program of the lines of a shell script."""

    def made(script: str) -> Path:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return made


def read(path: Path, tier: Tier) -> dict[str, Reading]:
    """Readings by uuid, without what differs each time."""
    source = Smi(str(path))
    source.open()
    return {one.uuid: one._replace(time=0.0, seconds=0.0) for one in source.read(tier)}


def values(reading: Reading) -> dict[tuple[str, ...], float]:
    """Its values, without what all families begin with."""
    assert len({(name, labels) for name, labels, _ in reading.values}) == len(reading.values)
    for name, labels, _ in reading.values:
        assert len(DEVICE + labels) == len(FAMILIES[name].labels)
    return {(name.removeprefix("nvidia_gpu_"), *labels): value for name, labels, value in reading.values}


def test_how_busy_gpus_are(program: Callable[[str], Path]) -> None:
    """Of one that is divided the ratio is not known, whatever it says; one that was lost at once is not known."""
    found = read(program(f"cat {ANSWERS}/smi-550.xml"), "fast")
    assert list(found) == [A, B]
    one, other = found[A], found[B]
    assert (one.number, one.pci, one.state) == (0, "0000:65:00.0", "ok")
    assert (one.busy, one.memory_used, one.power, one.energy) == (0.6, 20480 * MIB, 420.5, None)
    assert one.processes == [
        Process(4000, ("compute",), 10240 * MIB, None),
        Process(4001, ("compute", "graphics"), None, None),
    ]
    assert values(one) == {
        ("memory_total_bytes",): 81559 * MIB,
        ("memory_free_bytes",): 60528 * MIB,
        ("memory_reserved_bytes",): 551 * MIB,
        ("memory_usage_percent",): 100 * 20480 / 81559,
    }
    assert (other.busy, other.memory_used, other.processes, other.power) == (None, 1024 * MIB, [], None)


def test_how_gpus_are(program: Callable[[str], Path]) -> None:
    """Celsius, hertz, ratios; what is not told is absent."""
    found = read(program(f"cat {ANSWERS}/smi-550.xml"), "normal")
    assert values(found[A]) == {
        ("temperature_celsius",): 55,
        ("memory_temperature_celsius",): 61,
        ("temperature_margin_celsius",): 32,
        ("memory_busy_ratio",): 0.3,
        ("bar1_memory_used_bytes",): 2 * MIB,
        ("pcie_link_generation",): 4,
        ("pcie_link_width",): 8,
        ("pcie_replays_total",): 3,
        ("engine_busy_ratio", "encoder"): 0,
        ("engine_busy_ratio", "decoder"): 0.12,
        ("engine_busy_ratio", "ofa"): 0,
        ("clock_hertz", "graphics"): 1.5e9,
        ("clock_hertz", "sm"): 1.5e9,
        ("clock_hertz", "memory"): 2.619e9,
        ("clock_hertz", "video"): 1.4e9,
        ("performance_state",): 0,
        ("throttle_active", "sw_power_cap"): 1,
        ("throttle_active", "hw_slowdown"): 0,
    }
    assert values(found[B]) == {
        ("mig_memory_used_bytes", "", "1"): 1024 * MIB,
        ("mig_memory_total_bytes", "", "1"): 19968 * MIB,
    }


def test_what_gpus_are(program: Callable[[str], Path]) -> None:
    """And their limits and the health of their memory; errors are summed if all of their parts are told."""
    found = read(program(f"cat {ANSWERS}/smi-550.xml"), "slow")
    info = ("NVIDIA H100 80GB HBM3", "0000:65:00.0", "1650000000001", "0", "NVIDIA", "Hopper", "", "96.00.61.00.01")
    assert values(found[A]) == {
        ("info", *info, "", "none", "false"): 1,
        ("power_limit_watts", "enforced"): 700,
        ("power_limit_watts", "default"): 700,
        ("power_limit_watts", "min"): 200,
        ("power_limit_watts", "max"): 700,
        ("clock_max_hertz", "graphics"): 1.98e9,
        ("pcie_link_generation_max",): 5,
        ("pcie_link_width_max",): 16,
        ("remapped_rows", "corrected"): 1,
        ("remapped_rows", "uncorrected"): 0,
        ("persistence_mode",): 1,
        ("ecc_mode",): 1,
        ("mig_mode",): 0,
        ("remap_pending",): 0,
        ("remap_failure",): 1,
        ("ecc_errors_total", "corrected", "volatile"): 5,
        ("ecc_errors_total", "uncorrected", "volatile"): 2,
    }
    assert ("mig_info", "", "1", "0", "") in values(found[B])


def test_an_old_release(program: Callable[[str], Path]) -> None:
    """Other names of the same, and other ways of saying nothing."""
    path = program(f"echo warning; cat {ANSWERS}/smi-418.xml; echo end")
    [fast], [normal], [slow] = (read(path, tier).values() for tier in TIERS)
    assert (fast.busy, fast.power, fast.memory_used) == (0.03, None, 400 * MIB)
    assert values(normal) == {
        ("temperature_celsius",): 40,
        ("fan_speed_ratio", "0"): 0.35,
        ("clock_hertz", "graphics"): 3e8,
        ("performance_state",): 8,
        ("throttle_active", "hw_slowdown"): 0,
    }
    said = values(slow)
    assert said["power_limit_watts", "enforced"] == 75
    assert said["temperature_threshold_celsius", "shutdown"] == 94
    assert said["temperature_threshold_celsius", "slowdown"] == 91
    assert ("ecc_mode",) not in said


def test_it_is_run_once_for_all_tiers_and_loses_none_that_it_named(
    program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that is lost later keeps its name."""
    answer = tmp_path / "answer.xml"
    answer.write_bytes((ANSWERS / "smi-418.xml").read_bytes())
    source = Smi(str(program(f"echo run >> {tmp_path}/runs; cat {answer}")))
    assert source.open() == Machine("nvidia-smi", 1, [("nvidia_gpu_driver_info", ("418.87.00", "", "10.1"), 1.0)])
    assert [len(source.read(tier)) for tier in (*TIERS, *TIERS)] == [1, 1, 1, 0, 0, 0]
    assert (tmp_path / "runs").read_text() == "run\n"
    lost = answer.read_text().replace(">GPU-cccccccc-0000-4000-8000-000000000000<", ">GPU is lost<")
    answer.write_text(lost)
    later = time.monotonic() + 6
    monkeypatch.setattr("time.monotonic", lambda: later)
    [reading] = source.read("fast")
    assert (reading.uuid, reading.state, reading.values) == ("GPU-cccccccc-0000-4000-8000-000000000000", "lost", ())


def gpu(place: int, letter: str, more: str = "") -> str:
    """A GPU as XML."""
    uuid = f"GPU-{letter * 8}-0000-4000-8000-000000000000"
    return f'<gpu id="00000000:0{place}:00.0"><uuid>{uuid}</uuid>{more}</gpu>'


def answered(path: Path, *gpus: str) -> Path:
    """An answer in a file."""
    path.write_text(f"<nvidia_smi_log><attached_gpus>3</attached_gpus>{''.join(gpus)}</nvidia_smi_log>")
    return path


def test_one_that_vanishes_is_lost_and_the_others_keep_their_numbers(
    program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no longer in the answer, in which the others move up."""
    answer = answered(tmp_path / "answer", gpu(1, "a"), gpu(2, "b"), gpu(3, "c"))
    source = Smi(str(program(f"cat {answer}")))
    assert source.open().devices == 3
    assert [(one.uuid[4], one.number, one.state) for one in source.read("fast")] == [
        ("a", 0, "ok"),
        ("b", 1, "ok"),
        ("c", 2, "ok"),
    ]
    answered(answer, gpu(1, "a"), gpu(3, "c"))
    later = time.monotonic() + 6
    monkeypatch.setattr("time.monotonic", lambda: later)
    assert [(one.uuid[4], one.number, one.state) for one in source.read("fast")] == [
        ("a", 0, "ok"),
        ("c", 2, "ok"),
        ("b", 1, "lost"),
    ]


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ("<fan_speed>[GPU is lost]</fan_speed>", "lost"),
        ("<performance_state>GPU requires reset</performance_state>", "reset_required"),
        (
            "<processes><process_info><pid>7</pid><process_name>GPU is lost</process_name></process_info></processes>",
            "ok",
        ),
    ],
)
def test_states(program: Callable[[str], Path], tmp_path: Path, more: str, state: str) -> None:
    """Are what the GPU says; what its processes are called is none of them."""
    [reading] = read(program(f"cat {answered(tmp_path / 'answer', gpu(1, 'a', more))}"), "fast").values()
    assert reading.state == state


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "<temperature><gpu_temp_tlimit>-3 C</gpu_temp_tlimit></temperature>",
            {"normal": {("temperature_margin_celsius",): -3}},
        ),
        (
            "<clocks_event_reasons><clocks_event_reason_display_clocks_setting>Active"
            "</clocks_event_reason_display_clocks_setting></clocks_event_reasons>",
            {"normal": {("throttle_active", "display_clock_setting"): 1}},
        ),
        (
            "<clocks_event_reasons_counters><clocks_event_reasons_counters_sw_therm_slowdown>1500000 us"
            "</clocks_event_reasons_counters_sw_therm_slowdown></clocks_event_reasons_counters>",
            {"normal": {("throttle_seconds_total", "sw_thermal_slowdown"): 1.5}},
        ),
        (
            "<ecc_errors><volatile><single_bit><device_memory>1</device_memory><total>4</total></single_bit></volatile>"
            "</ecc_errors>",
            {"slow": {("ecc_errors_total", "corrected", "volatile"): 4}},
        ),
        (
            "<gpu_recovery_action>Reset</gpu_recovery_action><fabric><state>Completed</state></fabric>"
            "<retired_pages><double_bit_retirement><retired_count>2</retired_count></double_bit_retirement>"
            "<pending_retirement>No</pending_retirement></retired_pages>",
            {
                "slow": {
                    ("retired_pages", "double_bit"): 2,
                    ("retired_pages_pending",): 0,
                    ("recovery_action",): 1,
                    ("fabric_state",): 3,
                }
            },
        ),
    ],
)
def test_what_only_some_say(
    program: Callable[[str], Path], tmp_path: Path, more: str, said: dict[Tier, dict[tuple[str, ...], float]]
) -> None:
    """By the names that the driver's library has for it."""
    path = program(f"cat {answered(tmp_path / 'answer', gpu(1, 'a', more))}")
    for tier, expected in said.items():
        [reading] = read(path, tier).values()
        assert {key: value for key, value in values(reading).items() if key[0] != "info"} == expected


def test_processes_that_cannot_be_told(program: Callable[[str], Path], tmp_path: Path) -> None:
    """Are not known to be none."""
    path = program(f"cat {tmp_path / 'answer'}")
    for said, expected in (("N/A", None), ("", []), ("None", [])):
        answered(tmp_path / "answer", gpu(1, "a", f"<processes>{said}</processes>"))
        [reading] = read(path, "fast").values()
        assert reading.processes == expected


def test_one_gpu_that_is_broken_silences_none(program: Callable[[str], Path], tmp_path: Path) -> None:
    """The program fails then, having said all of the others."""
    path = program(f"cat {answered(tmp_path / 'answer', gpu(1, 'a'))}; exit 14")
    assert [one.state for one in read(path, "fast").values()] == ["ok"]


def test_what_a_program_started_ends_with_it(program: Callable[[str], Path]) -> None:
    """Also if the program itself has ended before."""
    path = program("sh -c 'sleep 77; : $0' \"$0\" & exit 0")
    with pytest.raises(SourceError):
        Smi(str(path), timeout=0.5).open()
    assert not running(path)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exit 9", "failed with exit code 9"),
        ("echo 'NVIDIA-SMI has failed.'; exit 9", "failed with exit code 9: NVIDIA-SMI has failed"),
        ("echo 'No devices were found'", "says no XML: No devices were found"),
        ("", "says no XML"),
        ("echo '<nvidia_smi_log><gpu></nvidia_smi_log>'", "says XML that cannot be read"),
        ("echo '<nvidia_smi_log>'", "says no XML: <nvidia_smi_log>"),
        ("sleep 100", "does not answer within 0.5 s"),
        ("trap '' TERM; sleep 100 & wait", "does not answer within 0.5 s"),
        ("exec 1>&-; sleep 100", "does not end within 0.5 s"),
        ("while :; do echo x; done | head -c 30000000", "does not answer within 0.5 s"),
    ],
)
def test_a_program_that_fails(program: Callable[[str], Path], script: str, sentence: str) -> None:
    """Is one sentence, and leaves no process behind."""
    path = program(f"{script}")
    with pytest.raises(SourceError) as caught:
        Smi(str(path), timeout=0.5).open()
    said = str(caught.value)
    assert sentence in said or "writes more than 16 MiB" in said
    assert "\n" not in said
    assert not running(path)


def running(path: Path) -> list[str]:
    """Processes that run a script, and still do after a while: one that was killed takes its time to die."""
    for _ in range(100):
        found: list[str] = []
        for one in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                found.append(one.read_bytes().decode(errors="replace"))
        found = [line for line in found if str(path) in line]
        if not found:
            return []
        time.sleep(0.05)
    return found


def test_no_program(tmp_path: Path) -> None:
    """Is one sentence too."""
    with pytest.raises(SourceError, match="none cannot be run: No such file or directory"):
        Smi(str(tmp_path / "none")).open()
    (tmp_path / "text").write_text("x")
    with pytest.raises(SourceError, match="text cannot be run: Permission denied"):
        Smi(str(tmp_path / "text")).open()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("60 %", 0.6),
        ("1500 MHz", 1.5e9),
        ("81559 MiB", 81559 * MIB),
        ("420.50 W", 420.5),
        ("55 C", 55),
        ("16x", 16),
        ("12 [us]", 12e-6),
        ("N/A", None),
        ("[N/A]", None),
        ("ERR!", None),
        ("5 furlongs", None),
        ("", None),
        (None, None),
        ("1e400 W", None),
    ],
)
def test_numbers(text: str | None, value: float | None) -> None:
    """Have units, or are none."""
    assert number(text) == (pytest.approx(value) if value is not None else None)


WRAPPED = st.text(max_size=200).map(lambda text: f"<nvidia_smi_log><gpu id='1'>{text}</gpu></nvidia_smi_log>".encode())


@given(st.one_of(st.binary(max_size=300), WRAPPED))
def test_any_answer(answer: bytes) -> None:
    """Is XML or an error of this source."""
    try:
        log = parsed(answer)
    except SourceError:
        return
    assert log.tag == "nvidia_smi_log"
