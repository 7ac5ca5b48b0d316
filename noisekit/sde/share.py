"""The share of an ensemble that one of several processes steps, and how the shares are brought together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from noisekit._typing import State
from noisekit.errors import InputError, kind_of
from noisekit.gradients.ranks import Ranks
from noisekit.sde.blocks import Block, group_blocks, replicate_blocks


@dataclass(frozen=True)
class Share:
    """Consecutive blocks of replicates that this process steps, all of them where it works alone.

    A process that is left without blocks steps the first ones along, so that it has what to call the
    equation with, and hands in none.
    """

    blocks: list[Block]
    counts: list[int]
    """Replicates that each process hands in, in rank order."""
    ranks: Ranks | None

    @classmethod
    def of(cls, x: Tensor, ranks: Ranks | None) -> Share:
        """Return the share of this process in the ensemble ``x`` (replicate, coordinate).

        Blocks that are stepped together on the CPU stay together where there are enough of them, since
        products of matrices round differently for other numbers of rows.
        """
        if not isinstance(ranks, (Ranks, type(None))):
            raise InputError(f"ranks is {kind_of(ranks)}; give nk.Ranks() or None.")
        blocks = replicate_blocks(*x.shape, on_cpu=x.device.type == "cpu")
        if ranks is None:
            return cls(blocks, [len(x)], None)
        ranks.near(x)
        units = group_blocks(blocks, x.shape[1], together=False)
        if len(units) < ranks.size:
            units = [[block] for block in blocks]
        shares = cut([sum(block.used for block in unit) for unit in units], ranks.size)
        counts = [sum(block.used for unit in units[part] for block in unit) for part in shares]
        own = [block for unit in units[shares[ranks.rank]] for block in unit]
        return cls(own or units[0], counts, ranks)

    @property
    def rows(self) -> slice:
        """The replicates that this process steps, of all."""
        return slice(self.blocks[0].start, self.blocks[-1].stop)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.ranks is None or self.ranks.rank == 0

    def part(self, state: State) -> State:
        """Return the rows of the whole ``state`` that this process steps."""
        if self.ranks is None:
            return state
        return {name: value[self.rows].clone() for name, value in state.items()}

    def whole(self, values: Tensor) -> Tensor:
        """Return ``values`` (replicate, …) of the replicates of all processes, on every one of them."""
        if self.ranks is None:
            return values
        return self.ranks.concatenate(values[: self.counts[self.ranks.rank]], self.counts)

    def wholes(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``whole`` of each of ``values``."""
        return {name: self.whole(value) for name, value in values.items()}

    def check_same(self, arguments: dict[str, Any]) -> None:
        """Raise InputError where the processes were called with different ``arguments``."""
        if self.ranks is None:
            return
        told = self.ranks.exchange(arguments)
        differing = sorted({key for own in told for key in own if own[key] != told[0].get(key)})
        if differing:
            raise InputError(
                f"The processes were given different arguments ({', '.join(differing)}); "
                "call this with the same ones on every rank."
            )


def cut(sizes: list[int], parts: int) -> list[slice]:
    """Return as many slices of ``sizes`` as ``parts``, one after the other, with about equal sums."""
    total, slices, start, reached = sum(sizes), [], 0, 0
    for part in range(1, parts + 1):
        stop = start
        # An item goes to the part in which its middle lies.
        while stop < len(sizes) and (reached + sizes[stop] / 2) * parts <= part * total:
            reached += sizes[stop]
            stop += 1
        slices.append(slice(start, stop))
        start = stop
    return slices
