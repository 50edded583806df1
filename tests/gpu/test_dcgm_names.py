"""Dashboards that were made for dcgm-exporter find what they look for."""

from __future__ import annotations

import os

from infermeter_exporters.gpu.board import Board
from infermeter_exporters.gpu.dcgm_names import FAMILIES, dcgm
from infermeter_exporters.gpu.readings import Process, Reading, Xid

UUID = "GPU-1"
INFO = ("NVIDIA T4", "0000:65:00.0", "1", "3", "Tesla", "Turing", "7.5", "90.04", "0", "none", "false")
PLACE = ("0", UUID, "00000000:65:00.0", "nvidia3", "NVIDIA T4", os.uname().nodename)


class Nobody:
    """Knows no process."""

    def owner(self, _: int) -> None:
        return None

    def why(self, _: int) -> str:
        return "pending"


def board() -> Board:
    """One GPU that was read whole."""
    made = Board(Nobody())
    made.read(Reading(UUID, 0, "0000:65:00.0", "slow", 1, values=[("nvidia_gpu_info", INFO, 1.0)]))
    values = [
        ("nvidia_gpu_temperature_celsius", (), 54.0),
        ("nvidia_gpu_clock_hertz", ("sm",), 1.59e9),
        ("nvidia_gpu_clock_hertz", ("memory",), 5.001e9),
        ("nvidia_gpu_tensor_active_ratio", (), 0.25),
        ("nvidia_gpu_engine_busy_ratio", ("encoder",), 0.07),
        ("nvidia_gpu_engine_busy_ratio", ("jpeg",), 0.5),
    ]
    made.read(Reading(UUID, 0, "", "normal", 1, values=values))
    processes = [Process(1, ("compute",), 3 << 20, 20.0)]
    made.read(
        Reading(
            UUID, 0, "", "fast", 1, "ok", (), 0.57, memory_used=5 << 20, energy=12.5, power=61.5, processes=processes
        )
    )
    return made


def test_names_labels_and_units() -> None:
    """Those of dcgm-exporter: percent, MiB, MHz, mJ."""
    found = {name: series.get(PLACE) for name, series in dcgm(board().samples(1)).items() if series}
    assert found == {
        "DCGM_FI_DEV_SM_CLOCK": 1590,
        "DCGM_FI_DEV_MEM_CLOCK": 5001,
        "DCGM_FI_DEV_GPU_TEMP": 54,
        "DCGM_FI_DEV_POWER_USAGE": 61.5,
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 12_500,
        "DCGM_FI_DEV_GPU_UTIL": 57,
        "DCGM_FI_DEV_ENC_UTIL": 7,
        "DCGM_FI_DEV_FB_USED": 5,
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 0.57,
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.25,
        "DCGM_FI_DEV_XID_ERRORS": 0,
    }


def test_the_last_error_is_shown() -> None:
    """As a gauge, as they do."""
    one = board()
    one.error(Xid(UUID, "", 31, 5.0, "nvml"))
    one.error(Xid(UUID, "", 79, 4.0, "nvml"))
    assert dcgm(one.samples(1))["DCGM_FI_DEV_XID_ERRORS"] == {PLACE: 31}


def test_a_lost_gpu_is_absent() -> None:
    """It has no values by any name."""
    one = board()
    one.read(Reading(UUID, 0, "", "fast", 2, "lost"))
    assert not any(series for name, series in dcgm(one.samples(2)).items())


def test_a_family_for_each_name() -> None:
    """All that can be shown is known, and has the labels that it is shown with."""
    found = dcgm(board().samples(1))
    assert set(found) == set(FAMILIES)
    assert {len(labels) for series in found.values() for labels in series} == {len(PLACE)}
