"""How floor and speed of each optimizer answer to more noise, heavier tails and other batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from noisekit.errors import InfiniteVarianceError, InputError, unknown_name
from noisekit.noise import GaussianNoise, StudentTNoise
from noisekit.noise.base import NoiseModel
from noisekit.problems import Problem, Quadratic
from noisekit.sde import OptimizerSDE, integrate
from noisekit.sde.named import build_sde
from noisekit.theory.hyperparameters import check_hyperparameters
from noisekit.theory.inputs import as_array, check_count, check_optimizer, check_positive
from noisekit.theory.stationary import stationary_law
from noisekit.theory.transient import steps_to_target, transient_law

Sweep = Literal["noise", "df", "batch_size"]
_SETTINGS = ("learning_rate", "betas", "beta", "eps", "weight_decay", "momentum")


@dataclass(frozen=True)
class RobustnessRow:
    """One optimizer at one value of the sweep.

    ``floor`` is the excess loss at rest (from theory) or the mean loss of the last fifth of the run (from
    integration), ``floor_error`` its Monte-Carlo standard error (0 from theory); ``steps_to_target`` inf if
    the mean loss does not get there within the run; all NaN where the variance is infinite and the optimizer
    has no law, as ``note`` then says. ``source`` is "theory", "integration" or "none".
    """

    sweep: str
    value: float
    optimizer: str
    floor: float
    floor_error: float
    steps_to_target: float
    source: str
    note: str


def robustness(
    problem: Problem,
    noise: NoiseModel,
    optimizers: Mapping[str, Mapping[str, Any]],
    *,
    sweep: Sweep,
    values: Sequence[float],
    target: float,
    steps: int,
    replicates: int = 64,
    substeps: int = 2,
    seed: int = 0,
) -> list[RobustnessRow]:
    """Floor and time to a target loss for each optimizer, along a sweep of the noise.

    ``noise`` multiplies all standard deviations (or scales s) by each value; ``df`` replaces the noise by
    independent Student-t of the same scale and ν = value; ``batch_size`` rescales Gaussian noise from its own
    B to each value. On a quadratic the floor is :func:`stationary_law` of the discrete optimizer and the time
    comes from :func:`transient_law`; on any other problem both come from the optimizer's SDE.

    Args:
        problem: a problem; a ``Quadratic`` is done by theory.
        noise: of the minibatch gradient.
        optimizers: name → hyper-parameters, ``learning_rate`` and those of :func:`stationary_law`.
        sweep: what varies; values: where.
        target: loss to reach; steps: length of a run, in optimizer steps.
        replicates, substeps, seed: of the integration, where theory has no answer.

    Returns:
        One row for each value and optimizer. Where the variance is infinite, SGD, RMSprop and Adam get no
        number but a note: there is nothing to draw.

    Raises:
        InputError: Student-t noise in a ``batch_size`` sweep (it does not rescale), unknown names.
    """
    check_positive("target", target)
    if sweep not in ("noise", "df", "batch_size"):
        raise unknown_name("sweep", sweep, ("noise", "df", "batch_size"))
    if not isinstance(optimizers, Mapping) or not all(isinstance(s, Mapping) for s in optimizers.values()):
        raise InputError("optimizers: a dict from name to hyper-parameters is needed, {'sgd': {...}}.")
    steps = check_count("steps", steps)
    run = _Run(target, steps, replicates, substeps, seed)
    rows = []
    for value in as_array("values", values).reshape(-1).tolist():
        changed = _changed(noise, sweep, check_positive(f"value of the sweep {sweep!r}", value))
        for name, settings in optimizers.items():
            known = check_optimizer(name)
            if "learning_rate" not in settings:
                raise InputError(f"The settings of {known} have no learning_rate; give one.")
            for key in settings:
                if key not in _SETTINGS:
                    raise unknown_name(f"setting of {known}", key, _SETTINGS)
            outcome = _outcome(problem, changed, known, dict(settings), run)
            rows.append(RobustnessRow(sweep, float(value), known, *outcome))
    return rows


@dataclass(frozen=True)
class _Run:
    target: float
    steps: int
    replicates: int
    substeps: int
    seed: int


def _changed(noise: NoiseModel, sweep: Sweep, value: float) -> NoiseModel:
    if sweep == "batch_size":
        if not hasattr(noise, "rescale"):
            raise InputError(
                f"{type(noise).__name__} does not rescale with the batch size; give GaussianNoise."
            )
        if value != int(value):
            raise InputError(f"A batch size of {value:g} is not a whole number of samples.")
        return noise.rescale(int(value))
    scale, factor = getattr(noise, "scale", None), getattr(noise, "factor", None)
    if not isinstance(noise, (GaussianNoise, StudentTNoise)):
        raise InputError(
            f"The sweep {sweep!r} needs GaussianNoise or StudentTNoise, not {type(noise).__name__}."
        )
    if sweep == "df":
        if factor is not None or scale is None:
            raise InputError("The sweep 'df' needs noise with independent coordinates, given by scale alone.")
        return StudentTNoise(scale=scale, df=value)
    scaled = {
        "scale": None if scale is None else scale * value,
        "factor": None if factor is None else factor * value,
    }
    if isinstance(noise, GaussianNoise):
        return GaussianNoise(**scaled)
    assert scale is not None
    return StudentTNoise(
        scale=scale * value, df=noise.df, multivariate=noise.multivariate, factor=scaled["factor"]
    )


def _outcome(
    problem: Problem, noise: NoiseModel, name: str, settings: dict[str, Any], run: _Run
) -> tuple[float, float, float, str, str]:
    """Return floor, its error, steps to the target, source and note."""
    nothing = float("nan")
    try:
        if isinstance(problem, Quadratic):
            return *_by_theory(problem, noise, name, settings, run), "theory", ""
        return _by_integration(problem, noise, name, settings, run)
    except InfiniteVarianceError:
        note = f"the noise variance is infinite: {name} has no stationary law and no SDE"
        return nothing, nothing, nothing, "none", note


def _by_theory(
    problem: Quadratic, noise: NoiseModel, name: str, settings: dict[str, Any], run: _Run
) -> tuple[float, float, float]:
    rest = {key: item for key, item in settings.items() if key != "learning_rate"}
    rate, every = settings["learning_rate"], max(1, run.steps // 500)
    law = stationary_law(name, problem.hessian, noise, rate, **rest)
    path = transient_law(
        name, problem.hessian, noise, rate, x0=problem.x0, steps=run.steps, save_every=every, **rest
    )
    return law.excess_loss, 0.0, steps_to_target(path, run.target)


def _by_integration(
    problem: Problem, noise: NoiseModel, name: str, settings: dict[str, Any], run: _Run
) -> tuple[float, float, float, str, str]:
    paths = integrate(
        _sde(name, problem.gradient, noise, settings),
        problem.x0,
        steps=run.steps,
        substeps=run.substeps,
        replicates=run.replicates,
        save_every=max(1, run.steps // 200),
        observables={"loss": problem.loss},
        keep_state=False,
        seed=run.seed,
    )
    loss = paths.observables["loss"].double()
    if bool((paths.diverged >= 0).any()):
        return float("inf"), float("nan"), float("inf"), "integration", "paths diverged"
    fifth = max(1, loss.shape[1] // 5)
    late, earlier = loss[:, -fifth:].mean(dim=1), loss[:, -2 * fifth : -fifth].mean(dim=1)
    floor, error = float(late.mean()), float(late.std() / run.replicates**0.5)
    reached = torch.nonzero(loss.mean(dim=0) <= run.target)
    time = float(paths.step[reached[0, 0]]) if len(reached) else float("inf")
    fall = float((earlier - late).mean())
    note = ""
    if fall > max(0.05 * abs(floor), 3 * float((earlier - late).std() / run.replicates**0.5)):
        note = "the mean loss still falls at the end, so the floor is an upper estimate"
    return floor, error, time, "integration", note


def _sde(
    name: str, gradient: Callable[[torch.Tensor], torch.Tensor], noise: NoiseModel, settings: dict[str, Any]
) -> OptimizerSDE:
    """Return the SDE of a named optimizer; hyper-parameters have the names of ``stationary_law``."""
    hyper = check_hyperparameters(name, **settings)
    own: dict[str, Any] = {"weight_decay": hyper.coupled_decay + hyper.decoupled_decay}
    if name == "sgd":
        own["momentum"] = hyper.momentum
    elif name.startswith("rmsprop"):
        own |= {"beta": hyper.beta, "eps": hyper.eps}
    elif name.startswith("adam"):
        own |= {"betas": (hyper.momentum, hyper.beta), "eps": hyper.eps}
    return build_sde(name, gradient, noise, hyper.learning_rate, **own)
