"""The file schema ``noisekit-1`` as data: every group, variable, axis, unit and attribute of a result file.

A file is an xarray ``DataTree``. No coordinate stands at the root, because children inherit coordinates and
would have to agree on them: each group carries its own axes. ``*`` in a path stands for an optimizer's name.
"""

from __future__ import annotations

from noisekit.results.experiment_schema import EXPERIMENT_AXES, EXPERIMENTS
from noisekit.results.truth_schema import TRUTH, TRUTH_AXES
from noisekit.results.variables import C25, COORDINATE, M18, TIME, TIME_STEP, Group, Variable

__all__ = [
    "AXES",
    "COMPARISON_ATTRIBUTES",
    "GROUPS",
    "ROOT_ATTRIBUTES",
    "SCHEMA",
    "TRAJECTORY_ATTRIBUTES",
    "Group",
    "Variable",
    "find_group",
]

SCHEMA = "noisekit-1"

AXES: dict[str, str] = {
    "step": "optimizer step at which a batch was recorded",
    "time": "saved instants, t = ηk",
    "sample": "training examples of one recorded batch",
    "replicate": "independent runs or paths",
    "coordinate": "recorded parameters, by flat position in the concatenation of the blocks",
    "block": "named parameter tensor",
    "component": "eigenvalues, largest first",
    "projection": "sketch dimensions",
    "estimator": "tail-index estimator",
    "quantile": "probability of a quantile, over coordinates or over replicates",
    "bound": "lower and upper end of a 95 % interval",
    "observable": "function of the parameters that is compared, such as the loss",
    "gauge": "number that says whether the theory holds here",
    "phase": "phase of SignSGD: 1 far from, 2 near, 3 inside the noise",
    **EXPERIMENT_AXES,
    **TRUTH_AXES,
}


_STEP = Variable(("step",), "optimizer step", symbol="k", kind="int")
_BLOCK = Variable(("block",), "parameter tensor", kind="str")
_BOUND = Variable(("bound",), "end of the 95 % interval", kind="str")
_COORDINATE_BLOCK = Variable(("coordinate",), "parameter tensor that the coordinate belongs to", kind="str")
_OBSERVABLE = Variable(("observable",), "observable", kind="str")

_TRAJECTORY = Group(
    "Trajectories over replicates; the same variables for the SDE and for the real optimizer",
    {
        "time": TIME,
        "step": TIME_STEP,
        "replicate": Variable(("replicate",), "replicate", kind="int"),
        "quantile": Variable(("quantile",), "probability"),
    },
    {
        "loss": Variable(
            ("replicate", "time"), "loss over all training samples of the problem", symbol="f(x)"
        ),
        "diverged": Variable(("replicate",), "first bad optimizer step, -1 where there is none", kind="int"),
        "x": Variable(("replicate", "time", "coordinate"), "parameters", symbol="x"),
        "m": Variable(("replicate", "time", "coordinate"), "first moment of the optimizer", symbol="m"),
        "v": Variable(("replicate", "time", "coordinate"), "second moment of the optimizer", symbol="v"),
        "x_mean": Variable(("time", "coordinate"), "mean of the parameters over replicates"),
        "x_variance": Variable(("time", "coordinate"), "variance of the parameters over replicates"),
        "x_quantile": Variable(
            ("quantile", "time", "coordinate"), "quantiles of the parameters over replicates"
        ),
    },
    open_dims=("replicate", "time"),
)


def _fit_variables(*dims: str) -> dict[str, Variable]:
    """Return the variables of a fit of every coordinate."""
    return {
        "location": Variable(dims, "location", symbol="μ"),
        "scale": Variable(dims, "scale", symbol="s"),
        "df": Variable(dims, "degrees of freedom (Student-t fit); inf is the Gaussian", symbol="ν"),
        "df_interval": Variable((*dims, "bound"), "95 % interval of the degrees of freedom"),
        "log_likelihood": Variable(dims, "log-likelihood of the fit"),
        "p_value": Variable(dims, "p-value of the Gaussian against the Student-t", symbol="p"),
        "q_value": Variable(dims, "p-value corrected over coordinates (Benjamini–Hochberg)", symbol="q"),
        "is_set_aside": Variable(
            dims, "1 where values are constant or repeat and no law is fitted", kind="int"
        ),
        "is_heavy_tailed": Variable(
            dims, "1 where the Gaussian is rejected at a false-discovery rate of 5 %", kind="int"
        ),
    }


