"""A real optimizer driven by the Brownian path of an SDE, so that small gaps rise above the noise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from noisekit._typing import Observable, OptimizerFactory, State
from noisekit.errors import InputError, kind_of
from noisekit.noise.base import NoiseModel, check_flag
from noisekit.optimizers.state import STATE_KEYS, checked_optimizer, probe_optimizer, read_entry, write_state
from noisekit.problems.base import Problem
from noisekit.sde.blocks import replicate_blocks
from noisekit.sde.brownian import Draws
from noisekit.sde.inputs import (
    check_count,
    check_observables,
    check_seed,
    check_state,
    replicate_state,
    replicate_x0,
)
from noisekit.sde.solution import Solution
from noisekit.validation.ensembles import evaluate


def simulate_coupled(
    problem: Problem,
    make_optimizer: OptimizerFactory,
    x0: Tensor,
    noise: NoiseModel,
    *,
    steps: int,
    replicates: int,
    save_every: int = 1,
    observables: Mapping[str, Observable] | None = None,
    keep_state: bool = True,
    seed: int = 0,
    start_step: int = 0,
    init_state: State | None = None,
) -> Solution:
    """Return runs of a torch optimizer on g = ∇f(x) + Σ(x)^{1/2} z_k, z_k the increment of the SDE's path.

    z_k = (W(t + η) − W(t))/√η of the path that ``integrate`` uses for the same seed and replicate, at any
    number of substeps. The law is that of Gaussian noise; path by path the optimizer stays near its SDE, so
    that a difference of means is known far better than from independent runs.

    Arguments: as in ``simulate_optimizer``, with Gaussian ``noise``; ``start_step`` and ``init_state`` (m, v)
    as in ``integrate``.
    Returns a Solution of kind "optimizer"; pair its replicates with the SDE's of the same seed.
    Raises InputError as ``simulate_optimizer`` does, InfiniteVarianceError for noise without a variance.
    Source: derived; the path is that of Kloeden and Platen 1992 (pathwise approximation).
    """
    steps, save_every = check_count("steps", steps), check_count("save_every", save_every)
    start_step = check_count("start_step", start_step, least=0)
    replicates, seed = check_count("replicates", replicates), check_seed(seed)
    if not isinstance(problem, Problem):
        raise InputError(f"problem is {kind_of(problem)}; give one such as Quadratic or ModelProblem.")
    if not isinstance(noise, NoiseModel):
        raise InputError(f"noise is {kind_of(noise)}; give a noise model such as GaussianNoise.")
    functions, given = check_observables(observables), check_state(init_state)
    check_flag("keep_state", keep_state)
    x = replicate_x0(x0, replicates)
    if x.shape[1] != len(problem.x0):
        raise InputError(f"x0 has {x.shape[1]} coordinates; {problem.name} has {len(problem.x0)}.")
    template = probe_optimizer(make_optimizer, x)
    param = torch.nn.Parameter(x)
    optimizer = checked_optimizer(make_optimizer, param)
    if given or start_step:
        given = replicate_state(given, x, ["m", "v"])
        write_state(optimizer, param, template, given, start_step)
    blocks = replicate_blocks(*x.shape, on_cpu=x.device.type == "cpu")
    draws = Draws(seed, blocks, noise.n_normals(x), 1, x)
    saved: list[int] = []
    states: dict[str, list[Tensor]] = {}
    values: dict[str, list[Tensor]] = {name: [] for name in functions}
    diverged = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
    for step in range(start_step, start_step + steps + 1):
        x = param.detach()
        bad = ~torch.isfinite(x).all(dim=1) & (diverged < 0)
        diverged[bad] = step
        if (step - start_step) % save_every == 0:
            saved.append(step)
            for name, function in functions.items():
                values[name].append(evaluate(name, function, x).detach())
            if keep_state:
                for name, value in _state(optimizer, param).items():
                    # Averages appear with the first step; before it they are zero.
                    states.setdefault(name, [torch.zeros_like(value)] * (len(saved) - 1)).append(value)
        if step == start_step + steps:
            break
        with torch.no_grad():
            kick = noise.sqrt_covariance_product(x, draws.normals(step)[0])
        param.grad = problem.gradient(x).detach() + kick
        optimizer.step()
    index = torch.tensor(saved, dtype=torch.int64)
    rate = float(optimizer.param_groups[0]["lr"])
    return Solution(
        optimizer=type(optimizer).__name__.lower(),
        kind="optimizer",
        step=index,
        time=index.double() * rate,
        state={name: torch.stack(parts, dim=1) for name, parts in states.items()},
        observables={name: torch.stack(parts, dim=1) for name, parts in values.items()},
        diverged=diverged,
        learning_rate=rate,
        seed=seed,
        settings={"noise": repr(noise), "coupled": True},
    )


def _state(optimizer: torch.optim.Optimizer, param: torch.nn.Parameter) -> dict[str, Tensor]:
    """Return copies of x and of the running averages that the optimizer has so far."""
    entry = optimizer.state[param]
    averages = {name for key, name in STATE_KEYS.items() if isinstance(entry.get(key), Tensor)}
    return {"x": param.detach().clone()} | {name: read_entry(entry, name, param) for name in sorted(averages)}
