"""Every metric of the library, once: name, kind, help, labels, buckets.

The recorder, the exposition, `docs/metrics.md` and the tests read this table; no other module spells a metric's help,
labels or buckets.
"""

from typing import Literal, NamedTuple

from infermeter import buckets

SERVICE_LABELS = ("service", "model", "version")
DEVICE_LABELS = ("service", "device")
CACHE_LABELS = ("service", "cache")  # a cache may serve several models
HTTP_LABELS = ("service", "method", "endpoint")

# What a series announces at 0 before its first error; see `failures.py` for what each kind means.
ANNOUNCED_ERRORS = ("timeout", "cuda_oom", "cancelled", "other")
TOKEN_TYPES = ("prompt", "completion")
# track(names=...) with up to so many classes announces detections_total of each at 0; a catalogue of hundreds would
# mostly announce what never comes, and take the places of the limit on label values.
MOST_ANNOUNCED_CLASSES = 20

# Why an observation was refused; each is exposed at 0 from the start.
DROP_REASONS = {
    "non_finite": "a value was NaN or infinite",
    "negative": "a value was negative",
    "unreadable": "values were of a type or shape that no number can be read from",
    "length_mismatch": "classes and confidences of one frame differed in number (the confidences were kept)",
    "device_array": "values lay on a device that cannot be read without stalling it",
    "device_pending": "values on a GPU came when too many others waited for it, or were waiting when the process ended",
    "unrecognised_result": 'detections="auto" did not know the shape of a result',
    "extractor_error": "the detections= callable raised",
    "above_one": "a score was above 1",
    "not_waiting": "a queue was told that an item left which was not waiting in it",
    "late": "a fact was reported to a call that had ended",
    "no_room": "the multi-process folder had no room for another series",
    "internal": "the library itself failed",
}


