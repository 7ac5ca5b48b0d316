"""Ensembles of real optimizer runs: the truth that SDEs are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import Observable, OptimizerFactory, State
from noisekit.errors import InputError, kind_of
from noisekit.gradients.device import in_float64
from noisekit.gradients.ranks import Ranks
from noisekit.noise.base import NoiseModel, check_flag
from noisekit.optimizers.state import (
    STATE_KEYS,
    checked_optimizer,
    probe_optimizer,
    read_entry,
    write_state,
)
from noisekit.problems.base import Problem
from noisekit.sde.base import Schedule, schedule_factor
from noisekit.sde.brownian import Draws
from noisekit.sde.inputs import (
    check_count,
    check_observables,
    check_quantiles,
    check_seed,
    check_state,
    replicate_state,
    replicate_x0,
)
from noisekit.sde.progress import progress_bar
from noisekit.sde.share import Share
from noisekit.sde.solution import Solution
from noisekit.sde.trajectory import Trajectory, saved_steps


def simulate_optimizer(
    problem: Problem,
    make_optimizer: OptimizerFactory,
    x0: Tensor | None,
    *,
    steps: int,
    replicates: int = 1,
    noise: NoiseModel | None = None,
    batch_size: int | None = None,
    replacement: bool = True,
    schedule: Schedule | None = None,
    save_every: int = 1,
    observables: Mapping[str, Observable] | None = None,
    keep_state: bool = True,
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    seed: int = 0,
    start_step: int = 0,
    init_state: State | None = None,
    progress: bool = False,
    ranks: Ranks | None = None,
) -> Solution:
    """Return real runs of a torch optimizer, all replicates as rows of one parameter.

    g = ∇f(x) + Z with Z drawn from ``noise``, or g = the mean gradient of ``batch_size`` samples of the
    problem, drawn anew for each replicate and step; with replacement unless ``replacement=False``, as the
    theory's Σ₁/B assumes. Random numbers are named by (seed, replicate, step): they do not depend on how
    many replicates run. Runs with one seed but different optimizers see the same minibatches.

    Arguments: ``problem``; ``make_optimizer`` [parameter] → torch.optim.Optimizer, element-wise, on one
    parameter (replicate, coordinate); ``x0`` (coordinate,) or (replicate, coordinate), None if
    ``init_state`` holds x; ``steps``; exactly one of ``noise`` and ``batch_size``; ``schedule`` factor on
    the learning rate at step k; ``save_every``, ``observables``, ``keep_state``, ``quantiles`` as in
    ``integrate``; ``start_step`` and ``init_state`` (m, v) continue a run; ``ranks`` the processes that share
    the replicates, as in ``integrate``.
    Returns a Solution of kind "optimizer"; ``state`` has x and torch's running averages as m and v.
    Raises InputError for both or none of noise and batch_size, for a problem without samples, and for
    optimizers that are not element-wise.

    >>> from noisekit.noise import GaussianNoise
    >>> from noisekit.problems import Quadratic
    >>> bowl, quiet = Quadratic(torch.ones(1)), GaussianNoise(scale=0.0)
    >>> make = lambda p: torch.optim.SGD(p, lr=0.5)
    >>> simulate_optimizer(bowl, make, bowl.x0, steps=2, noise=quiet).state["x"].flatten()
    tensor([1.0000, 0.5000, 0.2500])
    """
    steps, save_every = check_count("steps", steps), check_count("save_every", save_every)
    replicates, start_step = (
        check_count("replicates", replicates),
        check_count("start_step", start_step, least=0),
    )
    if not isinstance(problem, Problem):
        raise InputError(f"problem is {kind_of(problem)}; give one such as Quadratic or ModelProblem.")
    keep_state, progress = check_flag("keep_state", keep_state), check_flag("progress", progress)
    replacement = check_flag("replacement", replacement)
    n_samples = _check_source(problem, noise, batch_size, replacement)
    seed, functions, given = check_seed(seed), check_observables(observables), check_state(init_state)
    x = replicate_x0(x0 if x0 is not None else given.get("x"), replicates)
    if x.shape[1] != len(problem.x0):
        raise InputError(f"x0 has {x.shape[1]} coordinates; {problem.name} has {len(problem.x0)}.")
    if not callable(make_optimizer) or not (schedule is None or callable(schedule)):
        raise InputError(
            "make_optimizer must be a function of a list of parameters, such as "
            "lambda p: torch.optim.Adam(p, lr=1e-3), and schedule a function of the step or None."
        )
    share = Share.of(x, ranks)
    share.check_same(
        {
            "problem": problem.name,
            "x0": float(in_float64(x).sum()),
            "replicates": replicates,
            "steps": steps,
            "seed": seed,
            "noise or batch_size": repr(noise) if batch_size is None else batch_size,
            "save_every": save_every,
        }
    )

    with torch.no_grad():
        template = probe_optimizer(make_optimizer, x)
        names = sorted({STATE_KEYS[key] for key, value in template.items() if _is_average(key, value)})
        own = share.part({"x": x} | replicate_state(given, x, names))
        param = torch.nn.Parameter(own.pop("x"))
        optimizer = checked_optimizer(make_optimizer, param)
        if own or start_step:
            write_state(optimizer, param, template, own, start_step)
        rates = [float(group["lr"]) for group in optimizer.param_groups]

        x = param.detach()
        plan = saved_steps(start_step, steps, save_every)
        state = {"x": x} | {name: own.get(name, torch.zeros_like(x)) for name in names}
        trajectory = Trajectory(
            plan, state, functions, keep_state=keep_state, quantiles=check_quantiles(quantiles)
        )
        draws = Draws(seed, share.blocks, 0, 1, x)
        everything, total = slice(0, len(x)), x.new_empty(len(x))

        def save(index: int, state: State) -> None:
            trajectory.save_rows(index, everything, state)
            if not keep_state:
                trajectory.save_statistics(index, share.whole(state["x"]))

        save(0, state)
        number = {step: index for index, step in enumerate(plan)}
        with progress_bar(progress and share.first, steps, 0, "simulate") as bar:
            for step in range(start_step, start_step + steps):
                if schedule is not None:
                    factor = schedule_factor(schedule, step)
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * factor
                if noise is not None:
                    gradient = _detached(problem.gradient, x) + draws.sample(noise, x, step)
                else:
                    index = draws.minibatch(n_samples, batch_size or 0, step, replacement=replacement)
                    gradient = _detached(problem.minibatch_gradient, x, index)  # type: ignore[attr-defined]
                param.grad = gradient
                optimizer.step()
                trajectory.total(x, total)
                trajectory.count_finite(everything, total[None])
                if step + 1 in number:
                    entry = optimizer.state[param]
                    state = {"x": x} | {name: read_entry(entry, name, x) for name in names}
                    save(number[step + 1], state)
                if bar is not None:
                    bar.update(1)

    step_axis = torch.tensor(plan, dtype=torch.int64)
    return Solution(
        optimizer=type(optimizer).__name__.lower(),
        kind="optimizer",
        step=step_axis,
        time=step_axis.double() * rates[0],
        state=share.wholes(trajectory.states),
        observables=share.wholes(trajectory.observables),
        diverged=share.whole(trajectory.diverged()),
        learning_rate=rates[0],
        seed=seed,
        settings={
            "noise": None if noise is None else repr(noise),
            "batch_size": batch_size,
            "replacement": replacement if batch_size is not None else None,
            "schedule": schedule is not None,
            "start_step": start_step,
            "quantiles": list(quantiles),
            **_plain(optimizer.param_groups[0]),
        },
        statistics=trajectory.statistics,
    )


def _check_source(
    problem: Problem, noise: NoiseModel | None, batch_size: int | None, replacement: bool
) -> int:
    """Return the number of samples to draw minibatches from, 0 where noise is added instead."""
    if (noise is None) == (batch_size is None):
        raise InputError(
            "Give exactly one of noise (added to the full gradient) and batch_size (real minibatches)."
        )
    if batch_size is None:
        if not isinstance(noise, NoiseModel):
            raise InputError(f"noise is {kind_of(noise)}; give a noise model such as GaussianNoise(scale=…).")
        return 0
    check_count("batch_size", batch_size)
    if not hasattr(problem, "minibatch_gradient"):
        raise InputError(
            f"{type(problem).__name__} has no samples for minibatches; give noise instead of batch_size."
        )
    n_samples = int(problem.n_samples)  # type: ignore[attr-defined]
    if not replacement and batch_size > n_samples:
        raise InputError(
            f"batch_size {batch_size} exceeds the {n_samples} samples; draw fewer or with replacement."
        )
    return n_samples


def _detached(function: Any, *arguments: Tensor) -> Tensor:
    with torch.enable_grad():
        return function(*arguments).detach()


def _is_average(key: str, value: Any) -> bool:
    return key in STATE_KEYS and isinstance(value, Tensor)


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of a parameter group that a file can hold."""
    plain: dict[str, Any] = {}
    for key, value in group.items():
        if isinstance(value, (bool, int, float, str)) and key != "lr":
            plain[key] = value
        elif isinstance(value, tuple):
            plain[key] = [float(v) for v in value]
    return plain
