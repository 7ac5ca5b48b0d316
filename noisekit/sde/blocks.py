"""Blocks of replicates that share a stream of random numbers, and chunks that are stepped together."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK_ELEMENTS = 2**15
"""Numbers of replicate × coordinate in a large block, and in a chunk: what stays in a cache."""
_GPU_BLOCK_ELEMENTS = 2**22
_GPU_CHUNK_ELEMENTS = 2**25
_FIRST_BLOCK_ELEMENTS = 2**12
_WIDE_CHUNK_ELEMENTS = 2**16
"""In a chunk of one thread: calls cost less a number, and what a substep touches still stays in a cache."""


@dataclass(frozen=True)
class Block:
    """Replicates that share one stream: rows ``start`` to ``start + size``, of which ``used`` exist."""

    index: int
    start: int
    size: int
    used: int

    @property
    def stop(self) -> int:
        """The row after the last one in use."""
        return self.start + self.used


def replicate_blocks(replicates: int, dimension: int, *, on_cpu: bool = True) -> list[Block]:
    """Return the blocks of the replicates; their borders depend on the dimension and kind of device alone.

    Blocks double from a few rows up to about 32 768 numbers, so that few replicates waste few draws; on a GPU
    up to four millions, because every block is a kernel of its own.
    """
    largest = max(1, (BLOCK_ELEMENTS if on_cpu else _GPU_BLOCK_ELEMENTS) // dimension)
    size = max(1, min(16, largest, _FIRST_BLOCK_ELEMENTS // dimension))
    blocks: list[Block] = []
    start = 0
    while start < replicates:
        blocks.append(Block(len(blocks), start, size, min(size, replicates - start)))
        start += size
        size = min(start, largest)
    return blocks


def group_blocks(
    blocks: list[Block], dimension: int, *, together: bool, wide: bool = False
) -> list[list[Block]]:
    """Group consecutive blocks into chunks to step together: what a cache holds, or a thousand times it.

    Larger chunks would not keep a GPU busier, and take memory for the random numbers of a step. ``wide``
    chunks have twice the usual size.
    """
    most = _WIDE_CHUNK_ELEMENTS if wide else BLOCK_ELEMENTS
    most = _GPU_CHUNK_ELEMENTS if together else most
    chunks: list[list[Block]] = [[]]
    for block in blocks:
        rows = sum(b.used for b in chunks[-1]) + block.used
        if chunks[-1] and rows * dimension > most:
            chunks.append([])
        chunks[-1].append(block)
    return chunks
