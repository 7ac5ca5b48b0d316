"""The part of the schema that a study of truth fills: predictions of many kinds beside real runs."""

from __future__ import annotations

from noisekit.results.variables import TIME, TIME_STEP, Group, Variable

TRUTH_AXES = {"arm": "prediction set beside the real runs: an SDE variant, a fitted noise, a control"}

_ARM, _EACH, _CURVE = ("arm",), ("arm", "observable"), ("arm", "observable", "time")
_NULL = "the same between two samples of one law, of the same sizes"

TRUTH = {
    "/truth/*": Group(
        "One optimizer on one problem: predictions beside real runs that start from the same states",
        {
            "arm": Variable(_ARM, "prediction", kind="str"),
            "observable": Variable(("observable",), "observable", kind="str"),
            "time": TIME,
            "step": TIME_STEP,
            "quantile": Variable(("quantile",), "probability"),
        },
        {
            "meaning": Variable(_ARM, "what the prediction is", kind="str"),
            "arm_kind": Variable(_ARM, "prediction, check, fitted or control", kind="str"),
            "refusal": Variable(_ARM, "why the prediction does not exist, empty where it does", kind="str"),
            "gap": Variable(
                _EACH, "mean over time of |gap of the means| over the mean over time of |reference mean|"
            ),
            "gap_error": Variable(_EACH, "Monte-Carlo error of the gap of the means, in the same units"),
            "worst_gap": Variable(
                _EACH, "largest |gap| over the reference mean at that instant, which a mean over time hides"
            ),
            "worst_gap_error": Variable(_EACH, "Monte-Carlo error of the gap at that instant, likewise"),
            "limit_gap": Variable(
                _EACH, "the gap extrapolated to dt → 0 from dt and dt/2; NaN where only one was run"
            ),
            "limit_gap_error": Variable(_EACH, "Monte-Carlo error of the extrapolated gap"),
            "discretisation_error": Variable(_EACH, "the same for the prediction at dt and at dt/2"),
            "gap_in_std": Variable(_EACH, "mean over time of |gap| in standard deviations of the real runs"),
            "std_ratio": Variable(_EACH, "geometric mean over time of the ratio of standard deviations"),
            "std_ratio_error": Variable(_EACH, "standard error of that ratio"),
            "wasserstein": Variable(_ARM, "Wasserstein-1 distance of the last losses, in their std"),
            "wasserstein_null": Variable(_ARM, _NULL),
            "hitting_level": Variable(_ARM, "loss whose first passage is compared"),
            "hitting_distance": Variable(
                _ARM, "Kolmogorov–Smirnov distance of the first saved instants below it"
            ),
            "hitting_p_value": Variable(_ARM, "probability of such a distance if both had one law"),
            "parameter_mean_distance": Variable(
                _ARM, "distance of the mean parameters at the end, in √(total variance of the real runs)"
            ),
            "parameter_mean_null": Variable(_ARM, _NULL),
            "parameter_variance_ratio": Variable(_ARM, "ratio of the total parameter variances at the end"),
            "covariance_distance": Variable(
                _ARM, "relative Frobenius distance of the parameter covariances at the end"
            ),
            "covariance_null": Variable(_ARM, _NULL),
            "n_diverged": Variable(_ARM, "paths that diverged", kind="int"),
            "cpu_seconds": Variable(_ARM, "processor time of the paths", units="s"),
            "prediction_mean": Variable(_CURVE, "mean over paths"),
            "prediction_std": Variable(_CURVE, "standard deviation over paths"),
            "prediction_quantile": Variable(("arm", "quantile", "time"), "quantile of the loss over paths"),
            "reference_mean": Variable(("observable", "time"), "mean over real runs"),
            "reference_std": Variable(("observable", "time"), "standard deviation over real runs"),
            "reference_quantile": Variable(("quantile", "time"), "quantile of the loss over real runs"),
        },
    ),
    "/insight/*": Group(
        "One published insight as a small experiment. Variables and axes are its own, each with its "
        "long_name and units; the attributes are `claim`, what was to be shown, `finding` (held, held in "
        "part or failed, by a rule in the code), `verdict`, what came out in numbers, and `settings` (JSON), "
        "what repeats it",
        {},
        {},
    ),
}
