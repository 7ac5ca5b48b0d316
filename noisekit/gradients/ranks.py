"""The processes that train one model together, and what they tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from noisekit.errors import InputError, UnsupportedModelError
from noisekit.gradients.process_group import backends_of, carrier, on_gpu, own_gpu
from noisekit.gradients.sharded import among_processes, sharded_names, shards_of


class Ranks:
    """A group of processes that work together; every method is called by all of them at the same point.

    Arguments: ``group`` a process group of torch.distributed, None for all processes.
    Raises InputError where no process group has been set up, or this process is not in ``group``.
    """

    def __init__(self, group: Any = None):
        if not (dist.is_available() and dist.is_initialized()):
            raise InputError(
                "There is no process group: start the script with torchrun and call "
                "torch.distributed.init_process_group() before nk.Ranks()."
            )
        self.group = group
        self.size = dist.get_world_size(group)
        self.rank = dist.get_rank(group)
        if self.rank < 0:
            raise InputError(
                "This process is not in the group that nk.Ranks was given: call it in its members."
            )
        self._backends = backends_of(group)
        self._gpu: torch.device | None = None
        """The GPU on which this process was seen to work."""

    def __repr__(self) -> str:
        return f"Ranks(rank {self.rank} of {self.size})"

    @classmethod
    def of(cls, model: nn.Module) -> Ranks | None:
        """Return the processes behind a DistributedDataParallel or fully_shard ``model``; None for one alone.

        Raises UnsupportedModelError for parameters that are sharded in another way.
        """
        if among_processes() and sharded_names(model):
            ranks = cls(shards_of(model))
            return ranks.near(model) if ranks.size > 1 else None
        inner: Any = model
        while isinstance(inner, nn.Module):
            if isinstance(inner, nn.parallel.DistributedDataParallel):
                ranks = cls(inner.process_group)
                return ranks.near(model) if ranks.size > 1 else None
            if isinstance(inner, nn.DataParallel) and len(inner.device_ids) > 1:
                raise UnsupportedModelError(
                    "DataParallel splits each batch over copies of the model, so hooks see only parts: use "
                    "DistributedDataParallel, one process a device."
                )
            inner = inner.module if isinstance(inner, nn.DataParallel) else getattr(inner, "_orig_mod", None)
        return None

    def near(self, where: nn.Module | Tensor) -> Ranks:
        """Remember the GPU of a model or tensor of this process: NCCL sends everything by way of it."""
        tensors = [where] if isinstance(where, Tensor) else where.parameters()
        self._gpu = next((t.device for t in tensors if t.device.type == "cuda"), self._gpu)
        return self

    def exchange(self, value: Any) -> list[Any]:
        """Return the small object ``value`` of every rank, in rank order; waits for the device."""
        gathered: list[Any] = [None] * self.size
        with on_gpu(self._backends, self.group, self._gpu):
            dist.all_gather_object(gathered, value, group=self.group)
        return gathered

    def gather(self, value: Any) -> list[Any]:
        """Return the object ``value`` of every rank, in rank order, on rank 0; nothing on the others."""
        gathered: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with on_gpu(self._backends, self.group, self._gpu):
            dist.gather_object(value, gathered, dst=self._global(0), group=self.group)
        return gathered or []

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over the ranks of ``tensors`` of one dtype, in one message."""
        flat = torch.cat([t.reshape(-1) for t in tensors])
        sent = self._sent(flat)
        dist.all_reduce(sent, group=self.group)
        parts = sent.to(flat.device).split([t.numel() for t in tensors])
        return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]

    def concatenate(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the ``rows`` of all ranks in rank order, of which rank r has ``counts[r]``."""
        own = self._sent(padded(rows, max(counts)))
        parts = [torch.empty_like(own) for _ in counts]
        dist.all_gather(parts, own, group=self.group)
        return _joined(parts, counts, rows.device)

    def collect(self, rows: Tensor, counts: Sequence[int], owner: int) -> Tensor | None:
        """Return ``concatenate`` on the rank ``owner``, None on the others."""
        own = self._sent(padded(rows, max(counts)))
        parts = [torch.empty_like(own) for _ in counts] if self.rank == owner else None
        dist.gather(own, parts, dst=self._global(owner), group=self.group)
        return None if parts is None else _joined(parts, counts, rows.device)

    def broadcast(self, values: Tensor, source: int) -> Tensor:
        """Return ``values`` as the rank ``source`` has them; they may be overwritten on the others."""
        sent = self._sent(values.contiguous())
        dist.broadcast(sent, self._global(source), group=self.group)
        return sent.to(values.device)

    def _sent(self, values: Tensor) -> Tensor:
        """Return ``values`` on a device from which the group can send them."""
        if values.device.type == "cpu" and "cpu" in self._backends:
            return values
        own = values.device if values.device.type == "cuda" else own_gpu(self.group, self._gpu)
        return values.to(carrier(self._backends, values.device, own))

    def _global(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


def _joined(parts: Sequence[Tensor], counts: Sequence[int], device: torch.device) -> Tensor:
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(device)


def padded(rows: Tensor, *lengths: int) -> Tensor:
    """Return ``rows`` with zeros behind, so that its first axes have these ``lengths``; contiguous."""
    if tuple(rows.shape[: len(lengths)]) == lengths:
        return rows.contiguous()
    longer = rows.new_zeros(*lengths, *rows.shape[len(lengths) :])
    longer[tuple(slice(n) for n in rows.shape[: len(lengths)])] = rows
    return longer
