"""Rules about what the drift exporter says: of drift by its verdicts, of accuracy by its bounds, and of itself.

Their tests are written by hand: rules/drift-exporter.test.yml. Of exporters that share a store all say the same, so
that what is about a model is asked without `instance`. Several of these hold at once where it is bad; which one tells
is decided by the inhibition rules of deploy/compose/alertmanager.yml, not by expressions that exclude each other: an
index that wanders about a limit would end one alert and begin another all day.
"""

from rules.rule import Alert, Group, RuleFile

SERIES = "service, model, feature, baseline"
ACTIVE = f"max by ({SERIES}) (drift_active) == 1"
# Histograms of no model have an empty one.
OWNER = "{{ with $labels.model }}{{ . }} in {{ end }}{{ $labels.service }}"
FEATURE = f"{{{{ $labels.feature }}}} of {OWNER}"
BASELINE = "the baseline {{ $labels.baseline }}"
NONE = "no numbers"
LOST = 'max by (job, state) (drift_triggers{state=~"unknown|given_up|refused"})'


def invalid(ratio: str, what: str) -> str:
    """Where a ratio is high, of enough values; `samples` leaves out those that are no numbers, so they are put back."""
    of_feature = f"max by (service, model, feature) ({ratio})"
    samples = 'max by (service, model, feature) (drift_samples{window="current"})'
    enough = f"{samples} >= <guard> * (1 - {of_feature})" if what == NONE else f"{samples} >= <guard>"
    return f'label_replace({of_feature} > <value> and {enough}, "values", "{what}", "", "")'


DRIFT = (
    Alert(
        "DriftDetected",
        "`drift_active` is 1: size, significance and number of observations agreed in 2 of 3 windows",
        f"max by ({SERIES}) (drift_active) == <value>",
        "A feature drifts.",
        f"{FEATURE} drifts from {BASELINE} (drift_active is {{{{ $value }}}}).",
    ),
    Alert(
        "DriftPsiWarning",
        "a feature drifts, and its population stability index is at least <value>",
        f"max by ({SERIES}) (drift_psi) >= <value>\nand {ACTIVE}",
        "A feature drifts far.",
        f"{FEATURE} drifts from {BASELINE}: its population stability index is"
        ' {{ $value | printf "%.2f" }}; the limit is <value>.',
    ),
    Alert(
        "DriftKlCritical",
        "a feature drifts, and its Kullback-Leibler divergence is at least <value> nats",
        f"max by ({SERIES}) (drift_kl_divergence) >= <value>\nand {ACTIVE}",
        "A feature has values that its baseline hardly has.",
        f"{FEATURE} drifts from {BASELINE}: its Kullback-Leibler divergence is"
        ' {{ $value | printf "%.2f" }} nats; the limit is <value>.',
    ),
    Alert(
        "DriftUnknown",
        "for so long, no window of a feature could be compared: too few observations, no baseline, or other bins",
        f'max by ({SERIES}) (last_over_time(drift_samples{{window="current"}}[1h]))\n'
        f'and max by ({SERIES}) (max_over_time(drift_status{{state=~"ok|constant"}}[1h])) == <value>',
        "Nobody knows whether a feature drifts.",
        f"{FEATURE} cannot be compared with {BASELINE}: see drift_status."
        ' There are {{ $value | printf "%.0f" }} observations in the window.',
    ),
    Alert(
        "DriftValuesInvalid",
        "more than <percent> of the values of a feature are no numbers, or outside of the range of the baseline;"
        " from <guard> values on",
        "\nor\n".join((invalid("drift_non_finite_ratio", NONE), invalid("drift_out_of_range_ratio", "out of range"))),
        "Values of a feature make no sense.",
        f"{{{{ $value | humanizePercentage }}}} of the values of {FEATURE} are {{{{ $labels.values }}}};"
        " the limit is <percent>.",
    ),
    Alert(
        "DriftBaselineOld",
        "a baseline that has a name is of more than <value> days ago",
        "max by (service, model, baseline) (drift_baseline_age_seconds) / 86400 > <value>",
        "A baseline is old.",
        f"{OWNER} is compared with {BASELINE}, which is of"
        ' {{ $value | printf "%.0f" }} days ago; the limit is <value>.',
    ),
)

ACCURACY = (
    Alert(
        "ModelAccuracyLow",
        "the upper bound (95 %, Wilson) of the accuracy over the last day is below <percent>, from <guard> labels on",
        "max by (service, model) (model_accuracy_upper) < <value>\n"
        "and max by (service, model) (model_accuracy_labels) >= <guard>",
        "A model is wrong too often.",
        f"{OWNER} is right in at most {{{{ $value | humanizePercentage }}}} of what has labels;"
        " the limit is <percent>.",
    ),
)

EXPORTER = (
    Alert(
        "DriftSourceDown",
        "a source could not be asked the last time, or its last evaluation is more than <guard> s ago",
        "min by (job, instance, source) (drift_source_up) == <value>\n"
        "or max by (job, instance, source) (time() - drift_last_success_timestamp_seconds) > <guard>",
        "Drift is not looked for.",
        "The source {{ $labels.source }} of {{ $labels.instance }}"
        " {{ if $value }}was evaluated {{ $value | humanizeDuration }} ago{{ else }}cannot be asked{{ end }}.",
    ),
    Alert(
        "FinetuningTriggerLost",
        "within the last day a trigger was refused, was given up, or may not have arrived",
        f"{LOST}\n- min_over_time({LOST}[1d:5m])\n> <value>",
        "A trigger of a fine-tuning is lost.",
        'Of the triggers of the last day {{ $value | printf "%.0f" }} became {{ $labels.state }},'
        " says {{ $labels.job }}.",
    ),
)

FILE = RuleFile(
    name="drift-exporter",
    recorded="",
    groups=(
        Group("drift-exporter", alerts=(*DRIFT, *ACCURACY)),
        Group("drift-exporter-itself", alerts=EXPORTER),
    ),
)
