"""Every metric of the drift exporter, once. Statistics of a window that says too little are absent, never 0."""

from typing import Literal

from infermeter_exporters.families import Family, by_name

SERIES = ("service", "model", "feature", "baseline")
MODEL = ("service", "model")


def _of_series(name: str, text: str, source: str = "", labels: tuple[str, ...] = ()) -> Family:
    return Family("drift_" + name, "gauge", text, (*SERIES, *labels), source)


def _exporter(name: str, kind: Literal["gauge", "counter", "info"], text: str, labels: tuple[str, ...] = ()) -> Family:
    return Family("drift_" + name, kind, text, labels)


FAMILIES: dict[str, Family] = by_name(
    # --- the verdict ------------------------------------------------------------------------------------------------
    _of_series(
        "active",
        "Whether the feature drifts, 0 or 1; it holds through windows that say too little.",
        "effect, significance and size in 2 of 3 windows",
    ),
    Family("drift_detected_total", "counter", "Episodes of drift that began.", SERIES, "rising edges of drift_active"),
    _of_series(
        "status",
        "The state of the newest window as 1, every other one as 0; ok and constant ones are compared.",
        labels=("state",),
    ),
    _of_series(
        "evidence",
        "Natural logarithm of the evidence gathered over windows against no drift, 0 or more; 6.9 is 1000 to 1.",
        "e-detector over histograms (Shin, Ramdas and Rinaldo)",
    ),
    # --- statistics of the window -----------------------------------------------------------------------------------
    _of_series("psi", "Population stability index of the window against the baseline, 0 or more.", "Siddiqi (2006)"),
    _of_series(
        "psi_noise_floor", "What the index is on average without any drift, at so many observations.", "Yurdakul (2018)"
    ),
    _of_series("psi_pvalue", "Probability of such an index without drift, 0 to 1.", "chi-square, bins pooled"),
    _of_series(
        "pvalue",
        "Probability of such a difference without drift, adjusted for all features of the model: what decides.",
        "chi-square over fine and coarse bins; Benjamini-Hochberg (1995)",
    ),
    _of_series(
        "kl_divergence", "Kullback-Leibler divergence KL(current, baseline) in nats, 0 or more.", "Jeffreys prior"
    ),
    _of_series("js_divergence", "Jensen-Shannon divergence in nats, 0 to ln 2.", "Lin (1991)"),
    _of_series("hellinger", "Hellinger distance, 0 to 1.", "Hellinger (1909)"),
    _of_series("tvd", "Total variation distance, the part that moved, 0 to 1.", "Levin, Peres and Wilmer (2017)"),
    _of_series("ks_statistic", "Widest gap between the cumulative distributions, 0 to 1.", "Smirnov (1948)"),
    _of_series("ks_pvalue", "Probability of such a gap without drift, 0 to 1.", "Kolmogorov (1933)"),
    _of_series(
        "wasserstein",
        "Wasserstein distance W1, in the unit of the feature; values out of range count as at its end.",
        "Vallender (1974)",
    ),
    _of_series("chi2", "Chi-square of homogeneity, bins pooled until 5 are expected in each.", "Pearson (1900)"),
    _of_series("chi2_pvalue", "Probability of such a chi-square without drift, 0 to 1.", "bins pooled"),
    _of_series(
        "mmd",
        "Maximum mean discrepancy of an embedding, what chance adds to it taken off, 0 to the root of 2.",
        "Gretton and others (2012)",
    ),
    _of_series("mmd_pvalue", "Probability of such a discrepancy without drift, 0 to 1.", "Buckley and Eagleson (1988)"),
    _of_series(
        "dimensions_moved_ratio",
        "Part of the dimensions of an embedding whose mean moved, 0 to 1.",
        "chi-square, adjusted",
    ),
    _of_series("largest_move", "Largest move of the mean of a dimension, in standard deviations of the baseline."),
    _of_series("samples", "Observations, of the window (current) or the baseline (reference).", "", ("window",)),
    _of_series(
        "dispersion",
        "How much more the baseline varies than independent observations would, 1 or more; tests count so many less.",
        "Rao and Scott (1981)",
    ),
    _of_series("bins", "Bins of which statistics are made."),
    _of_series("non_finite_ratio", "Part of all values that is NaN, infinite or missing, 0 to 1."),
    _of_series("out_of_range_ratio", "Part of numbers outside of the range of the baseline, 0 to 1."),
    _of_series("new_category_ratio", "Part of words that the baseline does not have, 0 to 1."),
    _of_series("baseline_age_seconds", "Seconds since the end of a baseline that has a name."),
    # --- accuracy ---------------------------------------------------------------------------------------------------
    Family(
        "drift_current_accuracy",
        "gauge",
        "Accuracy in the window, 0 to 1: by labels, or estimated from confidences (blind to concept drift).",
        (*MODEL, "method"),
        "labels joined by id; Guerra and others (2022) on buckets",
    ),
    Family(
        "model_accuracy",
        "gauge",
        "Part of labelled predictions of the last day (or labels.window) that was right, 0 to 1.",
        MODEL,
    ),
    Family("model_accuracy_lower", "gauge", "Lower bound of 95 % of model_accuracy, 0 to 1.", MODEL, "Wilson (1927)"),
    Family("model_accuracy_upper", "gauge", "Upper bound of 95 % of model_accuracy, 0 to 1.", MODEL, "Wilson (1927)"),
    Family("model_accuracy_labels", "gauge", "Labelled predictions of which model_accuracy is made.", MODEL),
    Family(
        "model_label_coverage_ratio",
        "gauge",
        "Part of the predictions of that time that has a label, 0 to 1.",
        MODEL,
    ),
    Family("model_label_lag_seconds", "gauge", "Mean seconds from a prediction to its label.", MODEL),
    # --- what follows -----------------------------------------------------------------------------------------------
    Family(
        "finetuning_triggers_total",
        "counter",
        "Triggers of a fine-tuning, by drift (automatic) or by somebody (manual).",
        (*MODEL, "trigger"),
    ),
    _exporter("triggers", "gauge", "Triggers by what became of them.", ("state",)),
    # --- the exporter -----------------------------------------------------------------------------------------------
    _exporter("source_up", "gauge", "Whether the source could be asked the last time, 0 or 1.", ("source",)),
    _exporter("source_errors_total", "counter", "Times that a source could not be asked.", ("source", "reason")),
    _exporter(
        "last_success_timestamp_seconds", "gauge", "End of the last window that was evaluated, since 1970.", ("source",)
    ),
    _exporter(
        "evaluation_duration_seconds",
        "gauge",
        "Seconds of the last evaluation: waiting for the source, reading its answers, statistics, the store.",
        ("source", "part"),
    ),
    _exporter("windows_total", "counter", "Windows that ended, decided or skipped as too old.", ("source", "outcome")),
    _exporter(
        "received_samples_total",
        "counter",
        "Samples that were taken; messages, files and rows that were not; by what became of them.",
        ("source", "outcome"),
    ),
    _exporter(
        "labels_total",
        "counter",
        "Labels that were taken, and messages of them that were not, by what became of them.",
        ("outcome",),
    ),
    _exporter("exporter_config_last_reload_successful", "gauge", "Whether the configuration could be read, 0 or 1."),
    Family(
        "drift_exporter_build_info",
        "info",
        "The release of the exporter, and its Python.",
        ("version", "python_version"),
    ),
)