GROUPS: dict[str, Group] = {
    "/training": Group(
        "The recorded training run",
        {"step": _STEP},
        {
            "loss": Variable(("step",), "training loss of the recorded batch", symbol="f"),
            "learning_rate": Variable(("step",), "learning rate", symbol="η"),
            "gradient_norm": Variable(("step",), "norm of the batch-mean gradient", symbol="|ḡ|"),
            "elapsed_time": Variable(("step",), "time since the recorder was attached", "s"),
            "applied_scale": Variable(
                ("step",),
                "gradient p that the optimizer was given, after clipping and factors, over the batch-mean "
                "gradient: ⟨p, ḡ⟩/|ḡ|²; 1 for the mean itself, NaN where p is not known",
                symbol="c",
            ),
            "applied_cosine": Variable(("step",), "cosine of the angle between p and ḡ"),
        },
    ),
    "/gradient_noise": Group(
        "Noise of one sample's gradient; divide a trace by the batch size for a minibatch",
        {
            "step": _STEP,
            "block": _BLOCK,
            "component": Variable(("component",), "rank of the eigenvalue", kind="int"),
            "quantile": Variable(("quantile",), "probability"),
            "bound": _BOUND,
        },
        {
            "block_size": Variable(("block",), "number of parameters of the block", kind="int"),
            "trace": Variable(
                ("step", "block"), "trace of the per-sample gradient covariance", symbol="tr Σ₁"
            ),
            "deviation_sum": Variable(
                ("step", "block"),
                "sum over the block's parameters of the standard deviation of one sample's gradient",
                symbol="Σ σ",
            ),
            "mean_squared_norm": Variable(
                ("step", "block"),
                "squared norm of the batch-mean gradient, biased upwards by tr Σ₁/B",
                symbol="|ḡ|²",
            ),
            "signal_to_noise": Variable(
                ("step", "block"),
                "signal over noise of a batch: (|ḡ|² − tr Σ₁/B)/(tr Σ₁/B); negative when no signal is seen",
                symbol="SNR",
            ),
            "noise_scale": Variable(
                ("step", "block"),
                "gradient noise scale at the step, tr Σ₁/|∇f|², both smoothed over the recorded steps; "
                "NaN when no signal is seen",
                "samples",
                "B_simple",
                M18,
            ),
            "noise_scale_interval": Variable(
                ("step", "block", "bound"), "95 % interval of the noise scale", "samples", references=M18
            ),
            "total_noise_scale": Variable(
                ("step",), "gradient noise scale of all blocks together", "samples", "B_simple", M18
            ),
            "total_noise_scale_interval": Variable(
                ("step", "bound"), "95 % interval of the total noise scale", "samples", references=M18
            ),
            "pooled_noise_scale": Variable(
                (), "gradient noise scale, ratio of averages over all steps", "samples", "B_simple", M18
            ),
            "pooled_noise_scale_interval": Variable(
                ("bound",), "95 % interval of the pooled noise scale", "samples", references=M18
            ),
            "eigenvalue": Variable(
                ("step", "component"), "eigenvalues of the per-sample gradient covariance", symbol="λ(Σ₁)"
            ),
            "variance_quantile": Variable(
                ("step", "quantile"),
                "quantiles of the per-sample variance over recorded coordinates",
                symbol="diag Σ₁",
            ),
            "mean_gradient_error": Variable(
                ("step",), "relative difference of the mean per-sample gradient and the training gradient"
            ),
        },
    ),
    "/gradient_noise/samples": Group(
        "Per-sample values",
        {"step": _STEP, "coordinate": COORDINATE, "coordinate_block": _COORDINATE_BLOCK},
        {
            "noise": Variable(
                ("step", "sample", "coordinate"), "per-sample gradient minus the batch mean", symbol="g_i − ḡ"
            ),
            "sketch": Variable(
                ("step", "sample", "projection"),
                "sketch of the per-sample gradient: E[s_i·s_j] = g_i·g_j",
                symbol="s_i",
            ),
            "squared_norm": Variable(
                ("step", "sample"), "squared norm of a sample's gradient", symbol="|g_i|²"
            ),
        },
    ),
    "/tail_index": Group(
        "Extreme-value tail index of the noise, standardised per coordinate and pooled over a block",
        {
            "step": _STEP,
            "block": _BLOCK,
            "estimator": Variable(("estimator",), "estimator", kind="str"),
            "bound": _BOUND,
        },
        {
            "alpha": Variable(
                ("step", "block", "estimator"),
                "tail index; the noise has finite moments below it",
                symbol="α",
            ),
            "alpha_interval": Variable(
                ("step", "block", "estimator", "bound"), "95 % interval of the tail index"
            ),
            "k": Variable(
                ("step", "block", "estimator"),
                "number of exceedances used of each coordinate",
                "samples",
                symbol="k",
                kind="int",
            ),
        },
    ),
    "/noise_model": Group(
        "Gaussian or Student-t fit of each recorded coordinate of the per-sample noise",
        {"step": _STEP, "coordinate": COORDINATE, "coordinate_block": _COORDINATE_BLOCK, "bound": _BOUND},
        _fit_variables("step", "coordinate"),
    ),
    "/minibatch_noise": Group(
        "Noise of the gradient of a minibatch where training ended, and its fit in each coordinate",
        {"coordinate": COORDINATE, "coordinate_block": _COORDINATE_BLOCK, "bound": _BOUND},
        {
            "noise": Variable(
                ("sample", "coordinate"),
                "gradient of a minibatch minus the mean over minibatches",
                symbol="Z",
            ),
            **_fit_variables("coordinate"),
        },
    ),
    "/sde/*": _TRAJECTORY,
    "/optimizer/*": _TRAJECTORY,
    "/theory/*": Group(
        "What closed forms say about the optimizer, and whether they apply",
        {
            "time": TIME,
            "step": TIME_STEP,
            "gauge": Variable(("gauge",), "gauge", kind="str"),
            "phase": Variable(("phase",), "phase of SignSGD", kind="int"),
            "coordinate": Variable(("coordinate",), "coordinate", kind="int"),
            "bound": _BOUND,
        },
        {
            "noise_floor": Variable((), "stationary excess loss that the noise alone sets", references=C25),
            "loss_bound": Variable(("time",), "upper bound of the mean excess loss", references=C25),
            "stationary_variance": Variable(
                ("coordinate",), "stationary variance of the parameters", references=C25
            ),
            "phase_fraction": Variable(("phase",), "fraction of coordinates in the phase", references=C25),
            "gauge_value": Variable(("gauge",), "value of the gauge"),
            "gauge_interval": Variable(
                ("gauge", "bound"), "95 % interval of a gauge that is estimated; none where it is exact"
            ),
            "gauge_limit": Variable(("gauge",), "value at which the gauge warns"),
            "gauge_symbol": Variable(("gauge",), "formula of the gauge", kind="str"),
            "gauge_verdict": Variable(("gauge",), "ok, warning or refused", kind="str"),
            "gauge_meaning": Variable(("gauge",), "what the value says", kind="str"),
        },
    ),
    "/comparison/*": Group(
        "The SDE's prediction against real runs of the optimizer",
        {"time": TIME, "step": TIME_STEP, "observable": _OBSERVABLE},
        {
            "prediction_mean": Variable(("observable", "time"), "mean over SDE paths"),
            "prediction_std": Variable(("observable", "time"), "standard deviation over SDE paths"),
            "reference_mean": Variable(("observable", "time"), "mean over real runs"),
            "reference_std": Variable(("observable", "time"), "standard deviation over real runs"),
            "gap": Variable(("observable", "time"), "prediction minus reference, means"),
            "standard_error": Variable(("observable", "time"), "Monte-Carlo standard error of the gap"),
            "discretisation_error": Variable(("observable", "time"), "SDE mean at dt minus SDE mean at dt/2"),
            "relative_gap": Variable(("observable", "time"), "gap over the magnitude of the reference"),
            "relative_gap_error": Variable(("observable", "time"), "standard error of the relative gap"),
            "gap_in_std": Variable(("observable", "time"), "gap in standard deviations of the real runs"),
            "std_ratio": Variable(
                ("observable", "time"), "standard deviation of the prediction over the reference's"
            ),
            "std_ratio_error": Variable(("observable", "time"), "standard error of that ratio"),
            "prediction_kurtosis": Variable(("observable", "time"), "kurtosis over SDE paths"),
            "reference_kurtosis": Variable(("observable", "time"), "kurtosis over real runs"),
            "mean_relative_gap": Variable(
                ("observable",), "mean over time of |gap| over the mean over time of |reference mean|"
            ),
            "max_relative_gap": Variable(
                ("observable",), "largest |gap| over time over the mean over time of |reference mean|"
            ),
            "mean_standard_error": Variable(
                ("observable",), "Monte-Carlo error in the units of the mean relative gap"
            ),
            "mean_discretisation_error": Variable(
                ("observable",), "discretisation error in the units of the mean relative gap"
            ),
            "mean_gap_in_std": Variable(("observable",), "mean over time of |gap| in standard deviations"),
            "mean_gap_in_change": Variable(
                ("observable",),
                "mean over time of |gap| over how far the reference moves; NaN at rest",
            ),
            "mean_std_ratio": Variable(
                ("observable",), "geometric mean over time of the ratio of standard deviations"
            ),
            "verdict": Variable(("observable",), "held, unclear or missed", kind="str"),
            "verdict_text": Variable(
                ("observable",), "whether the prediction held, in a sentence", kind="str"
            ),
        },
    ),
    **EXPERIMENTS,
    **TRUTH,
}

