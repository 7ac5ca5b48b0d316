"""SDE paths and real runs of each optimizer from the same states, and their comparison."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from noisekit._typing import Observable, State
from noisekit.errors import NonFiniteError
from noisekit.gradients import Ranks
from noisekit.optimizers import simulate_optimizer
from noisekit.optimizers.named import build_optimizer
from noisekit.problems import Problem, SampledProblem
from noisekit.sde import Solution, integrate
from noisekit.sde.named import build_sde
from noisekit.study.config import StudyConfig
from noisekit.study.equations import study_noise
from noisekit.study.parallel import Counter, run_tasks, workers_for
from noisekit.study.progress import bar
from noisekit.study.ranks import agreed, is_first, local_processes, moved, on_all, on_first, tasks_of
from noisekit.study.seeds import stage_seed
from noisekit.validation import Comparison, compare


@dataclass(frozen=True)
class Ensembles:
    """The prediction at dt = η/substeps, the real runs, and how far they are apart."""

    prediction: Solution
    reference: Solution
    comparison: Comparison


def compare_optimizers(
    problem: Problem, x: Tensor, config: StudyConfig, *, progress: bool = False, ranks: Ranks | None = None
) -> list[Ensembles]:
    """Run every optimizer of the study for real from ``x``, and predict the same steps by its SDE.

    The real optimizer takes ``warmup_steps`` first, because an SDE that starts from an empty optimizer
    state has an error of its own; each SDE path starts from x, m and v of one real run. Afterwards their
    noise is independent. The discretisation error comes from the same paths at half the step.
    The ensembles, three of each optimizer, are shared by ``ranks``; the first process gets all of them, the
    others nothing.
    """
    # Adaptive optimizers and fine steps take longest, so they go first.
    names = sorted(config.optimizers, key=lambda name: name in ("sgd", "signsgd"))
    substeps = {"fine": 2 * config.substeps, "coarse": config.substeps, "real": 1}
    costs = {(name, kind): float(count) for kind, count in substeps.items() for name in names}
    mine = tasks_of(costs, ranks)
    saves = config.replicates * (config.steps // config.save_every + 1)

    def warm_states() -> dict[str, State]:
        own = tasks_of(dict.fromkeys(names, 1.0), ranks)
        found = {name: _warm_state(name, problem, x, config) for name in own}
        return {name: {key: value.cpu() for key, value in state.items()} for name, state in found.items()}

    def ensembles() -> dict[tuple[str, str], Solution]:
        tasks: dict[tuple[str, str], Callable[[], Solution]] = {}
        for name, kind in mine:
            arguments = (name, problem, starts[name], x, config, counter)
            run = _run if kind == "real" else partial(_predict, substeps=substeps[kind])
            tasks[name, kind] = partial(run, *arguments)
        workers = workers_for(len(tasks), x.device, processes=local_processes(ranks))
        found = run_tasks(tasks, workers=workers, counter=counter)
        return {key: moved(solution, "cpu") for key, solution in found.items()}

    def compared() -> list[Ensembles]:
        if not is_first(ranks):
            return []
        return [
            _compared(found[name, "coarse"], found[name, "real"], found[name, "fine"], config)
            for name in config.optimizers
        ]

    shown_units = saves * sum(substeps[kind] for _, kind in mine)
    with bar("Predicting and running", shown_units, show=progress and is_first(ranks)) as shown:
        counter = Counter(shown)
        needed = {name for name, _ in mine}
        starts = {
            name: {key: value.to(x.device) for key, value in state.items()}
            for name, state in on_all(ranks, warm_states).items()
            if name in needed
        }
        found = on_first(ranks, ensembles)
    return agreed(ranks, compared)


def _compared(coarse: Solution, real: Solution, fine: Solution, config: StudyConfig) -> Ensembles:
    # Two are needed to know an error.
    _refuse_divergence(real.optimizer, real, config, most=config.replicates - 2)
    return Ensembles(coarse, real, compare(coarse, real, refined=fine, paired=True))


def _refuse_divergence(name: str, runs: Solution, config: StudyConfig, *, most: int) -> None:
    """Raise NonFiniteError if more than ``most`` of the real runs diverged."""
    bad = runs.diverged >= 0
    if int(bad.sum()) > most:
        raise NonFiniteError(
            f"{int(bad.sum())} of {len(bad)} real runs of {name} diverged, the first at step "
            f"{int(runs.diverged[bad].min())}; lower its learning rate, now {config.learning_rate(name):g}."
        )


def _own(problem: Problem) -> Problem:
    """Return a copy for one task: evaluating a network puts parameters into its modules for a moment."""
    return copy.deepcopy(problem)


def _observables(problem: Problem, x: Tensor, count: Callable[[int], Any]) -> dict[str, Observable]:
    """Return what is compared; ``count`` is told how many replicates were evaluated."""

    def loss(at: Tensor) -> Tensor:
        count(len(at))
        return problem.loss(at)

    return {"loss": loss, "squared_distance": lambda at: (at - x).square().sum(-1)}


def _warm_state(name: str, problem: Problem, x: Tensor, config: StudyConfig) -> State:
    """Return x, m and v of every replicate after the warm-up, each (replicate, coordinate)."""
    steps = config.warmup_steps
    if not steps:
        return {"x": x}
    warm = _simulate(name, problem, x, config, steps=steps, save_every=steps, seed="warm-up")
    _refuse_divergence(name, warm, config, most=0)
    return warm.state_at(steps)


def _run(
    name: str, problem: Problem, start: State, x: Tensor, config: StudyConfig, counter: Counter
) -> Solution:
    """Return the real runs, from ``start`` on."""
    own = _own(problem)
    return _simulate(
        name,
        own,
        start["x"],
        config,
        steps=config.steps,
        save_every=config.save_every,
        observables=_observables(own, x, counter.add),
        keep_state=False,
        start_step=config.warmup_steps,
        init_state=_without_x(start),
        seed="optimizer",
    )


def _simulate(
    name: str, problem: Problem, x0: Tensor, config: StudyConfig, *, seed: str, **options: Any
) -> Solution:
    sampled = isinstance(problem, SampledProblem)
    solution = simulate_optimizer(
        problem,
        build_optimizer(name, config.learning_rate(name), weight_decay=config.weight_decay),
        x0,
        replicates=config.replicates,
        noise=None if sampled else study_noise(name, problem, config),
        batch_size=config.batch_size if sampled else None,
        seed=stage_seed(config.seed, seed, name),
        **options,
    )
    return replace(solution, optimizer=name)


def _predict(
    name: str, problem: Problem, start: State, x: Tensor, config: StudyConfig, counter: Counter, substeps: int
) -> Solution:
    """Return SDE paths from ``start`` on."""
    own = _own(problem)
    solution = integrate(
        build_sde(
            name,
            own.gradient,
            study_noise(name, own, config),
            config.learning_rate(name),
            weight_decay=config.weight_decay,
        ),
        start["x"],
        steps=config.steps,
        substeps=substeps,
        replicates=config.replicates,
        save_every=config.save_every,
        observables=_observables(own, x, lambda n: counter.add(n * substeps)),
        keep_state=False,
        seed=stage_seed(config.seed, "sde", name),
        start_step=config.warmup_steps,
        init_state=_without_x(start),
    )
    # The finer paths only say how large the error of the step is, for which their curves are enough.
    kept = {} if substeps > config.substeps else solution.statistics
    return replace(solution, optimizer=name, statistics=kept)


def _without_x(state: State) -> State:
    return {key: value for key, value in state.items() if key != "x"}
