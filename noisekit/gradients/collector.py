"""Sums over the samples of one or several backward passes, from which every statistic follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit.errors import NonFiniteError
from noisekit.gradients.contributions import Contribution, measure
from noisekit.gradients.record import GradientStatistics
from noisekit.gradients.selection import Selection


@dataclass(frozen=True)
class Sums:
    """Sufficient statistics of the per-sample gradients g_i of n samples."""

    n_samples: int
    total: dict[str, Tensor]
    """Σ_i g_i by parameter."""
    second: dict[str, Tensor]
    """Σ_i g_i² by parameter."""
    squared_norms: Tensor
    gram: Tensor | None
    values: Tensor | None
    sketch: Tensor | None

    def means(self) -> dict[str, Tensor]:
        """Return (1/n) Σ g_i by parameter."""
        return {name: t / self.n_samples for name, t in self.total.items()}

    def variances(self) -> dict[str, Tensor]:
        """Return the unbiased variance of one sample's gradient by parameter."""
        n = self.n_samples
        return {
            name: torch.addcmul(second, self.total[name], self.total[name], value=-1 / n)
            .div_(n - 1)
            .clamp_(min=0)
            for name, second in self.second.items()
        }

    def check_finite(self, where: str) -> None:
        """Raise NonFiniteError naming a parameter and a sample; waits for the device."""
        if bool(self.squared_norms.isfinite().all()):
            return
        sample = int((~self.squared_norms.isfinite()).nonzero()[0])
        bad = [name for name, t in self.second.items() if not bool(t.isfinite().all())]
        raise NonFiniteError(
            f"The gradient of sample {sample} of the batch is NaN or infinite{where}, in "
            f"{', '.join(bad[-3:])}: look at "
            "that sample, lower the learning rate, or check the loss for log(0) and division by 0."
        )


class Collector:
    """Takes the contributions of each parameter as the backward pass delivers them."""

    def __init__(self, selection: Selection):
        self.selection = selection
        self.n_samples = 0
        self._total: dict[str, Tensor] = {}
        self._second: dict[str, Tensor] = {}
        self._norms: Tensor | None = None
        self._gram: Tensor | None = None
        self._values: dict[str, Tensor] = {}
        self._sketch: Tensor | None = None

    @property
    def empty(self) -> bool:
        return self._norms is None

    def add(self, name: str, uses: Sequence[Contribution], gradient: Tensor, *, copy: bool = False) -> None:
        """Add the parameter ``name``; ``copy`` its gradient if somebody else may overwrite it."""
        found = measure(uses, self.selection.request(name))
        self.n_samples = uses[0].n_samples
        gradient = gradient.to_dense().detach()
        if gradient.dtype in (torch.float16, torch.bfloat16):
            gradient = gradient.float()
        elif copy:
            gradient = gradient.clone()
        self._total[name] = gradient
        if found.second_moment is not None:
            self._second[name] = found.second_moment
        assert found.squared_norms is not None
        self._norms = _plus(self._norms, found.squared_norms)
        if found.gram is not None:
            self._gram = _plus(self._gram, found.gram)
        if found.values is not None:
            self._values[name] = found.values
        if found.sketch is not None:
            self._sketch = _plus(self._sketch, found.sketch)

    def sums(self, scale: float | Tensor, names: Sequence[str]) -> Sums:
        """Return the sums for ``names`` in that order, contributions multiplied by ``scale``."""
        assert self._norms is not None
        square = scale * scale
        values = [self._values[name] for name in self.selection.columns]
        return Sums(
            self.n_samples,
            {name: self._total[name] * scale for name in names},
            {name: self._second[name] * square for name in names if name in self._second},
            self._norms * square,
            None if self._gram is None else self._gram * square,
            torch.cat(values, 1) * scale if values else None,
            None if self._sketch is None else self._sketch * scale,
        )


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    return term.clone() if total is None else total.add_(term)


def merge_sums(parts: Sequence[Sums]) -> Sums:
    """Return the sums over the samples of all ``parts``; a Gram matrix only if there is one part."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Sums(
        sum(part.n_samples for part in parts),
        {name: torch.stack([part.total[name] for part in parts]).sum(0) for name in first.total},
        {name: torch.stack([part.second[name] for part in parts]).sum(0) for name in first.second},
        torch.cat([part.squared_norms for part in parts]),
        None,
        None if first.values is None else torch.cat([p.values for p in parts if p.values is not None]),
        None if first.sketch is None else torch.cat([p.sketch for p in parts if p.sketch is not None]),
    )


def to_statistics(
    sums: Sums, selection: Selection, coverage: float, uncovered: list[str]
) -> GradientStatistics:
    """Return ``sums`` as statistics."""
    return GradientStatistics(
        n_samples=sums.n_samples,
        mean=sums.means(),
        variance=sums.variances(),
        squared_norms=sums.squared_norms,
        gram=sums.gram,
        coordinate_index=selection.index,
        coordinate_values=sums.values,
        sketch=sums.sketch,
        coverage=coverage,
        uncovered=uncovered,
    )
