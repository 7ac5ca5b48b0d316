"""Sums over the samples of one or several backward passes, from which every statistic follows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from noisekit.errors import InputError, NonFiniteError, UnsupportedModelError
from noisekit.gradients import device
from noisekit.gradients.contributions import Contribution, Explicit, measure
from noisekit.gradients.measure import Measured, Request, Workspace, measure_rows
from noisekit.gradients.record import GradientStatistics
from noisekit.gradients.selection import Selection


@dataclass(frozen=True)
class Sums:
    """Sufficient statistics of the per-sample gradients g_i of n samples."""

    n_samples: int
    total: dict[str, Tensor]
    """Σ_i g_i / ``scale`` by parameter."""
    second: dict[str, Tensor]
    """Σ_i (g_i / ``scale``)² by parameter."""
    squared_norms: Tensor
    gram: Tensor | None
    values: Tensor | None
    sketch: Tensor | None
    scale: float = 1.0
    """Multiplied in where means and variances are taken, which saves a way through all parameters."""

    def means(self) -> dict[str, Tensor]:
        """Return (1/n) Σ g_i by parameter."""
        return _scaled(self.total, list(self.total), self.scale / self.n_samples)

    def variances(self) -> dict[str, Tensor]:
        """Return the unbiased variance of one sample's gradient by parameter."""
        n = self.n_samples
        names = list(self.second)
        totals = [self.total[name] for name in names]
        found = list(torch._foreach_addcmul([self.second[name] for name in names], totals, totals, -1 / n))
        if not math.isclose(self.scale**2, n - 1, rel_tol=1e-14):
            torch._foreach_mul_(found, self.scale**2 / (n - 1))
        torch._foreach_clamp_min_(found, 0)
        return dict(zip(names, found, strict=True))

    def check_finite(self, where: str) -> None:
        """Raise NonFiniteError naming a parameter and a sample; waits for the device."""
        if math.isfinite(float(self.squared_norms.sum())) or bool(self.squared_norms.isfinite().all()):
            return  # a sum is one small step; it may overflow where all is finite
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
        self._added: set[str] = set()
        self._total: dict[str, Tensor] = {}
        self._second: dict[str, Tensor] = {}
        self._small: dict[str, Tensor] = {}
        self._norms: Tensor | None = None
        self._gram: Tensor | None = None
        self._values: dict[str, Tensor] = {}
        self._sketch: Tensor | None = None
        self._spectrum: Tensor | None = None
        self._workspace = Workspace()
        self._whole_sums: dict[str, tuple[Tensor, Tensor]] = {}
        """Where no coordinates are kept: by how much Σ_i c_i misses the gradient, and Σ_i |c_i|."""

    @property
    def empty(self) -> bool:
        """Whether nothing was added yet."""
        return not self._added

    @property
    def example(self) -> Tensor:
        """Some parameter's gradient, for its device and dtype."""
        return next(iter(self._total.values()))

    def add(self, name: str, uses: Sequence[Contribution], gradient: Tensor, *, copy: bool = False) -> None:
        """Add the parameter ``name``; ``copy`` its gradient if somebody else may overwrite it."""
        if name in self._added:
            raise InputError(
                f"Two backward passes went through one forward pass of the model, and {name} has a gradient "
                "from both: add the losses and call backward once."
            )
        gradient = gradient.to_dense().detach()
        if gradient.dtype in (torch.float16, torch.bfloat16):
            gradient = gradient.float()
        elif copy:
            gradient = gradient.clone()
        self._total[name] = gradient
        if self.selection.index is None and not self.selection.checked:
            self._whole_sums[name] = _compared(uses, gradient)
        self.add_samples(name, uses)

    def add_samples(self, name: str, uses: Sequence[Contribution]) -> None:
        """Add the parameter ``name``, whose gradient is the sum over the samples unless it is known."""
        self._added.add(name)
        self.n_samples = uses[0].n_samples
        alone = self.selection.only_moments and len(uses) == 1 and uses[0].factored
        if name in self.selection.small and not alone:
            self._small[name] = _held_rows(uses)
            return
        total = name not in self._total
        found = measure(uses, self.selection.request(name, self._workspace, total=total))
        if found.total is not None:
            self._total[name] = found.total
        if found.second_moment is not None:
            self._second[name] = found.second_moment
        if found.values is not None:
            self._values[name] = found.values
        self._add(found)

    def _add(self, found: Measured) -> None:
        assert found.squared_norms is not None
        self._norms = _plus(self._norms, found.squared_norms)
        if found.gram is not None:
            self._gram = _plus(self._gram, found.gram)
        if found.sketch is not None:
            self._sketch = _plus(self._sketch, found.sketch)
        if found.spectrum is not None:
            self._spectrum = _plus(self._spectrum, found.spectrum)

    def _measure_small(self) -> None:
        """Measure the small parameters together; one without a gradient in this pass counts as zero."""
        if not self._small:
            return
        small, like = self._places_of_small(), next(iter(self._small.values()))
        rows = [
            self._small[name]
            if name in self._small
            else like.new_zeros(self.n_samples, part.stop - part.start)
            for name, part in small.items()
        ]
        unknown = [name for name in self._small if name not in self._total]
        found = measure_rows(torch.cat(rows, 1), self.selection.request("", total=bool(unknown)))
        self._add(found)
        if found.total is not None:
            for name in unknown:
                self._total[name] = found.total[small[name]].reshape(self.selection.shapes[name])
        if found.second_moment is not None:
            for name, part in small.items():
                if name in self._small:
                    self._second[name] = found.second_moment[part].reshape(self.selection.shapes[name])
        if found.values is not None:
            start = 0
            for name, part in self.selection.columns.items():
                if name in small:
                    count = part.stop - part.start
                    self._values[name] = found.values[:, start : start + count]
                    start += count
        self._small.clear()

    def _places_of_small(self) -> Mapping[str, slice]:
        """Return where the small parameters are in their concatenation."""
        if not self.selection.only_moments:
            return self.selection.small
        sizes = {name: rows.shape[1] for name, rows in self._small.items()}
        ends = accumulate(sizes.values())
        return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}

    def sums(self, scale: float | Tensor, names: Sequence[str], *, later: bool = False) -> Sums:
        """Return the sums for ``names`` in that order, contributions multiplied by ``scale``.

        ``later`` leaves the scale of the sums over the samples to whoever takes means and variances.
        """
        self._measure_small()
        self._workspace = Workspace()
        assert self._norms is not None
        square = scale * scale
        left = float(scale) if later else 1.0
        of_sums, of_squares = (1.0, 1.0) if later else (scale, square)
        columns = self.selection.columns
        values = [
            self._values[name]
            if name in self._values
            else self._norms.new_zeros(self.n_samples, part.stop - part.start)
            for name, part in columns.items()
        ]
        sketch = self._sketch
        if self._spectrum is not None:
            sketch = _plus(torch.fft.irfft(self._spectrum, n=self.selection.sketch), sketch)
        return Sums(
            self.n_samples,
            self._complete(_scaled(self._total, names, of_sums), names),
            self._complete(_scaled(self._second, names, of_squares), names),
            self._norms * square,
            None if self._gram is None else self._gram * square,
            torch.cat(values, 1).mul_(scale) if values else None,
            None if sketch is None else sketch * scale,
            left,
        )

    def _complete(self, found: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Return ``found`` with zeros for the parameters that had no gradient in this pass."""
        if not found or len(found) == len(names):
            return found
        like = next(iter(found.values()))
        shapes = self.selection.shapes
        return {name: found[name] if name in found else like.new_zeros(shapes[name]) for name in names}

    def _agree_at_once(self, names: Sequence[str], tolerance: float) -> bool:
        """Whether the samples add up so well in all parameters that no one of them needs a look."""
        values = torch.cat([self._values[name] for name in names], 1)
        gradient = torch.cat([self._total[name].flatten()[self.selection.positions(name)] for name in names])
        gap = (values.sum(0) - gradient).abs().max()
        return bool(gap <= tolerance * values.abs().sum(0).max())

    def check_that_samples_add_up(self, *, half_precision: bool = False) -> None:
        """Raise where the samples' gradients at the coordinates do not add up to the parameter's gradient.

        Then something else than the loss of the samples was differentiated too. On a device this is done
        once, not to wait for it at every step; without coordinates too, for it takes the whole gradients.
        """
        gradient = self.example
        on_device = not device.on_host(gradient)
        if on_device and self.selection.checked:
            return
        exact = 1e-6 if gradient.dtype == torch.float64 else 1e-2 if on_device else 1e-3
        tolerance = 5e-2 if half_precision else exact
        self._measure_small()
        names = [name for name in self.selection.columns if name in self._values and name in self._total]
        if not on_device and names and self._agree_at_once(names, 1e-3 * tolerance):
            return
        gaps, sizes = [], []
        for gap, size in self._whole_sums.values():
            gaps.append(gap)
            sizes.append(size)
        for name in names:
            values = self._values[name]
            gradient = self._total[name].flatten()[self.selection.positions(name)]
            gaps.append((values.sum(0) - gradient).abs().max())
            sizes.append(values.abs().sum(0).max())
        names = [*self._whole_sums, *names]
        self.selection.checked = True
        if not names:
            return
        gap, size = torch.stack(gaps), torch.stack(sizes)
        wrong = (gap > tolerance * (size + 1e-3 * size.max())).tolist()
        if any(wrong):
            shown = ", ".join(name for name, bad in zip(names, wrong, strict=True) if bad)
            raise UnsupportedModelError(
                f"The gradient of {shown} is not the sum of the gradients of the samples' losses: a "
                "penalty on the weights or a second loss was differentiated with them. Give weight decay to "
                "the optimizer, put all terms of a sample into loss_fn, or call recorder.record(inputs, "
                "targets) in the loop. Or a layer takes an argument that belongs to no sample and has as "
                "many rows as the batch has samples: give that argument a leading axis of one."
            )


def _compared(uses: Sequence[Contribution], gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return |Σ_i c_i − gradient| and Σ_i |c_i|."""
    found = measure(uses, Request(second_moment=False, total=True))
    assert found.total is not None
    assert found.squared_norms is not None
    return (found.total - gradient).norm(), found.squared_norms.sqrt().sum()


def _held_rows(uses: Sequence[Contribution]) -> Tensor:
    """Return Σ_uses c_i as (sample, d), not to be written to."""
    first = uses[0]
    if len(uses) == 1 and isinstance(first, Explicit):
        return first.gradients.reshape(first.n_samples, -1)
    everything = slice(0, first.n_samples)
    return torch.stack([use.rows(everything) for use in uses]).sum(0).reshape(first.n_samples, -1)


def _scaled(tensors: dict[str, Tensor], names: Sequence[str], scale: float | Tensor) -> dict[str, Tensor]:
    """Return ``tensors`` multiplied by ``scale``, in the order of ``names``."""
    present = [name for name in names if name in tensors]
    if not present:
        return {}
    if isinstance(scale, float) and scale == 1:
        return {name: tensors[name] for name in present}
    return dict(zip(present, torch._foreach_mul([tensors[name] for name in present], scale), strict=True))


def _plus(total: Tensor | None, term: Tensor | None) -> Tensor:
    if total is None:
        assert term is not None
        return term.clone()
    return total if term is None else total.add_(term)


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
