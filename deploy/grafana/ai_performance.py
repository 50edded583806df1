"""The dashboard AI Processing Performance: how fast, how sure and how costly each model is, and which one is better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from deploy.grafana.board import Row, board
from deploy.grafana.panels import Column, Query, comparison, distribution, distribution_over_time, number, time_series
from deploy.grafana.selection import ALERTED, MODEL, STEP, Selection, total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

CHOSEN = Selection("inferences_total", ("job", "instance", "service", "model"))
NAME = "{{service}} / {{model}}"

FAILED = 'error_type!="cancelled"'
CANCELLED = 'error_type="cancelled"'

# Over the window of the alerts, for numbers and the table.
RATE = CHOSEN.rate("inferences_total", window=ALERTED)
P50 = CHOSEN.quantile(0.5, "inference_duration", window=ALERTED)
P95 = CHOSEN.quantile(0.95, "inference_duration", window=ALERTED)
ERRORS = CHOSEN.ratio("model_errors_total", "inferences_total", FAILED, window=ALERTED)
CONFIDENCE = CHOSEN.mean("detection_confidence", window=ALERTED)
OBJECTS = CHOSEN.mean("objects_per_frame", window=ALERTED)
PER_THOUSAND = f"1000 * {CHOSEN.mean('inference_cost', window=ALERTED)}"
ACCURACY = f"avg by ({MODEL}) ({CHOSEN.series('model_accuracy_score')})"
MEMORY = total(CHOSEN.series("model_memory_usage_bytes"))


def ai_performance() -> str:
    """The dashboard as Grafana reads it."""
    return board(
        uid="infermeter-ai-performance",
        title="AI Processing Performance",
        description="Latency, traffic, errors, detection quality, cost and serving of AI services, by model.",
        tags=("ai", "inference"),
        selection=CHOSEN,
        rows=(
            Row("Overview", overview()),
            Row("Latency, traffic and errors", latency()),
            Row("Detections", detections()),
            Row("Comparison", models()),
            Row("Cost", cost()),
            Row("Serving", serving()),
        ),
    )


def overview() -> Sequence[Builder[Panel]]:
    """What the first look asks: does it run, does it work, is it fast, what does it cost."""
    return (
        number(
            "Models at work",
            "Models that finished an inference in the last 5 minutes.",
            "short",
            Query(total(f"{RATE} > bool 0", by=""), ""),
        ),
        number(
            "Inferences per second",
            "Over the last 5 minutes, failed ones included, all models together.",
            "reqps",
            Query(CHOSEN.rate("inferences_total", by="", window=ALERTED), ""),
        ),
        number(
            "In flight",
            "Inferences that started and have not finished, all models together. Growing at a steady rate: too slow.",
            "short",
            Query(total(CHOSEN.series("inferences_in_flight"), by=""), ""),
        ),
        number(
            "Error ratio, worst model",
            "Share of inferences that raised over the last 5 minutes, cancelled ones left out, of the model with most.",
            "percentunit",
            Query(f"topk(1, {ERRORS})", NAME),
            alert="InferenceErrorsHigh",
        ),
        number(
            "p95 latency, slowest model",
            "Within this time ended 95 of 100 inferences of the last 5 minutes, of the slowest model.",
            "s",
            Query(f"topk(1, {P95})", NAME),
            alert="InferenceLatencyHigh",
        ),
        number(
            "USD per 1,000 inferences",
            "Marginal cost (time, energy, tokens) over the last 5 minutes, all models together.",
            "currencyUSD",
            Query(f"1000 * {CHOSEN.mean('inference_cost', by='', window=ALERTED)}", ""),
        ),
    )


def latency() -> Sequence[Builder[Panel]]:
    """How long inferences take, how many there are, and how many fail."""
    quantiles = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    stages = CHOSEN.quantile(0.95, "inference_stage_duration_seconds", by=f"{MODEL}, stage")
    return (
        time_series(
            "Latency by model",
            "Within this time ended 50, 95 and 99 of 100 inferences, failed ones included.",
            "s",
            *(Query(CHOSEN.quantile(q, "inference_duration"), f"{NAME} {name}") for q, name in quantiles),
            alert="InferenceLatencyHigh",
        ),
        distribution_over_time(
            "Latency distribution",
            "How many inferences a second took how long. Two bands are two kinds of work: choose one model to see why.",
            "s",
            CHOSEN.rate("inference_duration_bucket", by="le"),
        ),
        time_series(
            "p95 latency by stage",
            "Within this time ended 95 of 100 runs of a stage: which part of a slow inference is slow.",
            "s",
            Query(stages, f"{NAME} {{{{stage}}}}"),
        ),
        time_series(
            "Inferences per second by model",
            "Inferences that finished, failed ones included.",
            "reqps",
            Query(CHOSEN.rate("inferences_total"), NAME),
        ),
        time_series(
            "Error ratio by model",
            "Share of inferences that raised, cancelled ones left out.",
            "percentunit",
            Query(CHOSEN.ratio("model_errors_total", "inferences_total", FAILED), NAME),
            alert="InferenceErrorsHigh",
        ),
        time_series(
            "Errors per second by type",
            "What inferences raised. Cancelled ones are no failures of the model: who asked did not wait.",
            "cps",
            Query(CHOSEN.rate("model_errors_total", FAILED, by="error_type"), "{{error_type}}"),
            Query(CHOSEN.rate("model_errors_total", CANCELLED, by="error_type"), "{{error_type}}"),
        ).override_by_query(
            "B",
            [
                DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "gray"}),
                DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
            ],
        ),
    )


def detections() -> Sequence[Builder[Panel]]:
    """How sure the models are, and what they see."""
    # A quantile of each series, then the maximum: the rounding error of a sum of rates could move it to the last edge.
    most = f"histogram_quantile(1, rate({CHOSEN.series('objects_per_frame_bucket')}[{STEP}])) >= 0"
    # A model that names no classes has an empty label, and a line needs a name.
    classes = f'label_replace({CHOSEN.rate("detections_total", by="class")}, "class", "(unnamed)", "class", "")'
    return (
        distribution(
            "Confidence distribution",
            "Detections in the chosen time range, each bar from the edge before to its own: bars differ in width, most "
            "of them lie above 0.9, where overconfident models change. Choose one model, or their sum is shown.",
            "short",
            total(f"increase({CHOSEN.series('detection_confidence_bucket')}[$__range])", by="le"),
        ),
        distribution_over_time(
            "Confidence over time",
            "How many detections a second had which confidence. A band that sinks or widens hints at drift.",
            "none",
            CHOSEN.rate("detection_confidence_bucket", by="le"),
        ),
        time_series(
            "Mean confidence by model",
            "Mean confidence of all detections. The alert ConfidenceDropped watches it against the 6 hours before.",
            "none",
            Query(CHOSEN.mean("detection_confidence"), NAME),
        )
        .span(8)
        .max(1)
        .decimals(3),
        time_series(
            "Objects per frame by model",
            "Mean of all frames, empty ones included, and the upper edge of the bucket of the fullest frame.",
            "short",
            Query(CHOSEN.mean("objects_per_frame"), f"{NAME} mean"),
            Query(f"max by ({MODEL}) ({most})", f"{NAME} upper edge"),
        ).span(8),
        time_series(
            "Detections per second by class",
            "Detections of successful inferences, all models together.",
            "cps",
            Query(classes, "{{class}}"),
        ).span(8),
    )


def models() -> Sequence[Builder[Panel]]:
    """Which model is better, in one line each."""
    return (
        comparison(
            "Models side by side",
            "Over the last 5 minutes; an empty cell was not measured, or the model was idle. Accuracy is what the "
            "service measured, memory that of all instances and devices. Colours: InferenceLatencyHigh (p95) and "
            "InferenceErrorsHigh.",
            Column("Inferences/s", "reqps", RATE),
            Column("p50", "s", P50),
            Column("p95", "s", P95, alert="InferenceLatencyHigh"),
            Column("Error ratio", "percentunit", ERRORS, alert="InferenceErrorsHigh"),
            Column("Confidence", "none", CONFIDENCE),
            Column("Objects/frame", "short", OBJECTS),
            Column("USD per 1,000", "currencyUSD", PER_THOUSAND),
            Column("Accuracy", "percentunit", ACCURACY),
            Column("Memory", "bytes", MEMORY),
        ),
    )


def cost() -> Sequence[Builder[Panel]]:
    """What inferences cost, each and together."""
    spent = f"3600 * {CHOSEN.rate('inference_cost_sum')}"
    stacked = common.StackingConfig().mode(StackingMode.NORMAL)
    return (
        time_series(
            "USD per 1,000 inferences by model",
            "Marginal cost of an inference (its share of the machine's time, energy, tokens), a thousand times.",
            "currencyUSD",
            Query(f"1000 * {CHOSEN.mean('inference_cost')}", NAME),
        ),
        time_series(
            "USD per hour spent on inferences",
            "Marginal cost of all inferences, models on top of each other. The bill of a machine that idles is higher.",
            "currencyUSD",
            Query(spent, NAME),
        )
        .stacking(stacked)
        .fill_opacity(30),
    )


def serving() -> Sequence[Builder[Panel]]:
    """What it takes to have the models answer."""
    seconds, loads = (total(CHOSEN.series(f"model_load_seconds_{part}")) for part in ("sum", "count"))
    return (
        number(
            "Model load time",
            "Mean time from the start of loading until the model could answer, of all loads of the running instances.",
            "s",
            Query(f"{seconds} / ({loads} > 0)", NAME),
        )
        .span(6)
        .height(9),
        time_series(
            "Queue length by model",
            "Items that wait for a model, all instances together.",
            "short",
            Query(total(CHOSEN.series("model_queue_length")), NAME),
        ).span(6),
        time_series(
            "p95 queue wait by model",
            "Within this time 95 of 100 items had left the queue: what waiting adds to the latency.",
            "s",
            Query(CHOSEN.quantile(0.95, "model_queue_wait_seconds"), NAME),
        ).span(6),
        time_series(
            "Accuracy by model",
            "How good a model is by the measure of its service, by version: what a new version changed.",
            "percentunit",
            Query(
                f"avg by ({MODEL}, version) ({CHOSEN.series('model_accuracy_score')})",
                f"{NAME} {{{{version}}}}",
            ),
        )
        .span(6)
        .max(1),
    )
