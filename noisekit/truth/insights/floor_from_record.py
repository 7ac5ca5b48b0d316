"""The floor of a real network, predicted from the recorded variance of its gradients alone."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from noisekit.gradients import gradient_statistics
from noisekit.optimizers import simulate_optimizer
from noisekit.optimizers.named import build_optimizer
from noisekit.problems import ModelProblem, load_problem
from noisekit.theory import noise_floor
from noisekit.truth.insights.estimates import Array, mean_and_error, plus_minus
from noisekit.truth.insights.labelled import Finding, Progress, insight_dataset, report, variable
from noisekit.truth.insights.sizes import Preset, sizes_of

OPTIMIZERS = ("sgd", "adam", "signsgd")
RATES = {"sgd": 0.05, "adam": 2e-4, "signsgd": 1e-4}
CLAIM = "The recorded variance of each coordinate alone predicts the floor that a real network reaches."


@dataclass(frozen=True)
class Case:
    """Runs of the network with the penalty (λ/2)|x|² in its loss; rates are multiples of those of RATES."""

    penalty: float
    batch_size: int
    optimizers: tuple[str, ...]
    rate_factors: tuple[float, ...]
    steps: int


@dataclass(frozen=True)
class Sizes:
    """``cases`` and how many runs of each, the last 60 % of which is averaged."""

    cases: tuple[Case, ...] = (
        Case(0.01, 16, OPTIMIZERS, (2.0,), 1400),
        Case(0.0, 16, ("sgd",), (2.0,), 400),
    )
    replicates: int = 8
    descent: int = 1200


SIZES = {
    "quick": Sizes(),
    "full": Sizes(
        cases=(
            Case(0.01, 16, OPTIMIZERS, (1.0, 4.0), 4000),
            Case(0.01, 128, OPTIMIZERS, (1.0,), 3000),
            Case(0.0, 16, OPTIMIZERS, (1.0,), 1500),
        ),
        descent=3000,
    ),
}


class Penalised:
    """A network's loss plus (λ/2)|x|²: the penalty gives it a minimum, and is the same for every sample."""

    def __init__(self, problem: ModelProblem, penalty: float) -> None:
        self.problem = problem
        self.penalty = penalty
        self.name = problem.name
        self.n_samples = problem.n_samples

    @property
    def x0(self) -> Tensor:
        """The network's own starting point, (coordinate,)."""
        return self.problem.x0

    def loss(self, x: Tensor) -> Tensor:
        """Return f(x) + (λ/2)|x|², (replicate,)."""
        return self.problem.loss(x) + self.penalty / 2 * x.square().sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        """Return ∇f(x) + λx, (replicate, coordinate)."""
        return self.problem.gradient(x) + self.penalty * x

    def minibatch_gradient(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the mean gradient of the samples ``index`` plus λx, (replicate, coordinate)."""
        return self.problem.minibatch_gradient(x, index) + self.penalty * x


def floor_from_record(*, preset: Preset | Sizes, seed: int = 0, progress: Progress = None) -> xr.Dataset:
    """Predict the noise floor of breast-cancer-mlp from ``gradient_statistics`` and let real runs reach it.

    A long decayed run finds the minimum; there one pass records the variance of every coordinate, from which
    ``noise_floor`` predicts. Then SGD, Adam and SignSGD start at the minimum with constant learning rates and
    real minibatches. With the penalty the loss has a minimum; without it the data are separable, the loss
    falls without end and no floor exists, which shows as an excess below zero.

    Returns:
        Over ``run``: ``excess`` with ``excess_error``, the mean loss of the last 60 % of the runs less the
        loss at the minimum; ``predicted``; ``ratio`` with ``ratio_error``; ``trend`` with its error, the
        change between the first and the second half of that window, over the prediction; ``sign_bias``, the
        root of Σ(E sign g)² at the minimum over its largest value √d: 0 where the noise is symmetric.

    Source: the closed form is derived; see ``noise_floor``.
    """
    sizes = sizes_of(preset, SIZES)
    network = load_problem("breast-cancer-mlp", seed=seed)
    assert isinstance(network, ModelProblem)
    total = sum(len(c.optimizers) * len(c.rate_factors) * c.steps for c in sizes.cases)
    done = 0
    rows: list[dict[str, float | str]] = []
    minima: dict[float, Tensor] = {}
    for case in sizes.cases:
        problem = Penalised(network, case.penalty)
        if case.penalty not in minima:
            minima[case.penalty] = _minimum(problem, sizes.descent)
        minimum = minima[case.penalty]
        variance = _recorded_variance(network, minimum) / case.batch_size
        bias = _sign_bias(problem, minimum, case.batch_size, seed)
        for optimizer in case.optimizers:
            for factor in case.rate_factors:
                rate = factor * RATES[optimizer]
                run = _run(problem, minimum, optimizer, rate, case, sizes, seed)
                predicted = noise_floor(optimizer, variance, rate)
                rows.append(_row(case, optimizer, rate, run, predicted, bias))
                done += case.steps
                report(progress, done / total)
    return _dataset(rows, sizes, seed)


def _minimum(problem: Penalised, steps: int) -> Tensor:
    """Return where Adam on the full gradient ends with a learning rate that falls to 0, (coordinate,)."""
    x = torch.nn.Parameter(problem.x0.clone()[None])
    optimizer = torch.optim.Adam([x], lr=0.03)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / steps)
        x.grad = problem.gradient(x.detach())
        optimizer.step()
    return x.detach()[0]


def _recorded_variance(network: ModelProblem, at: Tensor) -> Tensor:
    """Return the per-sample variance of every coordinate, as a user's own model would record it."""
    model = copy.deepcopy(network.model)
    model.load_state_dict(network.unflatten(at), strict=False)
    statistics = gradient_statistics(
        model, network.loss_fn, network.inputs, network.targets, coordinates=0, sketch=0, gram=False
    )
    return network.flatten(statistics.variance)


def _sign_bias(problem: Penalised, minimum: Tensor, batch: int, seed: int, draws: int = 2000) -> float:
    """Return √(mean over coordinates of (E sign g)²) at the minimum, the Monte-Carlo part taken out."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(problem.n_samples, (draws, batch), generator=generator)
    gradients = [problem.minibatch_gradient(minimum.expand(len(i), -1), i) for i in index.split(250)]
    signs = torch.cat(gradients).sign().double()
    squared = signs.mean(0).square() - signs.var(0) / draws
    return float(squared.mean().clamp_min(0).sqrt())


def _run(
    problem: Penalised, minimum: Tensor, optimizer: str, rate: float, case: Case, sizes: Sizes, seed: int
) -> Tensor:
    """Return the excess loss of real runs from the minimum, (replicate, time)."""
    solution = simulate_optimizer(
        problem,
        build_optimizer(optimizer, rate),
        minimum,
        steps=case.steps,
        replicates=sizes.replicates,
        batch_size=case.batch_size,
        save_every=max(1, case.steps // 200),
        observables={"loss": problem.loss},
        keep_state=False,
        seed=seed,
    )
    lowest = problem.loss(minimum[None]).double()
    return solution.observables["loss"].double() - lowest


def _row(
    case: Case, optimizer: str, rate: float, excess: Tensor, predicted: float, bias: float
) -> dict[str, float | str]:
    late = excess[:, round(0.4 * excess.shape[1]) :]
    half = late.shape[1] // 2
    value, error = mean_and_error(late.mean(1))
    trend, trend_error = mean_and_error(late[:, half:].mean(1) - late[:, :half].mean(1))
    return {
        "penalty": case.penalty,
        "batch_size": case.batch_size,
        "optimizer": optimizer,
        "learning_rate": rate,
        "excess": value,
        "excess_error": error,
        "predicted": predicted,
        "ratio": value / predicted,
        "ratio_error": error / predicted,
        "trend": trend / predicted,
        "trend_error": trend_error / predicted,
        "sign_bias": bias,
    }


def _dataset(rows: list[dict[str, float | str]], sizes: Sizes, seed: int) -> xr.Dataset:
    text = {
        "excess": ("mean late loss less the loss at the minimum", "loss"),
        "excess_error": ("standard error of the excess", "loss"),
        "predicted": ("noise floor from the recorded variance", "loss"),
        "ratio": ("excess over prediction", "1"),
        "ratio_error": ("standard error of the ratio", "1"),
        "trend": ("change of the excess over the window, over the prediction", "1"),
        "trend_error": ("standard error of the trend", "1"),
        "sign_bias": ("root mean square of E sign g at the minimum", "1"),
    }
    described = {
        "penalty": ("λ of the penalty (λ/2)|x|²", "1"),
        "batch_size": ("batch size", "sample"),
        "learning_rate": ("learning rate η", "1"),
    }
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    variables = {name: variable("run", column[name], *text[name]) for name in text}
    coordinates = {name: variable("run", column[name], *described[name]) for name in described}
    coordinates["optimizer"] = variable("run", column["optimizer"], "optimizer")
    return insight_dataset(
        "floor_from_record",
        CLAIM,
        variables,
        coordinates,
        verdict=_verdict(column),
        finding=_finding(column),
        settings=asdict(sizes) | {"seed": seed},
    )


def _finding(column: dict[str, Array]) -> Finding:
    """Held if, with a minimum, every ratio is within ⅓ of 1 beyond twice an error of at most ⅙; in part if
    all but SignSGD's are."""
    near = np.abs(column["ratio"] - 1) <= 1 / 3 + 2 * column["ratio_error"]
    near &= column["ratio_error"] <= 1 / 6
    has_minimum, sign = column["penalty"] > 0, column["optimizer"] == "signsgd"
    if near[has_minimum].all():
        return "held"
    return "held in part" if near[has_minimum & ~sign].all() else "failed"


def _verdict(column: dict[str, Array]) -> str:
    def row(k: int) -> str:
        return (
            f"{column['optimizer'][k]} η = {column['learning_rate'][k]:g}, B = {column['batch_size'][k]:g}: "
            f"{plus_minus(column['ratio'][k], column['ratio_error'][k])}"
        )

    with_minimum = [k for k, penalty in enumerate(column["penalty"]) if penalty > 0]
    without = [k for k, penalty in enumerate(column["penalty"]) if penalty == 0]
    sign = ", ".join(
        f"{bias:.2f} (B = {batch:g})"
        for batch, bias in sorted({(column["batch_size"][k], column["sign_bias"][k]) for k in with_minimum})
    )
    text = (
        f"Floor reached over floor predicted, penalised breast-cancer-mlp: "
        f"{'; '.join(map(row, with_minimum))}. Root mean square of E sign g at the minimum, which the "
        f"prediction for SignSGD takes to be 0: {sign}."
    )
    at_rate = [k for k in with_minimum if column["optimizer"][k] == "signsgd"]
    at_rate = [k for k in at_rate if column["batch_size"][k] == column["batch_size"][at_rate[0]]]
    if len(at_rate) == 2:
        text += (
            " Extrapolated to η = 0, "
            f"{plus_minus(*_share_at_zero_rate(column, *at_rate))} of SignSGD's excess at "
            f"η = {column['learning_rate'][at_rate[0]]:g} stays: it is a bias, not a fluctuation."
        )
    if without:
        text += (
            " Without the penalty the data are separable and the loss has no minimum; excess over prediction "
            f"there: {'; '.join(map(row, without))}."
        )
    return text


def _share_at_zero_rate(column: dict[str, Array], first: int, second: int) -> tuple[float, float]:
    """Return the share of the excess of ``first`` that a straight line in η through both leaves at η = 0."""
    (a, b), (low, high) = column["excess"][[first, second]], column["learning_rate"][[first, second]]
    weight = low / (high - low)
    error = weight / a * np.hypot(column["excess_error"][second], b / a * column["excess_error"][first])
    return float(1 - weight * (b - a) / a), float(error)