ROOT_ATTRIBUTES: dict[str, str] = {
    "Conventions": "name of this schema",
    "title": "what the file is",
    "history": "one line for each thing done to the file",
    "created_at": "UTC time, ISO 8601",
    "versions": "JSON: versions of noisekit and of what it computes with",
    "device": "kind of device",
    "dtype": "floating-point type of the parameters",
    "seed": "seed of the study",
    "deterministic": "1 if torch's deterministic algorithms were on",
    "git_commit": "commit of noisekit's source, or empty",
    "command": "the command line that repeats the study, or empty",
    "config_json": "JSON: the configuration of the study",
    "problem": "name of the problem",
    "dataset": "name of the data set",
    "dataset_sha256": "hash of the data file, or empty",
    "sampling": "how minibatches are drawn: with-replacement or without-replacement",
    "batch_size": "samples in a minibatch of the compared optimizers",
    "n_samples": "training samples of the problem in which optimizers are compared",
    "n_parameters": "number of trainable parameters",
    "loss_reduction": "mean: losses and gradients are means over samples",
    "noise_definition": "what the noise is measured against",
}

TRAJECTORY_ATTRIBUTES: dict[str, str] = {
    "optimizer": "name of the optimizer",
    "kind": "sde, surrogate (one step of integration for one optimizer step) or optimizer",
    "learning_rate": "η",
    "substeps": "integration steps for one optimizer step, dt = η/substeps",
    "seed": "seed of the paths or runs",
    "n_diverged": "number of replicates that diverged",
    "settings_json": "JSON: hyper-parameters, variant, solver, noise, batch size",
}

COMPARISON_ATTRIBUTES: dict[str, str] = {
    "optimizer": "name of the optimizer",
    "prediction_kind": "sde or surrogate",
    "n_prediction": "number of SDE paths",
    "n_reference": "number of real runs",
    "paired": "1 if path i and run i started from one state, which the errors then take into account",
    "verdict": "held, unclear or missed",
    "verdict_text": "whether the prediction held, in a sentence",
}


def find_group(path: str) -> Group | None:
    """Return the schema's group for ``path`` such as ``/sde/adam``, or None if the schema has none.

    >>> find_group("/sde/adam") is GROUPS["/sde/*"]
    True
    """
    path = "/" + path.strip("/")
    return GROUPS.get(path) or GROUPS.get(path.rsplit("/", 1)[0] + "/*")
