"""What the page shows of GPUs follows from what was read, and adds up."""

from __future__ import annotations

from math import isclose
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.gpu.accounts import Price
from infermeter_exporters.gpu.board import Board, Limits
from infermeter_exporters.gpu.catalogue import FAMILIES
from infermeter_exporters.gpu.readings import Machine, Process, Reading, Xid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infermeter_exporters.families import Samples, Series

UUID = "GPU-1"
DEVICE = ("0", UUID)
PRICE = Price(usd_per_hour=3.6, usd_per_kwh=0.36)


class Whose(NamedTuple):
    """Whose a process is."""

    service: str
    container_name: str = ""
    namespace: str = ""
    pod: str = ""
    process_name: str = "python"


class Fixed:
    """Knows a few processes by their pids."""

    def __init__(self, **services: str) -> None:
        self.known = {int(pid[1:]): Whose(service) for pid, service in services.items()}

    def owner(self, pid: int) -> Whose | None:
        return self.known.get(pid)

    def why(self, _: int) -> str:
        return "pending"


def fast(time: float, busy: float | None, *processes: Process, **more: object) -> Reading:
    """A reading of how the GPU is used."""
    given = {"memory_used": 1000, "power": 100.0, "energy": 100.0 * time} | more
    return Reading(UUID, 0, "0000:65:00.0", "fast", time, "ok", (), busy, processes=processes, **given)  # type: ignore[arg-type]


def process(pid: int, sm: float | None = None, memory: int | None = None) -> Process:
    """A process that computes."""
    return Process(pid, ("compute",), memory, sm)


def board(limits: Limits = Limits(), **services: str) -> Board:  # noqa: B008
    """A board that knows these services."""
    made = Board(Fixed(**services), lambda _: PRICE, limits)
    made.told(Machine("nvml", 1))
    return made


def by_service(samples: Samples, family: str) -> dict[str, float]:
    """A family of one GPU by service."""
    place = FAMILIES[family].labels.index("service")
    return {labels[place]: value for labels, value in samples[family].items()}


def test_a_gpu_is_divided() -> None:
    """Between its services, and what is nobody's: time, memory, processes."""
    one = board(p1="face", p2="face", p3="object")
    one.read(fast(1, 0.5, process(1, 10, 100), process(2, 5, 50), process(3, 20, None), process(9, 1, 10)))
    samples = one.samples(1)
    assert by_service(samples, "nvidia_gpu_utilization") == {"face": 15, "object": 20, "_unattributed": 15}
    assert by_service(samples, "nvidia_gpu_memory_used_bytes") == {"face": 150, "object": 0, "_unattributed": 850}
    assert by_service(samples, "nvidia_gpu_service_sm_utilization") == {"face": 15, "object": 20, "_unattributed": 1}
    assert by_service(samples, "nvidia_gpu_service_processes") == {"face": 2, "object": 1, "_unattributed": 1}
    assert samples["nvidia_gpu_busy_ratio"] == {DEVICE: 0.5}
    assert samples["nvidia_gpu_processes"] == {(*DEVICE, "compute"): 4, (*DEVICE, "graphics"): 0, (*DEVICE, "mps"): 0}
    assert samples["nvidia_gpu_exporter_unattributed_processes"] == {("pending",): 1}


def test_every_series_has_the_labels_of_its_family() -> None:
    """Whatever is shown is in the catalogue."""
    one = board(p1="face", limits=Limits(processes=1))
    one.read(fast(1, 0.5, process(1, 10, 100), process(2, 10, 90), errors=[("DeviceGetFanSpeed_v2", "unknown")]))
    one.error(Xid(UUID, "", 79, 100.0, "nvml"))
    for name, series in one.samples(1).items():
        assert {len(labels) for labels in series} <= {len(FAMILIES[name].labels)}


def test_counters_begin_at_zero() -> None:
    """A page shows a service at 0 before it shows what it used, so that increase() sees all of it."""
    one = board(p1="face")
    one.read(fast(1, 1.0, process(1, 100)))
    one.read(fast(2, 1.0, process(1, 100)))
    names = (
        "nvidia_gpu_service_sm_seconds_total",
        "nvidia_gpu_service_energy_joules_total",
        "nvidia_gpu_cost_usd_total",
    )
    for expected in ([0, 0, 0], [1, 100, 0.001 + 0.00001]):
        samples = one.samples(2)
        assert [by_service(samples, name)["face"] for name in names] == expected


def test_what_an_idle_gpu_draws_is_nobodys() -> None:
    """It is learned while nothing runs; what is beyond it belongs to those who use the GPU."""
    one = board(p1="face", p2="object")
    for time in range(3):
        one.read(fast(time, 0.0, power=30.0, energy=30.0 * time))
    one.read(fast(3, 0.8, process(1, 60), process(2, 20), power=300.0, energy=60.0 + 230.0))
    one.samples(3)
    joules = by_service(one.samples(3), "nvidia_gpu_service_energy_joules_total")
    assert joules == {"_idle": 90, "_unattributed": 0, "face": 150, "object": 50}
    assert one.samples(3)["nvidia_gpu_energy_joules_total"] == {DEVICE: 290}


