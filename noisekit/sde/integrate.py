"""Integrate an optimizer SDE over many replicates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import Observable, State
from noisekit.errors import InputError, kind_of
from noisekit.gradients.device import in_float64
from noisekit.gradients.ranks import Ranks
from noisekit.noise.base import check_flag
from noisekit.sde.base import OptimizerSDE, Substep
from noisekit.sde.blocks import group_blocks
from noisekit.sde.brownian import Draws
from noisekit.sde.checkpoint import load_checkpoint, save_checkpoint
from noisekit.sde.constants import diagonal_hessian
from noisekit.sde.fused import FusedSteps
from noisekit.sde.inputs import (
    check_count,
    check_file,
    check_observables,
    check_quantiles,
    check_seed,
    check_state,
    check_substeps,
    replicate_state,
    replicate_x0,
)
from noisekit.sde.philox import PhiloxNormals
from noisekit.sde.progress import progress_bar
from noisekit.sde.share import Share
from noisekit.sde.solution import Solution
from noisekit.sde.solvers import EulerMaruyama, Solver, StochasticHeun
from noisekit.sde.streams import Workspace
from noisekit.sde.trajectory import Trajectory, saved_steps


def integrate(
    sde: OptimizerSDE,
    x0: Tensor | None,
    *,
    steps: int,
    substeps: int = 8,
    replicates: int = 1,
    save_every: int = 1,
    observables: Mapping[str, Observable] | None = None,
    keep_state: bool = True,
    seed: int = 0,
    solver: Solver | None = None,
    start_step: int = 0,
    init_state: State | None = None,
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    workers: int = 1,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    progress: bool = False,
    ranks: Ranks | None = None,
    fused: bool = False,
    whole_steps: int = 0,
) -> Solution:
    """Return paths of an optimizer SDE from t = ηk₀ to η(k₀ + steps), dt = η/substeps.

    The noise of a path is named by (seed, replicate, step): it does not depend on how many replicates run, on
    ``workers``, on ``save_every`` or on resuming, and runs with other ``substeps`` share the Brownian path.
    (Where the gradient itself rounds differently for other numbers of replicates, last digits do too.)

    Arguments: ``sde``; ``x0`` (coordinate,) or (replicate, coordinate), None if ``init_state`` holds x;
    ``steps`` optimizer steps; ``substeps`` a power of two, 1 gives a result labelled "surrogate";
    ``save_every`` steps between saved instants; ``observables`` name → function of x (replicate, coordinate)
    returning (replicate,); ``keep_state=False`` keeps the mean, variance and ``quantiles`` over replicates in
    ``Solution.statistics`` instead of the paths; ``solver`` Euler–Maruyama, or stochastic Heun where the SDE
    is of order 2; ``start_step`` k₀ and ``init_state`` m and v of an optimizer after k₀ steps; ``workers``
    threads over blocks of replicates, for gradients that may be called from several threads;
    ``checkpoint`` a file that is written every ``checkpoint_every`` steps and resumed from if it exists;
    ``ranks`` the processes, each of which makes the same call, that share the replicates: every one returns
    the solution of all of them, and the numbers do not depend on how many there are; ``fused`` takes normals
    of the counter-based generator Philox, the same on every device, and where there is an NVIDIA GPU with
    Triton makes all steps of SGD, SignSGD, RMSprop or Adam on a diagonal quadratic with Gaussian noise in one
    kernel (tried in Triton's interpreter only); ``whole_steps`` so many steps at the beginning are those of
    RMSprop or Adam itself under the noise of the SDE, dt = η on the same path: where V starts from 0 no SDE
    is near the first of them, which are sign steps.
    Returns a Solution; a path that is not finite is marked with its first bad step in ``diverged``.
    Raises InputError for arguments out of range, InfiniteVarianceError where the SDE needs a variance.
    """
    if not isinstance(sde, OptimizerSDE) or not isinstance(solver, (Solver, type(None))):
        raise InputError(
            f"sde is {kind_of(sde)} and solver {kind_of(solver)}; "
            "give an equation such as AdamSDE(…), and a solver such as EulerMaruyama() or None."
        )
    steps, save_every = check_count("steps", steps), check_count("save_every", save_every)
    seed, functions = check_seed(seed), check_observables(observables)
    replicates, workers = check_count("replicates", replicates), check_count("workers", workers)
    substeps, start_step = check_substeps(substeps), check_count("start_step", start_step, least=0)
    checkpoint_every, levels = check_count("checkpoint_every", checkpoint_every), check_quantiles(quantiles)
    whole_steps = check_count("whole_steps", whole_steps, least=0)
    if solver is None:
        solver = StochasticHeun() if sde.order == 2 else EulerMaruyama()
    if solver.order < sde.order:
        raise InputError(f"An SDE of order {sde.order} needs a solver of that order; use StochasticHeun().")
    if workers > 1 and hasattr(sde.noise, "problem"):
        raise InputError("Noise from the data of a problem is computed in one thread; use workers=1.")
    if whole_steps and fused:
        raise InputError("fused=True takes all steps alike; leave out whole_steps, or fused.")
    optimizer = sde.optimizer_itself() if whole_steps else None
    path = check_file(checkpoint)
    keep_state, progress = check_flag("keep_state", keep_state), check_flag("progress", progress)
    given = check_state(init_state)
    x = replicate_x0(x0 if x0 is not None else given.get("x"), replicates)

    with torch.no_grad():
        sde.check(x)
        own = replicate_state(given, x, sde.state_names)
        share = Share.of(x, ranks)
        lead = sde.lead(substeps) if solver.uses_euler_step and "v" not in own and not whole_steps else 0.0
        if optimizer is None:
            state = sde.start(x, own, start_step, lead if solver.uses_euler_step else None)
        else:
            state = optimizer.start(x, own, start_step, 0.0)
        plan = saved_steps(start_step, steps, save_every)
        settings = sde.settings() | {"solver": solver.name, "start_step": start_step}
        if fused:
            settings["random_numbers"] = "philox"
        if whole_steps:
            settings["whole_steps"] = whole_steps
        compared = ranks is not None or path is not None
        identity = settings | {
            "sde": sde.name,
            "learning_rate": sde.learning_rate,
            "seed": seed,
            "substeps": substeps,
            "steps": steps,
            "save_every": save_every,
            "shape": list(x.shape),
            "dtype": str(x.dtype),
            "observables": sorted(functions),
            "keep_state": keep_state,
            "quantiles": list(levels),
            "start": [float(in_float64(value).sum()) for value in state.values() if compared],
            "fused": fused,
            "equation": [] if checkpoint is None else _fingerprint(sde, x, start_step + steps - 1),
        }
        share.check_same(identity)
        state = share.part(state)
        trajectory = Trajectory(plan, state, functions, keep_state=keep_state, quantiles=levels)
        # Which rows are stepped together is free where a row is rounded the same in any company.
        wide = workers == 1 and diagonal_hessian(sde.gradient_function) is not None
        chunks = _chunks(sde, state, share, seed, substeps, fused, wide)
        kernel = FusedSteps.of(sde, solver, state["x"], substeps, seed, lead) if fused else None
        layer = start_step + whole_steps
        runner = _Runner(sde, solver, trajectory, lead, share, chunks, kernel, optimizer, layer)
        reached = None if path is None else load_checkpoint(path, state, trajectory, identity, share)
        _run(
            runner, state, plan, reached, path, checkpoint_every, identity, workers, progress and share.first
        )

    step = torch.tensor(plan, dtype=torch.int64)
    return Solution(
        optimizer=sde.name,
        kind="surrogate" if substeps == 1 else "sde",
        step=step,
        time=step.double() * sde.learning_rate,
        state=share.wholes(trajectory.states),
        observables=share.wholes(trajectory.observables),
        diverged=share.whole(trajectory.diverged()),
        learning_rate=sde.learning_rate,
        seed=seed,
        substeps=substeps,
        settings=settings | {"quantiles": list(levels)},
        statistics=trajectory.statistics,
    )


def _fingerprint(sde: OptimizerSDE, x: Tensor, last_step: int) -> list[str]:
    """Return what tells gradient, noise and schedule from others, in digits that rounding does not reach."""
    values = [sde.gradient(x[:1]).abs().sum(), sde.noise.variance(x[:1]).sum()]
    numbers = [float(v) for v in values] + [sde.factor(last_step)]
    return [f"{number:.4g}" for number in numbers]


@dataclass
class _Chunk:
    """Replicates that are stepped together: views of the whole state, and their random numbers."""

    rows: slice
    state: State
    draws: Draws


def _chunks(
    sde: OptimizerSDE, state: State, share: Share, seed: int, substeps: int, fused: bool, wide: bool
) -> list[_Chunk]:
    x, origin = state["x"], share.rows.start
    workspace = Workspace()
    chunks = []
    for group in group_blocks(share.blocks, x.shape[1], together=x.device.type != "cpu", wide=wide):
        rows = slice(group[0].start - origin, group[-1].stop - origin)
        views = {name: value[rows] for name, value in state.items()}
        draws = Draws(seed, group, sde.n_normals(views["x"]), substeps, views["x"], workspace)
        draws.constants = sde.constants(views["x"])
        if fused:
            draws.source = PhiloxNormals(draws.origin, draws.rows, draws.n_normals, substeps, views["x"])
        chunks.append(_Chunk(rows, views, draws))
    return chunks


@dataclass
class _Runner:
    """Advances one chunk over a range of optimizer steps."""

    sde: OptimizerSDE
    solver: Solver
    trajectory: Trajectory
    lead: float
    share: Share
    chunks: list[_Chunk]
    kernel: FusedSteps | None
    optimizer: OptimizerSDE | None
    layer: int
    """The step from which ``solver`` takes over from ``optimizer``."""

    def advance(self, chunk: _Chunk, first: int, last: int) -> None:
        if self.kernel is not None:
            finite = self.kernel.advance(chunk.state, chunk.draws.origin, first, last)
            self.trajectory.finite_steps[chunk.rows] += finite
            return
        with torch.no_grad():
            substeps, eta = chunk.draws.substeps, self.sde.learning_rate
            totals = chunk.state["x"].new_empty(last - first, chunk.draws.rows)
            # Another thread may have stepped the chunk before, with buffers of its own.
            chunk.draws.buffers.clear()
            for step in range(first, last):
                factor, drawn = self.sde.factor(step), chunk.draws.normals(step)
                if self.optimizer is not None and step < self.layer:
                    increment = drawn.sum(dim=0) / math.sqrt(substeps)
                    whole = Substep(step, 0, 1, eta, factor, 0.0, increment, chunk.draws)
                    self.optimizer.euler_step(chunk.state, whole)
                else:
                    for index, normals in enumerate(drawn.unbind()):
                        at = Substep(step, index, substeps, eta, factor, self.lead, normals, chunk.draws)
                        self.solver.step(self.sde, chunk.state, at)
                self.trajectory.total(chunk.state["x"], totals[step - first])
            self.trajectory.count_finite(chunk.rows, totals)

    def save(self, chunk: _Chunk, index: int) -> None:
        self.trajectory.save_rows(index, chunk.rows, chunk.state)

    def save_statistics(self, x: Tensor, index: int) -> None:
        if not self.trajectory.keep_state:
            self.trajectory.save_statistics(index, self.share.whole(x))


def _run(
    runner: _Runner,
    state: State,
    plan: list[int],
    reached: int | None,
    path: Path | None,
    checkpoint_every: int,
    identity: dict[str, Any],
    workers: int,
    progress: bool,
) -> None:
    """Advance all chunks from saved step to saved step."""
    number = {step: index for index, step in enumerate(plan)}
    stops = set(plan)
    if path is not None:
        stops.update(range(plan[0], plan[-1], checkpoint_every))
    trajectory = runner.trajectory

    def until(chunk: _Chunk, first: int, last: int) -> None:
        runner.advance(chunk, first, last)
        if last in number:
            runner.save(chunk, number[last])

    position = plan[0] if reached is None else reached
    if reached is None:
        for chunk in runner.chunks:
            runner.save(chunk, 0)
        runner.save_statistics(state["x"], 0)
    with (
        ThreadPoolExecutor(min(workers, len(runner.chunks))) if workers > 1 else nullcontext() as pool,
        progress_bar(progress, plan[-1] - plan[0], position - plan[0], "integrate") as bar,
    ):
        for stop in sorted(s for s in stops if s > position):
            if pool is None:
                for chunk in runner.chunks:
                    until(chunk, position, stop)
            else:
                first = position
                list(pool.map(lambda chunk, first=first, stop=stop: until(chunk, first, stop), runner.chunks))
            if stop in number:
                runner.save_statistics(state["x"], number[stop])
            if bar is not None:
                bar.update(stop - position)
            position = stop
            if path is not None and ((stop - plan[0]) % checkpoint_every == 0 or stop == plan[-1]):
                save_checkpoint(path, stop, state, trajectory, identity, runner.share)
