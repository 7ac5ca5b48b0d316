"""The one door from results in memory to a labelled tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from noisekit.errors import InputError
from noisekit.results.attributes import storable
from noisekit.results.records import (
    gradient_noise_dataset,
    minibatch_noise_dataset,
    noise_model_dataset,
    samples_dataset,
    tail_index_dataset,
    training_dataset,
)
from noisekit.results.schema import SCHEMA
from noisekit.results.solutions import comparison_to_dataset, law_to_dataset, solution_to_dataset

if TYPE_CHECKING:
    from noisekit.gradients.record import GradientRecord
    from noisekit.noise.fit import NoiseFit
    from noisekit.noise.record_noise_scale import RecordNoiseScale
    from noisekit.sde.solution import Solution
    from noisekit.validation.comparison import Comparison

__all__ = ["solution_to_dataset", "to_datatree"]


def to_datatree(
    *,
    record: GradientRecord | None = None,
    noise_scale: RecordNoiseScale | None = None,
    mean_gradient_error: Any = None,
    noise_fits: Mapping[int, NoiseFit] | None = None,
    tail: Mapping[str, Any] | None = None,
    minibatch_noise: tuple[Any, NoiseFit] | None = None,
    solutions: Iterable[Solution] = (),
    laws: Mapping[str, Mapping[str, Any]] | None = None,
    comparisons: Iterable[Comparison] = (),
    experiments: Mapping[str, xr.Dataset] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Return one tree in the schema ``noisekit-1`` of whatever is given; every part may be missing.

    Args:
        record: gradient statistics over a training run.
        noise_scale: noise scales of the record's blocks over its steps, from ``record_noise_scale``.
        mean_gradient_error: (step,) relative difference of mean per-sample and training gradient.
        noise_fits: a fit of the recorded coordinates for each step in the mapping.
        tail: arrays by the names of ``/tail_index`` in the schema.
        minibatch_noise: (minibatch, coordinate) noise of minibatch gradients, and its fit.
        solutions: SDE paths and optimizer runs; ``kind`` decides the group.
        laws: for each optimizer, values by the names of ``/theory/*`` in the schema.
        comparisons: one for each optimizer.
        experiments: groups by path, as ``weak_order_groups``, ``robustness_groups``, ``sweep_groups``,
            ``batch_scaling_groups``, ``phase_groups`` and ``stationary_groups`` return them.
        provenance: root attributes, as ``provenance`` returns them.

    Raises:
        InputError: if two solutions would go to the same group, or a name or an axis is not in the schema.
    """
    groups: dict[str, xr.Dataset] = {}
    if record is not None:
        groups["/training"] = training_dataset(record)
        groups["/gradient_noise"] = gradient_noise_dataset(
            record, noise_scale=noise_scale, mean_gradient_error=mean_gradient_error
        )
        groups["/gradient_noise/samples"] = samples_dataset(record)
        if tail is not None:
            groups["/tail_index"] = tail_index_dataset(tail, record)
        if noise_fits is not None:
            groups["/noise_model"] = noise_model_dataset(noise_fits, record)
        if minibatch_noise is not None:
            groups["/minibatch_noise"] = minibatch_noise_dataset(*minibatch_noise, record)
    elif tail is not None or noise_fits is not None or minibatch_noise is not None:
        raise InputError(
            "Fits and tail indices are stored with the record they were made from; give record too."
        )
    for solution in solutions:
        path = f"/{'optimizer' if solution.kind == 'optimizer' else 'sde'}/{solution.optimizer}"
        if path in groups:
            raise InputError(f"Two solutions would go to {path}; keep one of them or rename its optimizer.")
        groups[path] = solution_to_dataset(solution)
    for optimizer, law in (laws or {}).items():
        groups[f"/theory/{optimizer}"] = law_to_dataset(optimizer, law)
    for comparison in comparisons:
        groups[f"/comparison/{comparison.optimizer}"] = comparison_to_dataset(comparison)
    for path, data in (experiments or {}).items():
        path = "/" + path.strip("/")
        if path in groups:
            raise InputError(f"Two results would go to {path}; keep one of them or rename its optimizer.")
        groups[path] = data
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {"Conventions": SCHEMA, **storable(provenance or {})}
    return tree
