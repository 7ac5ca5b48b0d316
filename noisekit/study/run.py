"""The whole chain, from a problem to one labelled tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from torch import Tensor

from noisekit.gradients import Ranks
from noisekit.problems import ModelProblem, Problem, SampledProblem
from noisekit.results import provenance, to_datatree
from noisekit.study.config import StudyConfig
from noisekit.study.laws import laws
from noisekit.study.noise import NoiseFindings, analyze_noise
from noisekit.study.parallel import torch_threads, usable_cores, workers_for
from noisekit.study.problem import facts_of, first_samples
from noisekit.study.ranks import from_first, is_first
from noisekit.study.sharpness import measure_sharpness
from noisekit.study.training import TrainingRun, train_and_record
from noisekit.study.trajectories import compare_optimizers

if TYPE_CHECKING:
    import xarray as xr


@overload
def run_study(
    problem: Problem,
    config: StudyConfig | None = None,
    *,
    command: str = "",
    progress: bool = False,
    ranks: None = None,
) -> xr.DataTree: ...
@overload
def run_study(
    problem: Problem,
    config: StudyConfig | None = None,
    *,
    command: str = "",
    progress: bool = False,
    ranks: Ranks | None,
) -> xr.DataTree | None: ...
def run_study(
    problem: Problem,
    config: StudyConfig | None = None,
    *,
    command: str = "",
    progress: bool = False,
    ranks: Ranks | None = None,
) -> xr.DataTree | None:
    """Return everything noisekit finds out about one problem, as one tree.

    A network is trained with the recorder on, and its noise is fitted. From where training ended, each
    optimizer is predicted by its SDE with the noise covariance Σ(x) of the data, and run for real on
    minibatches; both are compared, and closed forms are added with the gauges that say whether they apply.
    A problem without a network skips the first part, one without samples gets Gaussian noise.

    Args:
        problem: with its training data; its model is not changed.
        config: what to do; ``StudyConfig()`` if not given.
        command: the line that repeats the study, stored in the tree.
        progress: whether to show bars on stderr.
        ranks: the processes, each of which makes the same call, that share the work: the first one trains,
            analyses and gets the tree, the others get None. The numbers do not depend on how many there are.

    Raises:
        InputError: if a setting cannot be used.
        NonFiniteError: if training diverges.
        UnsupportedModelError: if the model mixes samples.
    """
    config = config or StudyConfig()
    config.check()
    # Many small operations lose more by sharing cores than they gain, so tasks share them instead.
    tasks = 3 * len(config.optimizers)
    threads = max(1, usable_cores() // workers_for(tasks, problem.x0.device))
    with torch_threads(threads):
        return _study(problem, config, command, progress, ranks)


def _study(
    problem: Problem, config: StudyConfig, command: str, progress: bool, ranks: Ranks | None
) -> xr.DataTree | None:
    trained: TrainingRun | None = None
    found: NoiseFindings | None = None

    def start() -> Tensor:
        nonlocal trained, found
        if not isinstance(problem, ModelProblem):
            return problem.x0.cpu()
        trained = train_and_record(problem, config, progress=progress)
        found = analyze_noise(trained, batch_size=config.batch_size, progress=progress)
        return trained.x.cpu()

    x = from_first(ranks, start).to(problem.x0.device)
    part = first_samples(problem, config.n_samples)
    ensembles = compare_optimizers(part, x, config, progress=progress, ranks=ranks)
    if not is_first(ranks):
        return None
    curvature = measure_sharpness(part, x, whole=problem, seed=config.seed)
    record = trained.record if trained else None
    scale = found.scale if found else None
    tree = to_datatree(
        record=record,
        noise_scale=scale,
        mean_gradient_error=trained.mean_gradient_error if trained else None,
        noise_fits=found.fits if found else None,
        tail=found.tail if found else None,
        minibatch_noise=found.minibatch if found else None,
        solutions=[s for e in ensembles for s in (e.prediction, e.reference)],
        comparisons=[e.comparison for e in ensembles],
        laws={
            name: laws(name, part, x, config, curvature=curvature, record=record, scale=scale)
            for name in config.optimizers
        },
        provenance=provenance(
            problem=problem.name,
            seed=config.seed,
            config=config.as_dict(),
            command=command,
            **_facts(problem, part, config),
        ),
    )
    return tree


def _facts(problem: Problem, part: Problem, config: StudyConfig) -> dict[str, Any]:
    sampled = isinstance(part, SampledProblem)
    n = part.n_samples if isinstance(part, SampledProblem) else 0
    total = problem.n_samples if isinstance(problem, SampledProblem) else 0
    return {
        **facts_of(problem),
        "sampling": "with-replacement" if sampled else "Gaussian noise added to the gradient",
        "batch_size": config.batch_size if sampled else "",
        "n_samples": n,
        "n_training_samples": total,
        "comparison_subset": f"optimizers are compared on the first {n} of {total} training samples"
        if n < total
        else "",
    }
