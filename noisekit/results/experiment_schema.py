"""The groups of experiments over many runs: weak order, sweeps of the noise, batch scaling, phases, rest."""

from __future__ import annotations

from noisekit.results.variables import C25, COORDINATE, TIME, TIME_STEP, Group, Variable

EXPERIMENT_AXES: dict[str, str] = {
    "learning_rate": "learning rates of a weak-order experiment",
    "noise_level": "standard deviation of the gradient noise relative to that of the file",
    "df": "degrees of freedom of Student-t noise",
    "batch_size": "samples in a minibatch",
    "preset": "rule that rescales the hyper-parameters with the batch size",
    "batch_ratio": "batch size relative to the original",
    "other_coordinate": "second coordinate of a covariance",
    "seed": "runs that differ in their seed alone, joined by `nk.concat`: first axis of every variable",
}

_M22 = "Malladi et al. 2022, arXiv:2205.10287"
_LTE = "Li, Tai, E 2019, arXiv:1811.01558"


def _sweep(axis: str, title: str, coordinate: Variable) -> Group:
    """Return the group of floors and speeds of one optimizer along ``axis``."""
    return Group(
        title,
        {axis: coordinate},
        {
            "floor": Variable(
                (axis,), "excess loss at rest, or its mean over the last part of the runs", references=C25
            ),
            "floor_error": Variable(
                (axis,), "standard error of the floor over replicates; 0 where it is computed"
            ),
            "predicted_floor": Variable((axis,), "excess loss at rest that theory predicts"),
            "steps_to_target": Variable(
                (axis,), "steps until the mean loss is below the target; inf if never", "steps"
            ),
            "diverged_fraction": Variable((axis,), "fraction of the replicates that diverged"),
            "source": Variable((axis,), "theory, integration, runs or none", kind="str"),
            "note": Variable((axis,), "what a reader of the number must know", kind="str"),
        },
    )


EXPERIMENTS: dict[str, Group] = {
    "/weak_order/*": Group(
        "Largest gap over time between the SDE and its optimizer as the learning rate falls",
        {"learning_rate": Variable(("learning_rate",), "learning rate", symbol="η")},
        {
            "gap": Variable(
                ("learning_rate",),
                "largest gap over time of the mean of the observable",
                symbol="sup_t |E φ(X_t) − E φ(x_k)|",
                references=_LTE,
            ),
            "gap_error": Variable(("learning_rate",), "Monte-Carlo standard error of the gap"),
            "slope": Variable((), "slope of log gap over log η: the weak order", references=_LTE),
            "slope_error": Variable((), "standard error of the slope"),
        },
    ),
    "/noise_sweep/*": _sweep(
        "noise_level",
        "Floor and speed of an optimizer as the gradient noise grows",
        Variable(("noise_level",), "standard deviation of the noise over that of the file"),
    ),
    "/df_sweep/*": _sweep(
        "df",
        "Floor and speed of an optimizer as the tails of the noise grow heavier",
        Variable(("df",), "degrees of freedom of the noise", symbol="ν"),
    ),
    "/batch_size_sweep/*": _sweep(
        "batch_size",
        "Floor and speed of an optimizer as the batch grows, hyper-parameters fixed",
        Variable(("batch_size",), "samples in a minibatch", "samples", symbol="B", kind="int"),
    ),
    "/batch_scaling/*": Group(
        "Final loss and speed at other batch sizes, hyper-parameters rescaled by a rule",
        {
            "preset": Variable(("preset",), "rule that rescales the hyper-parameters", kind="str"),
            "batch_ratio": Variable(("batch_ratio",), "batch size over the original", symbol="δ"),
        },
        {
            "loss": Variable(
                ("preset", "batch_ratio"), "mean loss over the last part of the runs", references=C25
            ),
            "loss_error": Variable(("preset", "batch_ratio"), "standard error of that loss over replicates"),
            "samples_to_target": Variable(
                ("preset", "batch_ratio"),
                "samples until the mean loss is below the target, in original batches; inf if never",
                "steps",
                references=_M22,
            ),
            "diverged_fraction": Variable(
                ("preset", "batch_ratio"), "fraction of the replicates that diverged"
            ),
        },
    ),
    "/phases/*": Group(
        "Phases of SignSGD along its runs or its SDE, by Y = ∇f/(√2 σ) in each coordinate",
        {
            "time": TIME,
            "step": TIME_STEP,
            "phase": Variable(("phase",), "phase of SignSGD", kind="int"),
            "quantile": Variable(("quantile",), "probability over coordinates and replicates"),
        },
        {
            "phase_fraction": Variable(
                ("time", "phase"),
                "fraction of coordinates in the phase, mean over replicates",
                references=C25,
            ),
            "ratio_quantile": Variable(
                ("time", "quantile"), "quantiles of |Y|", symbol="|Y|", references=C25
            ),
            "excess_loss": Variable(("time",), "mean loss over replicates minus the minimum", symbol="S"),
            "excess_loss_error": Variable(("time",), "standard error of the mean excess loss"),
            "loss_bound": Variable(
                ("phase", "time"),
                "bound of the mean excess loss if all coordinates stay in the phase",
                references=C25,
            ),
        },
    ),
    "/stationary/*": Group(
        "Law in which the parameters come to rest: predicted, and measured at the end of runs",
        {
            "coordinate": COORDINATE,
            "other_coordinate": Variable(("other_coordinate",), "flat position", kind="int"),
        },
        {
            "predicted_mean": Variable(("coordinate",), "mean of the stationary law", symbol="E x∞"),
            "predicted_covariance": Variable(
                ("coordinate", "other_coordinate"),
                "covariance of the stationary law",
                symbol="Cov x∞",
                references=C25,
            ),
            "predicted_variance": Variable(
                ("coordinate",), "variance of the stationary law", symbol="Var x∞", references=C25
            ),
            "published_variance": Variable(
                ("coordinate",), "variance in the closed form of the literature", references=C25
            ),
            "measured_mean": Variable(("coordinate",), "mean over replicates and late instants"),
            "measured_mean_error": Variable(("coordinate",), "standard error of that mean"),
            "measured_variance": Variable(
                ("coordinate",), "variance over replicates, mean over late instants"
            ),
            "measured_variance_error": Variable(("coordinate",), "standard error of that variance"),
            "measured_covariance": Variable(
                ("coordinate", "other_coordinate"), "covariance over replicates, mean over late instants"
            ),
        },
    ),
}
