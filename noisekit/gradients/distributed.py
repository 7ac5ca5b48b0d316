"""Statistics of the whole batch under DistributedDataParallel, from the local samples of each process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from noisekit.errors import UnsupportedModelError
from noisekit.gradients.collector import Collector, Sums, merge_sums
from noisekit.gradients.contributions import Contribution
from noisekit.gradients.engine import MissedUseError, Pass
from noisekit.gradients.gram_over_ranks import Form, form_of, gram_over_ranks
from noisekit.gradients.ranks import Ranks
from noisekit.gradients.selection import Selection
from noisekit.gradients.training_pass import TrainingPass


@dataclass(frozen=True)
class LocalPass:
    """One backward pass of this process."""

    sums: Sums
    loss: Tensor
    reduction: str
    scale: Tensor
    """What turns contributions into per-sample gradients, a number."""
    uses: Mapping[str, Sequence[Contribution]] | None
    """Every use of every parameter, where a Gram matrix is wanted."""


def sums_of_batch(
    ranks: Ranks | None, keep_uses: bool, selection: Selection, run: Callable[..., Pass]
) -> tuple[Sums, Tensor]:
    """Return the sums over the samples of one pass ``run``, of all ranks where there are several."""
    collector, names = Collector(selection), list(selection.sizes)
    uses: dict[str, Sequence[Contribution]] = {}

    def keep(name: str, own: Sequence[Contribution], gradient: Tensor) -> None:
        uses[name] = list(own)
        collector.add(name, own, gradient)

    if ranks is None:
        try:
            done = run(collector.add, by_samples=collector.add_samples)
        except MissedUseError:
            collector = Collector(selection)
            done = run(collector.add)
        if not done.by_samples:
            collector.check_that_samples_add_up(half_precision=done.half_precision)
            done.trust()
        return collector.sums(done.scale, names, later=done.by_samples), done.loss
    done = run(keep if keep_uses else collector.add)
    sums = collector.sums(done.scale, names)
    scale = sums.squared_norms.new_tensor(done.scale)
    return merge_passes(ranks, [LocalPass(sums, done.loss, done.reduction, scale, uses or None)], names)


def merge_step(
    ranks: Ranks, model: nn.Module, passes: Sequence[TrainingPass], names: Sequence[str]
) -> tuple[Sums, Tensor]:
    """Return the sums over the samples of all ranks for the ``passes`` before one optimizer step.

    See ``merge_passes``.
    """
    samples = sum(sum(own) for own in ranks.exchange([p.n_samples for p in passes]))
    for p in passes:
        p.step_samples = samples
    local = []
    for p in passes:
        sums = p.sums(model, names)
        assert p.loss is not None
        local.append(LocalPass(sums, p.loss, p.reduction, p.scale, p.uses))
    return merge_passes(ranks, local, names)


def merge_passes(ranks: Ranks, passes: Sequence[LocalPass], names: Sequence[str]) -> tuple[Sums, Tensor]:
    """Return the sums over the samples of all ranks, the same on every rank, and the loss of all samples.

    Samples come in rank order and, on each rank, in the order of its passes: all is what one process finds
    on the concatenated batch. Σ g_i and Σ g_i² are added; |g_i|², coordinates and sketches are gathered;
    the Gram matrix is exact too, see ``gram_over_ranks``. The means are over samples: where the ranks have
    batches of different sizes, the training gradient, which DistributedDataParallel averages over ranks, is
    another one.

    Raises UnsupportedModelError where the ranks do not use the same parameters.
    """
    several = len(passes) > 1
    told = ranks.exchange(
        (
            list(names),
            [p.sums.n_samples for p in passes],
            [bool(p.sums.squared_norms.isfinite().all()) for p in passes] if several else [True],
        )
    )
    if any(own != told[0][0] for own, _, _ in told):
        raise UnsupportedModelError(
            "The processes do not use the same parameters in this step, so their samples make no common "
            "batch: record steps in which every process runs the same layers."
        )
    first = _first_finite([finite for _, _, finite in told])
    passes = passes[first:]
    counts = [sum(samples[first:]) for _, samples, _ in told]
    local = replace(merge_sums([p.sums for p in passes]), gram=None)
    merged = _merge(ranks, local, counts)
    loss = _loss(ranks, passes, sum(counts))
    if any(p.uses is None for p in passes):
        return merged, loss
    uses = [[list(p.uses[name]) for p in passes if p.uses is not None] for name in names]
    forms: list[Sequence[Form]] = list(zip(*ranks.exchange([form_of(u) for u in uses]), strict=True))
    scales = torch.cat([p.scale.expand(p.sums.n_samples) for p in passes]).to(merged.squared_norms.dtype)
    everywhere = ranks.concatenate(scales, counts)
    gram = gram_over_ranks(ranks, list(zip(uses, forms, strict=True)), counts, everywhere)
    return replace(merged, gram=gram), loss


def _merge(ranks: Ranks, local: Sums, counts: Sequence[int]) -> Sums:
    def gathered(rows: Tensor | None) -> Tensor | None:
        return None if rows is None else ranks.concatenate(rows, counts)

    return Sums(
        sum(counts),
        _summed(ranks, local.total),
        _summed(ranks, local.second),
        ranks.concatenate(local.squared_norms, counts),
        None,
        gathered(local.values),
        gathered(local.sketch),
    )


def _summed(ranks: Ranks, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sums over the ranks by name, one message a dtype."""
    result: dict[str, Tensor] = {}
    for dtype in dict.fromkeys(t.dtype for t in tensors.values()):
        alike = {name: t for name, t in tensors.items() if t.dtype == dtype}
        result.update(zip(alike, ranks.sum(list(alike.values())), strict=True))
    return {name: result[name] for name in tensors}


def _loss(ranks: Ranks, passes: Sequence[LocalPass], n: int) -> Tensor:
    terms = [p.loss * (p.sums.n_samples / n) if p.reduction == "mean" else p.loss for p in passes]
    return ranks.sum([torch.stack(terms).sum()])[0]


def _first_finite(finite: Sequence[Sequence[bool]]) -> int:
    """Return the first pass that is finite on all ranks: those before it, a GradScaler has skipped."""
    if len({len(own) for own in finite}) > 1:
        return 0
    together = [all(flags) for flags in zip(*finite, strict=True)]
    return together.index(True) if True in together else 0
