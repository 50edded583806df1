"""Rules about inferences, and about the library that tells of them, of its own metrics.

Their tests are written by hand: rules/inference.test.yml. Expressions keep to what Prometheus 2.42 understands.
"""

from rules.rule import Alert, Group, Record, RuleFile


def quantile(q: str) -> str:
    """A quantile of the duration per service and model; `>= 0` leaves out the NaN of a model that is idle."""
    return f"histogram_quantile({q}, sum by (service, model, le) (rate(inference_duration_bucket[5m]))) >= 0"


def ratio(part: str, whole: str, by: str = "service, model", window: str = "5m") -> str:
    """One rate in another; absent where the other is 0, because nothing divided by nothing is no news."""
    return f"sum by ({by}) (rate({part}[{window}]))\n/\n(sum by ({by}) (rate({whole}[{window}])) > 0)"


SERIES = "service, model, version"
MODEL_IN_SERVICE = "{{ $labels.model }} in {{ $labels.service }}"

RECORDS = (
    Record("service_model:inferences:rate5m", "inferences per second, failed ones included",
           "sum by (service, model) (rate(inferences_total[5m]))"),
    Record("service_model:inference_duration_seconds:p50_5m", "median duration", quantile("0.5")),
    Record("service_model:inference_duration_seconds:p95_5m", "p95 of the duration", quantile("0.95")),
    Record("service_model:inference_duration_seconds:p99_5m", "p99 of the duration", quantile("0.99")),
    # The first error of a class that was not announced at 0 is invisible to rate(), the second is seen. Counting a
    # series' first value instead would report years of errors when Prometheus first meets an old process.
    Record("service_model:inference_errors:ratio_rate5m", "share of inferences that raised, cancelled ones left out",
           ratio('model_errors_total{error_type!="cancelled"}', "inferences_total")),
    Record("service_model:inference_timeouts:ratio_rate5m", "share of inferences that raised a timeout",
           ratio("model_timeout_total", "inferences_total")),
    Record("objects_per_frame", "mean detections per frame over 1m, for queries that average the bare name",
           ratio("objects_per_frame_sum", "objects_per_frame_count", by=SERIES, window="1m")),
    Record("service_model:inference_cost_usd:per_thousand5m", "marginal USD per 1,000 inferences",
           "1000 * " + ratio("inference_cost_sum", "inference_cost_count")),
    Record("service_model:detection_confidence:mean5m", "mean confidence",
           ratio("detection_confidence_sum", "detection_confidence_count")),
    Record("service_model:detection_confidence_up_to_half:ratio_rate5m", "share of detections of 0.5 or less",
           ratio('detection_confidence_bucket{le="0.5"}', "detection_confidence_count")),
)  # fmt: skip

