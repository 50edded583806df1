"""GPUs that do not exist say what those that do would say, and go on where they were after a restart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermeter_exporters.gpu.catalogue import DEVICE, FAMILIES
from infermeter_exporters.gpu.readings import TIERS, Process, Reading, Tier, packed, unpacked
from infermeter_exporters.gpu.simulated import SERVICES, Simulated
from infermeter_exporters.gpu.simulated_load import MODELS, Spec, parse

NOW = 1_800_000_000.0
TIMES = st.floats(NOW - 5e6, NOW + 1e8)
SPECS = ("h100x2,shared", "t4", "a100x2,mig", "rtx4090,seed=5", "b200x1,h100x1,shared,mig")


def processes(reading: Reading) -> list[Process]:
    """What holds a context, which simulated GPUs always tell."""
    assert reading.processes is not None
    return list(reading.processes)


def at(spec: str, time: float) -> Simulated:
    """What is simulated, at a moment."""
    return Simulated(spec, lambda: time)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("tier", TIERS)
def test_all_that_is_said_is_in_the_catalogue(spec: str, tier: Tier) -> None:
    """Every value is of a family of a device, with as many labels as it has, once, and survives the way to the page."""
    for gpu in at(spec, NOW).units():
        [reading] = gpu.read(tier)
        assert unpacked(packed(reading)) == reading._replace(errors=[])
        seen = [(name, labels) for name, labels, _ in reading.values]
        assert len(seen) == len(set(seen)) > 3
        for name, labels in seen:
            assert len(DEVICE + labels) == len(FAMILIES[name].labels)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("options", ["", ",shared"])
def test_models_stay_within_what_they_can(model: str, options: str) -> None:
    """Over a day: power within its limits, memory within what there is, temperatures of a GPU."""
    for step in range(300):
        [gpu] = at(f"{model}{options}", NOW + 288 * step).units()
        [fast] = gpu.read("fast")
        [normal] = gpu.read("normal")
        assert fast.power is not None
        assert fast.memory_used is not None
        assert MODELS[model].idle_watts <= fast.power <= MODELS[model].watts
        assert (
            sum(process.memory or 0 for process in processes(fast)) < fast.memory_used < MODELS[model].mebibytes << 20
        )
        values = {name: value for name, _, value in (*fast.values, *normal.values)}
        assert values["nvidia_gpu_memory_free_bytes"] > 0
        assert 25 < values["nvidia_gpu_temperature_celsius"] < 100


@settings(max_examples=60)
@given(st.lists(TIMES, min_size=2, max_size=20), st.sampled_from(SPECS))
def test_energy_and_every_counter_only_grow(times: list[float], spec: str) -> None:
    """Whichever worker is asked when."""
    before: dict[tuple[str, object], float] = {}
    for time in sorted(times):
        for gpu in at(spec, time).units():
            [fast] = gpu.read("fast")
            assert fast.energy is not None
            found: dict[tuple[str, object], float] = {(gpu.name, "energy"): fast.energy}
            for tier in TIERS:
                for name, labels, value in gpu.read(tier)[0].values:
                    if FAMILIES[name].kind == "counter":
                        found[gpu.name, (name, labels)] = value
            assert all(value >= before.get(key, 0.0) for key, value in found.items())
            before.update(found)


@settings(max_examples=100)
@given(TIMES, st.sampled_from(SPECS))
def test_parts_are_no_more_than_the_whole(time: float, spec: str) -> None:
    """What processes use of the time adds up to at most what the GPU is busy."""
    for gpu in at(spec, time).units():
        [fast] = gpu.read("fast")
        if fast.busy is None:
            assert {process.sm for process in processes(fast)} == {None}
        else:
            assert sum(process.sm or 0.0 for process in processes(fast)) <= round(100 * fast.busy) <= 100


def test_energy_is_the_integral_of_power() -> None:
    """Added up in small steps over five minutes, with a rest in them, it is what the counter grew by."""
    [gpu] = at("h100,shared", NOW).units()
    step = 0.01
    added = sum(gpu.power(NOW + step * (place + 0.5)) for place in range(30_000)) * step
    assert added == pytest.approx(gpu.energy(NOW + 300) - gpu.energy(NOW), rel=1e-3)


def test_a_restart_is_not_seen() -> None:
    """Another process says the same at the same time; another seed does not."""
    first, again, other = at("h100x2", NOW), at("h100x2", NOW), at("h100x2,seed=1", NOW)

    def said(source: Simulated) -> list[object]:
        return [gpu.read("fast")[0]._replace(time=0.0, seconds=0.0) for gpu in source.units()]

    assert said(first) == said(again)
    assert said(first) != said(other)


def test_a_gpu_rests_at_times() -> None:
    """So that it can be learned what it draws when idle."""
    [gpu] = at("t4", NOW).units()
    idle = [time for time in range(300) if sum(gpu.busy(NOW + time)) == 0]
    assert 6 <= len(idle) <= 10
    assert gpu.power(NOW + idle[0]) == MODELS["t4"].idle_watts


def test_one_that_is_lost_says_nothing_and_comes_back() -> None:
    """After a minute, for a minute; the other one goes on."""
    time = [NOW]
    source = Simulated("h100x2,lost=1", lambda: time[0])
    states = []
    for passed in (0, 59, 61, 119, 121):
        time[0] = NOW + passed
        states.append([gpu.read("fast")[0].state for gpu in source.units()])
    assert states == [["ok", "ok"], ["ok", "ok"], ["ok", "lost"], ["ok", "lost"], ["ok", "ok"]]
    time[0] = NOW + 90
    assert source.units()[1].read("slow")[0].values == ()


def test_processes_have_owners_that_are_services() -> None:
    """Each pid once; a service that is on several GPUs has a container on each."""
    source = at("h100x8,shared", NOW)
    owners = source.owners()
    pids = [process.pid for gpu in source.units() for process in processes(gpu.read("fast")[0])]
    assert sorted(pids) == sorted(owners)
    assert len(set(pids)) == len(pids) == len(set(owners.values())) == 24
    assert {service for service, _ in owners.values()} == set(SERVICES)
    first = source.owner(pids[0])
    assert first is not None
    assert first[:2] == ("face-detection", "face-detection-1")
    assert source.owner(1) is None


def test_errors_come_once_and_with_their_times() -> None:
    """Of applications alone, in the time that was waited for."""
    time = [NOW]
    source = Simulated("h100", lambda: time[0])
    time[0] = NOW + 7500
    found = list(iter(lambda: source.wait_for_xid(0), None))
    assert len(found) == 5
    assert {xid.code for xid in found} == {13, 31}
    assert all(NOW < xid.time <= time[0] for xid in found)
    assert source.wait_for_xid(0) is None


def test_a_hot_gpu_slows_down() -> None:
    """It says why, and its clock and its seconds say so too."""
    [gpu] = at("h100", NOW).units()
    hot = next(time for time in range(1200) if gpu._heat(NOW + time) > 0.95)
    said = {(name, labels): value for name, labels, value in at("h100", NOW + hot).units()[0].read("normal")[0].values}
    assert said["nvidia_gpu_throttle_active", ("sw_thermal_slowdown",)] == 1.0
    assert said["nvidia_gpu_temperature_celsius", ()] >= MODELS["h100"].slowdown
    assert said["nvidia_gpu_clock_hertz", ("sm",)] < 0.75e6 * MODELS["h100"].megahertz


def test_specifications_say_what_is_simulated() -> None:
    """Several models may be mixed."""
    assert parse("h100x8,shared") == Spec((MODELS["h100"],) * 8, shared=True)
    assert parse(" A100x2, t4 ,lost=2,seed=7") == Spec((MODELS["a100"],) * 2 + (MODELS["t4"],), lost=2, seed=7)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "'' is not known, expected MODELxCOUNT with one of the models b200,"),
        ("h100x0", "'h100x0' is not known"),
        ("h900x2", "'h900x2' is not known"),
        ("shared", "'shared' names no GPU, expected for example h100x8"),
        ("h100x65", "asks for 65 GPUs, at most 64"),
        ("t4x9999,t4x9999", "at most 64"),
        ("h100x2,lost=2", "'lost=2' is the number of no GPU, expected 0 to 1"),
        ("h100,seed=x", "'seed=x' expects a number"),
        ("h100,t4,mig", "'mig' needs GPUs that can be divided, which are b200, h200, h100, a100"),
    ],
)
def test_a_wrong_specification_says_which_part(text: str, part: str) -> None:
    """And what would be right."""
    with pytest.raises(ValueError) as caught:
        Simulated(text)
    assert part in str(caught.value)


@given(st.text(alphabet="ah10x8t4,=losted²sig ", max_size=20))
def test_any_text_is_a_specification_or_a_value_error(text: str) -> None:
    """Nothing else is raised."""
    try:
        found = parse(text)
    except ValueError:
        return
    assert 1 <= len(found.models) <= 64
