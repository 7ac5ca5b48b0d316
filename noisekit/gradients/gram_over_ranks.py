"""The Gram matrix g_i·g_j of samples that lie on different processes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from noisekit.gradients.contributions import Contribution, Joined, chunks, measure
from noisekit.gradients.lookup import Lookup
from noisekit.gradients.measure import Request
from noisekit.gradients.outer import OuterProduct, OuterSum
from noisekit.gradients.ranks import Ranks, padded

Passes = Sequence[Sequence[Contribution]]
"""The uses of one parameter in each backward pass of this rank."""

Form = tuple[str, int]
"""How the contributions of a parameter can travel, and the number of positions of a sample."""


def form_of(passes: Passes) -> Form:
    """Return the factored form that all ``passes`` share, or "rows" where there is none."""
    if any(len(uses) != 1 for uses in passes):
        return "rows", 0
    uses = [uses[0] for uses in passes]
    if all(isinstance(use, OuterProduct) for use in uses):
        return "outer product", 0
    if all(isinstance(use, (OuterSum, Lookup)) for use in uses) and len({type(use) for use in uses}) == 1:
        name = "lookup" if isinstance(uses[0], Lookup) else "outer sum"
        return name, max(factors(use)[0].shape[1] for use in uses)
    return "rows", 0


def factors(use: Contribution) -> tuple[Tensor, Tensor]:
    """Return the two tensors, sample first, that make up a factored contribution."""
    if isinstance(use, Lookup):
        return use._tokens, use._gradients
    assert isinstance(use, (OuterProduct, OuterSum))
    return use.left, use.right


def gram_over_ranks(
    ranks: Ranks,
    uses: Sequence[tuple[Passes, Sequence[Form]]],
    counts: Sequence[int],
    scales: Tensor,
) -> Tensor:
    """Return g_i·g_j over the samples of all ranks, in rank order, the same on every rank.

    Inputs and output gradients of linear layers and embeddings are collected on one rank a parameter, which
    multiplies them as a single process does, so each number travels once and the ranks share the work. Other
    layers send the gradients of a chunk of samples to all ranks at a time, and each fills its own rows.

    Arguments: ``uses`` for each parameter its passes here and its form on every rank; ``counts`` the samples
    of each rank; ``scales`` (N,) what turns contributions into gradients.
    """
    n = sum(counts)
    total = scales.new_zeros(n, n)
    for k, (passes, forms) in enumerate(uses):
        names = {name for name, _ in forms}
        if len(names) == 1 and names != {"rows"}:
            found = _factored(ranks, passes, forms, counts, k % ranks.size)
            if found is not None:
                total += found
        else:
            _add_rows(ranks, Joined(passes), counts, total)
    (total,) = ranks.sum([total])
    return total * scales * scales[:, None]


def _factored(
    ranks: Ranks, passes: Passes, forms: Sequence[Form], counts: Sequence[int], owner: int
) -> Tensor | None:
    """Return the Gram matrix of one parameter on the rank ``owner``."""
    length = max(positions for _, positions in forms)
    collected = []
    for parts in zip(*(factors(uses[0]) for uses in passes), strict=True):
        if length:
            parts = tuple(padded(part, len(part), length) for part in parts)
        collected.append(ranks.collect(torch.cat(parts), counts, owner))
    first, second = collected
    if first is None or second is None:
        return None
    whole: Contribution
    if isinstance(passes[0][0], Lookup):
        whole = Lookup(first, second, passes[0][0].shape, None)
    elif length:
        whole = OuterSum(first, second)
    else:
        whole = OuterProduct(first, second)
    return measure([whole], Request(second_moment=False, squared_norms=False, gram=True)).gram


def _add_rows(ranks: Ranks, own: Joined, counts: Sequence[int], total: Tensor) -> None:
    """Add the products of this rank's gradients of one parameter with all others to its rows of ``total``."""
    size = own.shape.numel()
    starts = [0, *accumulate(counts)]
    mine = total[starts[ranks.rank] : starts[ranks.rank + 1]]
    for source, (start, stop) in enumerate(pairwise(starts)):
        for part in chunks(stop - start, size):
            if source == ranks.rank:
                theirs = own.rows(part).flatten(1).to(total.dtype)
            else:
                theirs = total.new_empty(part.stop - part.start, size)
            theirs = ranks.broadcast(theirs, source)
            columns = slice(start + part.start, start + part.stop)
            for here in chunks(own.n_samples, size):
                mine[here, columns] += own.rows(here).flatten(1).to(total.dtype) @ theirs.T