INFERENCE = (
    Alert(
        "InferenceLatencyHigh",
        "p95 of the duration over 5m is above <value> s",
        "service_model:inference_duration_seconds:p95_5m > <value>",
        "Inference is slow.",
        f"p95 of {MODEL_IN_SERVICE} is {{{{ $value | humanizeDuration }}}}; the limit is <value> s.",
    ),
    Alert(
        "InferenceErrorsHigh",
        "more than <percent> of the inferences of 5m raised; cancelled ones do not count",
        "service_model:inference_errors:ratio_rate5m > <value>",
        "Inferences fail.",
        f"{{{{ $value | humanizePercentage }}}} of the inferences of {MODEL_IN_SERVICE} raised;"
        " the limit is <percent>.",
    ),
    Alert(
        "InferenceTimeouts",
        "more than <percent> of the inferences of 5m raised a timeout",
        "service_model:inference_timeouts:ratio_rate5m > <value>",
        "Inferences time out.",
        f"{{{{ $value | humanizePercentage }}}} of the inferences of {MODEL_IN_SERVICE} timed out;"
        " the limit is <percent>.",
    ),
    # A series is there while its target is scraped and stale as soon as it is not: the last line is "the target is up".
    Alert(
        "ModelSilent",
        "more than <guard> inferences in the last hour, none for 10 minutes, and the target is up",
        "sum by (service, model) (increase(inferences_total[1h])) > <guard>\n"
        "and service_model:inferences:rate5m == <value>\n"
        "and group by (service, model) (inferences_total)",
        "A model stopped inferring.",
        f'{MODEL_IN_SERVICE} ran {{{{ $value | printf "%.0f" }}}} inferences in the last hour, none for 10 minutes.',
    ),
    Alert(
        "NoDetections",
        "frames come and hold no object for 15 minutes; in the hour before it was more than <guard> per frame",
        "sum by (service, model) (increase(objects_per_frame_sum[1h] offset 15m))\n"
        "/ (sum by (service, model) (increase(objects_per_frame_count[1h] offset 15m)) > 0)\n"
        "> <guard>\n"
        "and sum by (service, model) (increase(objects_per_frame_sum[10m])) == <value>\n"
        "and sum by (service, model) (increase(objects_per_frame_count[10m])) > 0",
        "A model sees nothing any more.",
        f"{MODEL_IN_SERVICE} found no object for 15 minutes; in the hour before it was"
        ' {{ $value | printf "%.2f" }} per frame.',
    ),
    # round(): a difference of two means carries the noise of floats, and 0.8 - 0.7 is more than 0.1 to them.
    Alert(
        "ConfidenceDropped",
        "the mean confidence of 10m is more than <value> below that of the 6 hours before, from <guard> detections on",
        "round(\n"
        f"  sum by ({SERIES}) (rate(detection_confidence_sum[6h] offset 10m))\n"
        f"  / (sum by ({SERIES}) (rate(detection_confidence_count[6h] offset 10m)) > 0)\n"
        f"  - sum by ({SERIES}) (rate(detection_confidence_sum[10m]))\n"
        f"  / (sum by ({SERIES}) (rate(detection_confidence_count[10m])) > 0),\n"
        "  0.001\n"
        ") > <value>\n"
        f"and sum by ({SERIES}) (increase(detection_confidence_count[10m])) >= <guard>",
        "A model is less sure than it was.",
        f"The mean confidence of {MODEL_IN_SERVICE} fell by {{{{ $value }}}} against the 6 hours before;"
        " the limit is <value>.",
    ),
)

INSTRUMENTATION = (
    Alert(
        "LabelsClobbered",
        "the scrape configuration sets a target label `service`, so ours arrives as `exported_service`",
        'count by (job, service, exported_service) (inference_duration_count{exported_service!=""}) > <value>',
        "Target labels hide the service's own.",
        'Job {{ $labels.job }} renames service "{{ $labels.exported_service }}" to "{{ $labels.service }}"'
        " on {{ $value }} series.",
    ),
    Alert(
        "FamiliesCountedTwice",
        "more than <value> job scrapes the same instance, so sums count every inference twice",
        f"count by ({SERIES}, instance) (\n"
        f"  group by ({SERIES}, instance, job) (inference_duration_count)\n"
        ") > <value>",
        "Every inference is counted more than once.",
        f"{{{{ $value }}}} jobs scrape {MODEL_IN_SERVICE} at {{{{ $labels.instance }}}}.",
    ),
    Alert(
        "ObservationsDropped",
        "the library refused observations in the last 10m",
        "sum by (job, instance, reason) (increase(infermeter_observations_dropped_total[10m])) > <value>",
        "Observations are refused.",
        "{{ $labels.instance }} dropped observations in 10 minutes:"
        ' {{ $value | printf "%.0f" }} as {{ $labels.reason }}.',
    ),
    Alert(
        "LabelValuesFolded",
        "label values beyond their limit were recorded as `_other` in the last 10m",
        "sum by (job, instance, label) (increase(infermeter_label_values_folded_total[10m])) > <value>",
        "A label has more values than its limit.",
        "{{ $labels.instance }} folded values of label {{ $labels.label }} in 10 minutes:"
        ' {{ $value | printf "%.0f" }} times.',
    ),
)

FILE = RuleFile(
    name="inference",
    recorded="Per `service` and `model`, over 5 minutes, unless it says otherwise.",
    groups=(
        Group("inference", records=RECORDS, alerts=INFERENCE),
        Group("infermeter", alerts=INSTRUMENTATION),
    ),
)
