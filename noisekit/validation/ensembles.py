"""What a comparison reads out of ensembles: common steps and names, values of the usable replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from noisekit._typing import Observable
from noisekit.errors import InputError, kind_of, unknown_name
from noisekit.sde.solution import Solution
from noisekit.theory.inputs import Array


def check_solution(label: str, given: object) -> None:
    """Refuse what is no Solution."""
    if not isinstance(given, Solution):
        raise InputError(
            f"The {label} is {kind_of(given)}; a Solution is needed, as integrate and "
            "simulate_optimizer return."
        )


def common_steps(*solutions: Solution | None) -> NDArray[np.int64]:
    """Return the optimizer steps that all solutions saved, (time,)."""
    grids = [s.step.detach().cpu().numpy().astype(np.int64) for s in solutions if s is not None]
    common = grids[0]
    for grid in grids[1:]:
        common = np.intersect1d(common, grid)
    if common.size == 0:
        raise InputError(
            "Prediction and reference have no saved step in common; use the same save_every for both."
        )
    rates = [s.learning_rate for s in solutions if s is not None]
    if not np.allclose(rates, rates[0], rtol=1e-6, atol=0):
        raise InputError(
            f"The learning rates differ ({', '.join(f'{r:g}' for r in rates)}): t = ηk means another instant "
            "in each. Compare runs of the same learning rate."
        )
    return common


def finite_pairs(prediction: Solution, reference: Solution) -> torch.Tensor:
    """Return which replicates diverged on neither side, (replicate,)."""
    if prediction.diverged.shape != reference.diverged.shape:
        raise InputError(
            f"There are {prediction.diverged.numel()} predicted paths and {reference.diverged.numel()} "
            "reference runs; paired=True needs replicate i of both to start from one state."
        )
    return (prediction.diverged < 0).cpu() & (reference.diverged < 0).cpu()


def curves(
    solution: Solution,
    observables: Sequence[str] | Mapping[str, Observable] | None,
    steps: NDArray[np.int64],
    keep: torch.Tensor | None = None,
) -> dict[str, Array]:
    """Return (replicate, time) values of the observables at ``steps``.

    Of the replicates ``keep``, or without it of those that did not diverge.
    """
    keep = (solution.diverged < 0).cpu() if keep is None else keep
    grid = solution.step.detach().cpu().numpy().astype(np.int64)
    index = torch.from_numpy(np.searchsorted(grid, steps))
    if isinstance(observables, Mapping):
        if "x" not in solution.state:
            raise InputError(
                "Observables given as functions need the states; integrate with keep_state=True, "
                "or pass names."
            )
        x = solution.state["x"][:, index.to(solution.state["x"].device)]
        flat = x.reshape(-1, x.shape[-1])
        found = {name: evaluate(name, f, flat).reshape(x.shape[:2]) for name, f in observables.items()}
        return {name: to_numpy(values)[keep.numpy()] for name, values in found.items()}
    return {name: to_numpy(values)[keep.numpy()][:, index] for name, values in solution.observables.items()}


def evaluate(name: str, function: Observable, x: torch.Tensor) -> torch.Tensor:
    """Return the observable of x (replicate, coordinate), (replicate,), or say what it is instead."""
    if not callable(function):
        raise InputError(f"Observable {name!r} is {kind_of(function)}; a function of x is needed.")
    values = function(x)
    fits = isinstance(values, torch.Tensor) and values.shape == x.shape[:1] and not values.is_complex()
    if not fits:
        shape = f"the shape {tuple(values.shape)}" if isinstance(values, torch.Tensor) else f"{values!r}"
        raise InputError(
            f"Observable {name!r} returned {shape} for x {tuple(x.shape)}; one real value a replicate is "
            "needed."
        )
    return values


def to_numpy(values: torch.Tensor) -> Array:
    return values.detach().cpu().to(torch.float64).numpy()


def common_names(
    prediction: dict[str, Array],
    reference: dict[str, Array],
    observables: Sequence[str] | Mapping[str, Observable] | None,
) -> list[str]:
    common = [name for name in prediction if name in reference]
    if observables is None:
        if not common:
            raise InputError(
                f"No observable in common: the prediction has {sorted(prediction)}, the reference has "
                f"{sorted(reference)}. Pass the same observables to both."
            )
        return common
    if isinstance(observables, str):
        observables = [observables]
    if not observables:
        raise InputError("observables is empty; name at least one, or leave it out to compare all.")
    for name in observables:
        if name not in common:
            raise unknown_name("observable in both solutions", name, common)
    return list(observables)