def test_a_gpu_whose_use_is_not_known_is_paid_for_by_nobody() -> None:
    """As one that MIG divides: energy and money are nobody's, and nothing is said of its time."""
    one = board(p1="face")
    for time in (1, 2):
        one.read(fast(time, None, process(1, None, 100)))
    one.samples(2)
    samples = one.samples(2)
    assert by_service(samples, "nvidia_gpu_service_energy_joules_total") == {"_unattributed": 100}
    assert by_service(samples, "nvidia_gpu_cost_usd_total") == {"_unattributed": 0.001 + 0.00001}
    assert "nvidia_gpu_service_sm_seconds_total" not in samples
    assert "nvidia_gpu_utilization" not in samples
    assert by_service(samples, "nvidia_gpu_memory_used_bytes") == {"face": 100, "_unattributed": 900}


def test_a_lost_gpu_has_no_values() -> None:
    """What it used stays; that it is lost is said; when it is back, all goes on."""
    one = board(p1="face")
    one.read(Reading(UUID, 0, "", "normal", 1, values=[("nvidia_gpu_temperature_celsius", (), 50.0)]))
    one.read(fast(1, 0.5, process(1, 50)))
    before = one.samples(1)
    one.read(Reading(UUID, 0, "", "fast", 2, "lost"))
    lost = one.samples(2)
    gone = {name for name in before if name not in lost}
    assert {"nvidia_gpu_temperature_celsius", "nvidia_gpu_utilization", "nvidia_gpu_busy_ratio"} <= gone
    assert lost["nvidia_gpu_up"] == {DEVICE: 0}
    assert {labels[2]: value for labels, value in lost["nvidia_gpu_status"].items() if value} == {"lost": 1}
    assert "nvidia_gpu_service_sm_seconds_total" in lost
    one.read(fast(3, 0.5, process(1, 50)))
    assert one.samples(3)["nvidia_gpu_up"] == {DEVICE: 1}
    assert by_service(one.samples(3), "nvidia_gpu_utilization")["face"] == 50


def test_a_gpu_that_hung_is_up_when_all_of_it_was_read() -> None:
    """Its slow and normal tiers come first after a new start, and hang no less if only the fast one hung."""
    one = board(p1="face")
    one.read(fast(1, 0.5, process(1, 50)))
    one.missed(UUID, "timeout")
    one.read(Reading(UUID, 0, "", "normal", 2, values=[("nvidia_gpu_temperature_celsius", (), 50.0)]))
    hung = one.samples(2)
    assert (hung["nvidia_gpu_up"], "nvidia_gpu_temperature_celsius" in hung) == ({DEVICE: 0}, False)
    assert hung["nvidia_gpu_status"][*DEVICE, "timeout"] == 1
    one.read(fast(3, 0.5, process(1, 50)))
    well = one.samples(3)
    assert (well["nvidia_gpu_up"], well["nvidia_gpu_temperature_celsius"]) == ({DEVICE: 1}, {DEVICE: 50})


def test_old_readings_are_not_shown() -> None:
    """A GPU that nobody has heard of for too long is one that does not answer."""
    one = board(limits=Limits(max_age=10, slow_age=130))
    one.read(Reading(UUID, 0, "", "slow", 0, values=[("nvidia_gpu_ecc_mode", (), 1.0)]))
    one.read(fast(1, 0.5))
    assert one.samples(11)["nvidia_gpu_up"] == {DEVICE: 1}
    late = one.samples(11.5)
    assert late["nvidia_gpu_up"] == {DEVICE: 0}
    assert late["nvidia_gpu_status"][*DEVICE, "timeout"] == 1
    assert "nvidia_gpu_ecc_mode" not in late
    one.read(fast(200, 0.5))
    assert "nvidia_gpu_ecc_mode" not in one.samples(200)


def test_a_service_that_left_is_idle_for_a_while() -> None:
    """Then it is forgotten."""
    one = board(p1="face", limits=Limits(keep=600))
    one.read(fast(0, 0.5, process(1, 50, 10)))
    one.read(fast(599, 0.5))
    assert by_service(one.samples(599), "nvidia_gpu_utilization") == {"face": 0, "_unattributed": 50}
    one.read(fast(601, 0.5))
    assert by_service(one.samples(601), "nvidia_gpu_utilization") == {"_unattributed": 50}
    assert "face" not in by_service(one.samples(601), "nvidia_gpu_service_sm_seconds_total")


def test_too_many_services_are_one() -> None:
    """The sums stay true, and it is counted."""
    one = board(p1="a", p2="b", p3="c", limits=Limits(services=2))
    one.read(fast(0, 1.0, process(1, 10), process(2, 10), process(3, 10)))
    samples = one.samples(0)
    assert by_service(samples, "nvidia_gpu_utilization") == {"a": 10, "b": 10, "_other": 10, "_unattributed": 70}
    assert samples["nvidia_gpu_exporter_series_dropped_total"] == {("services",): 1}