class Family(NamedTuple):
    """One metric family: its contract with rules, dashboards and people."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "summary", "info"]
    help: str
    labels: tuple[str, ...] = SERVICE_LABELS
    edges: tuple[float, ...] = ()
    across: str = "livesum"  # how the gauges of several processes become one, see `sharing.GAUGE_MODES`
    since: str = "0.1.0"


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "inference_duration",
            "histogram",
            "Time one inference took, in seconds; for a generator the time inside its steps.",
            edges=buckets.DURATION_SECONDS,
        ),
        Family("inferences_total", "counter", "Inferences that finished, failed ones included."),
        Family("inferences_in_flight", "gauge", "Inferences that started and have not finished."),
        Family(
            "inference_time_to_first_item_seconds",
            "histogram",
            "Time from the start of a streaming inference to its first item (token, frame), in seconds.",
            edges=buckets.FIRST_ITEM_SECONDS,
        ),
        Family(
            "inference_time_per_token_seconds",
            "histogram",
            "Mean time between two tokens of an inference after its first, in seconds; of streams that tell tokens.",
            edges=buckets.PER_TOKEN_SECONDS,
        ),
        Family(
            "inference_stage_duration_seconds",
            "histogram",
            "Time one stage of an inference took, in seconds.",
            labels=(*SERVICE_LABELS, "stage"),
            edges=buckets.STAGE_SECONDS,
        ),
        Family(
            "detection_confidence",
            "histogram",
            "Confidence of each detection of a successful inference, 0 to 1.",
            edges=buckets.CONFIDENCE,
        ),
        Family(
            "objects_per_frame",
            "histogram",
            "Detections per frame of a successful inference, empty frames included.",
            edges=buckets.OBJECTS,
        ),
        Family(
            "detections_total",
            "counter",
            "Detections of successful inferences by class; class is empty where the model names none.",
            labels=(*SERVICE_LABELS, "class"),
        ),
        Family(
            "inference_cost",
            "histogram",
            "Marginal cost of one inference (time share, energy, tokens), in USD.",
            edges=buckets.COST_USD,
        ),
        Family(
            "inference_tokens_total",
            "counter",
            "Tokens read (type prompt) and generated (type completion).",
            labels=(*SERVICE_LABELS, "type"),
        ),
        Family(
            "inference_batch_size",
            "histogram",
            "Items in the batch of one inference.",
            edges=buckets.BATCH_SIZE,
        ),
        Family(
            "inference_input_size_bytes",
            "histogram",
            "Size of the input of one inference, in bytes.",
            edges=buckets.SIZE_BYTES,
        ),
        Family(
            "model_errors_total",
            "counter",
            "Inferences that raised, by timeout, cuda_oom, cancelled or the exception's class; other is the rest.",
            labels=(*SERVICE_LABELS, "error_type"),
        ),
        Family("model_timeout_total", "counter", "Inferences that raised a timeout (also in model_errors_total)."),
        Family("model_fallback_total", "counter", "Inferences answered by a fallback instead of the model."),
        Family(
            "model_load_seconds",
            "histogram",
            "Time from the start of loading a model until it can answer, in seconds; failed loads are left out.",
            edges=buckets.LOAD_SECONDS,
        ),
        Family("model_queue_length", "gauge", "Items that wait for the model now."),
        Family(
            "model_queue_wait_seconds",
            "histogram",
            "Time one item waited for the model, in seconds.",
            edges=buckets.WAIT_SECONDS,
        ),
        Family(
            "model_info",
            "info",
            "What the model runs on: device, execution provider, file format.",
            labels=(*SERVICE_LABELS, "device", "provider", "format"),
        ),
        Family(
            "model_memory_usage_bytes",
            "gauge",
            "Memory that the model holds, by device, in bytes.",
            labels=(*SERVICE_LABELS, "device"),
        ),
        Family(
            "vram_allocated_bytes",
            "gauge",
            "Memory that PyTorch has given to tensors on a GPU, in bytes.",
            labels=DEVICE_LABELS,
        ),
        Family(
            "model_accuracy_score",
            "gauge",
            "How good the model is by the measure of its service, 0 to 1.",
            across="mostrecent",
        ),
        Family(
            "http_requests_total",
            "counter",
            "HTTP requests by method, route template and status; status 499 is a client that left before the answer.",
            labels=(*HTTP_LABELS, "status"),
        ),
        Family(
            "http_request_duration_seconds",
            "histogram",
            "Time from the start of an HTTP request to the last byte of its response, in seconds.",
            labels=HTTP_LABELS,
            edges=buckets.REQUEST_SECONDS,
        ),
        Family(
            "http_request_size_bytes",
            "histogram",
            "Size of the body of an HTTP request, in bytes.",
            labels=HTTP_LABELS,
            edges=buckets.REQUEST_BYTES,
        ),
        Family(
            "http_requests_in_flight",
            "gauge",
            "HTTP requests that came in and whose response is not complete.",
            labels=("service",),
        ),
        Family(
            "websocket_connections_active",
            "gauge",
            "WebSocket connections that were accepted and are not closed.",
            labels=("service",),
        ),
        Family("cache_hits_total", "counter", "Look-ups that found their answer in the cache.", labels=CACHE_LABELS),
        Family("cache_misses_total", "counter", "Look-ups that found nothing in the cache.", labels=CACHE_LABELS),
        Family(
            "infermeter_build_info",
            "info",
            "The infermeter library of this process.",
            labels=("version", "python_version"),
        ),
        Family(
            "infermeter_observations_dropped_total",
            "counter",
            "Observations that were refused instead of recorded, by reason.",
            labels=("reason",),
        ),
        Family(
            "infermeter_label_values_folded_total",
            "counter",
            "Times that a label value beyond its limit was recorded under the value for the rest.",
            labels=("label",),
        ),
        Family(
            "infermeter_fold_seconds",
            "summary",
            "Time spent on turning recorded inferences into totals, in seconds.",
            labels=(),
        ),
        Family(
            "infermeter_processes",
            "gauge",
            "Living processes that share the multi-process folder and have recorded or shown something.",
            labels=(),
        ),
        Family(
            "infermeter_files_skipped",
            "gauge",
            "Files of the multi-process folder that cannot be read, so that what they hold is missing from this page.",
            labels=(),
        ),
    )
}
