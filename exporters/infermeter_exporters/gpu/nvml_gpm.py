"""What parts of a GPU did between two readings, by its own counters (GPM): Hopper and later, without a lock."""

from collections.abc import Iterator, Mapping
from typing import Any

import pynvml

from infermeter_exporters.gpu.nvml_calls import NO_HANDLE, Calls
from infermeter_exporters.gpu.nvml_mig import Mig
from infermeter_exporters.gpu.readings import Value

_SM_ACTIVE = pynvml.NVML_GPM_METRIC_SM_UTIL
_METRICS = {
    _SM_ACTIVE: "nvidia_gpu_sm_active_ratio",
    pynvml.NVML_GPM_METRIC_SM_OCCUPANCY: "nvidia_gpu_sm_occupancy_ratio",
    pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: "nvidia_gpu_tensor_active_ratio",
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL: "nvidia_gpu_dram_active_ratio",
    pynvml.NVML_GPM_METRIC_FP64_UTIL: "nvidia_gpu_fp64_active_ratio",
    pynvml.NVML_GPM_METRIC_FP32_UTIL: "nvidia_gpu_fp32_active_ratio",
    pynvml.NVML_GPM_METRIC_FP16_UTIL: "nvidia_gpu_fp16_active_ratio",
}
_MOST = 100.0


class Gpm:
    """The ratios of one GPU and of its instances.

    Args:
        calls: to the driver.
        mig: its instances.
    """

    def __init__(self, calls: Calls, mig: Mig) -> None:
        self._calls = calls
        self._mig = mig
        # By GPU instance, None for the GPU as a whole: the sample of the last reading, and one to be overwritten.
        self._samples: dict[int | None, tuple[Any, Any]] = {}

    def read(self) -> Iterator[Value]:
        """Ratios since the last reading; none at the first."""
        support = self._calls.ask("nvmlGpmQueryDeviceSupport")
        if support is None or not support.isSupportedDevice:
            return
        if not self._mig.on():
            self._forget({None})
            for metric, ratio in self._since_last(None, list(_METRICS)).items():
                yield _METRICS[metric], (), ratio
            return
        instances = self._mig.instances()
        self._forget({one.gpu_instance for one in instances})
        # Instances that share a part of the GPU share its counters.
        for part in sorted({one.gpu_instance for one in instances if one.gpu_instance is not None}):
            for ratio in self._since_last(part, [_SM_ACTIVE]).values():
                for one in instances:
                    if one.gpu_instance == part:
                        yield "nvidia_gpu_mig_sm_active_ratio", one.place, ratio

    def _since_last(self, part: int | None, metrics: list[int]) -> Mapping[int, float]:
        last, spare = self._samples.get(part, (None, None))
        if spare is None:
            spare = self._calls.ask("nvmlGpmSampleAlloc", of=NO_HANDLE)
            if spare is None:
                return {}
        taken = (
            self._calls.ask("nvmlGpmSampleGet", spare)
            if part is None
            else self._calls.ask("nvmlGpmMigSampleGet", part, spare)
        )
        if taken is None:
            # Both are kept for the next try: what is older than a period is as true, over a longer time.
            self._samples[part] = (last, spare)
            return {}
        self._samples[part] = (spare, last)
        return {} if last is None else self._ratios(last, spare, metrics)

    def _ratios(self, earlier: Any, later: Any, metrics: list[int]) -> Mapping[int, float]:
        wanted = pynvml.c_nvmlGpmMetricsGet_t()
        wanted.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        wanted.numMetrics = len(metrics)
        wanted.sample1, wanted.sample2 = earlier, later
        for place, metric in enumerate(metrics):
            wanted.metrics[place].metricId = metric
        if self._calls.ask("nvmlGpmMetricsGet", of=wanted) is None:
            return {}
        found = {}
        for place, metric in enumerate(metrics):
            one = wanted.metrics[place]
            # A comparison with NaN is false.
            if one.nvmlReturn == pynvml.NVML_SUCCESS and 0 <= one.value <= _MOST:
                found[metric] = one.value / 100
        return found

    def _forget(self, kept: set[int | None]) -> None:
        """Give back the samples of parts that are no more."""
        for part in set(self._samples) - kept:
            for sample in self._samples.pop(part):
                if sample is not None:
                    self._calls.ask("nvmlGpmSampleFree", of=sample)