def test_processes_one_by_one() -> None:
    """The largest are shown by their pids, the others together."""
    one = board(p1="face", limits=Limits(processes=2))
    one.read(fast(0, 1.0, process(1, 10, 5), process(2, 20, 500), process(3, 30, 50), process(4, None, 7)))
    found = {labels[2]: value for labels, value in one.samples(0)["nvidia_gpu_process_memory_used_bytes"].items()}
    assert found == {"2": 500, "3": 50, "_other": 12}
    assert "nvidia_gpu_process_memory_used_bytes" not in board().samples(0)


@pytest.mark.parametrize("loaded_again", [False, True])
def test_counters_of_the_driver_go_on(loaded_again: object) -> None:
    """Also when the driver starts to count from 0 again."""
    one = board()
    for time, count in ((0, 100.0), (5, 130.0), (10, 10.0 if loaded_again else 140.0)):
        one.read(Reading(UUID, 0, "", "normal", time, values=[("nvidia_gpu_pcie_replays_total", (), count)]))
    assert one.samples(10)["nvidia_gpu_pcie_replays_total"] == {DEVICE: 140}


def test_another_source_counts_from_elsewhere() -> None:
    """Nothing is added when it begins, whichever way it differs."""
    one = board()
    one.read(Reading(UUID, 0, "", "normal", 0, values=[("nvidia_gpu_pcie_replays_total", (), 100.0)]))
    one.start_over()
    for time, count in ((5, 900.0), (10, 907.0)):
        one.read(Reading(UUID, 0, "", "normal", time, values=[("nvidia_gpu_pcie_replays_total", (), count)]))
    assert one.samples(10)["nvidia_gpu_pcie_replays_total"] == {DEVICE: 107}


def test_an_error_that_two_report_is_one() -> None:
    """The driver's events and the kernel's log; all codes to alert on are there at 0 before."""
    one = board()
    one.read(fast(0, 0.0))
    for xid in (
        Xid(UUID, "", 79, 10.0, "nvml"),
        Xid("", "0000:65:00", 79, 11.0, "kmsg"),
        Xid("", "0000:66:00", 79, 1, "kmsg"),
    ):
        one.error(xid)
    samples = one.samples(0)
    assert samples["nvidia_gpu_xid_errors_total"][*DEVICE, "79", "hardware"] == 1
    assert samples["nvidia_gpu_xid_errors_total"][*DEVICE, "48", "hardware"] == 0
    assert samples["nvidia_gpu_xid_last_timestamp_seconds"] == {(*DEVICE, "79"): 11.0}


readings = st.lists(
    st.tuples(
        st.floats(0.1, 30),  # seconds since the last one
        st.integers(0, 100),
        st.lists(
            st.tuples(st.integers(1, 6), st.none() | st.floats(0, 100), st.none() | st.integers(0, 600)), max_size=6
        ),
        st.floats(20, 700),
        st.sampled_from(["ok", "ok", "ok", "lost"]),
    ),
    max_size=20,
)


@given(readings)
def test_everything_adds_up(
    given_readings: Sequence[tuple[float, int, list[tuple[int, float, int]], float, str]],
) -> None:
    """Parts of time and memory to those of the GPU; time, energy and money of services to the GPU's; none decreases."""
    one = board(p1="a", p2="b", p3="a")
    one.samples(0)
    time, energy, bill = 0.0, 5000.0, 0.0
    last: dict[str, Series] = {}
    for seconds, percent, processes, power, state in given_readings:
        first = not last
        time += seconds
        energy += power * seconds
        reading = fast(time, percent / 100, *(process(*one) for one in processes), power=power, energy=energy)
        if state != "ok":
            reading = Reading(UUID, 0, "", "fast", time, "lost")
        one.read(reading)
        one.samples(time)  # so that nothing waits to be shown at 0
        samples = one.samples(time)
        bill += 0 if first else seconds * 0.001
        if state == "ok":
            assert sum(by_service(samples, "nvidia_gpu_utilization").values()) == percent
            assert sum(by_service(samples, "nvidia_gpu_memory_used_bytes").values()) == 1000
        joules = sum(samples.get("nvidia_gpu_service_energy_joules_total", {}).values())
        total = samples.get("nvidia_gpu_energy_joules_total", {}).get(DEVICE, 0.0)
        usd = sum(samples.get("nvidia_gpu_cost_usd_total", {}).values())
        assert isclose(usd, bill + joules * 1e-7, abs_tol=1e-9, rel_tol=1e-9)
        assert joules <= total + 1e-6
        counters = {name: series for name, series in samples.items() if name.endswith("_total")}
        for name, series in last.items():
            for labels, value in series.items():
                assert counters[name].get(labels, value) >= value - 1e-9
        last = counters
