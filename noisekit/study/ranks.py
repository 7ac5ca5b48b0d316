"""A study shared by processes: each does whole tasks, and the first gets every result.

A task is done by one process just as a single one would do it, so that the numbers do not depend on how many
there are. What one process cannot do is raised on all of them: none is left waiting.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from noisekit.errors import InputError, NoisekitError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from noisekit.gradients import Ranks
    from noisekit.sde import Solution

Key = TypeVar("Key")
Result = TypeVar("Result")

PATIENCE = timedelta(days=30)
"""How long processes wait for one that still computes; one that ended is noticed at once."""


@contextmanager
def launched(device: str | None = None) -> Iterator[Ranks | None]:
    """Join the processes that torchrun started for the time of the block; None where there is but this one.

    ``device`` "cuda" is then the GPU of this process's number on its machine.
    Raises InputError where WORLD_SIZE says that there are others, and nothing says where.
    """
    size = os.environ.get("WORLD_SIZE") or "1"
    if size == "1":
        yield None
        return
    numbers = all(os.environ.get(name, "").isdigit() for name in ("WORLD_SIZE", "RANK", "MASTER_PORT"))
    if not numbers or not os.environ.get("MASTER_ADDR"):
        raise InputError(
            f"WORLD_SIZE is {size!r}, but RANK or MASTER_PORT is no number, or MASTER_ADDR is missing; start "
            "the processes with torchrun, or unset WORLD_SIZE."
        )
    # The command line looks at what it was given without waiting for torch.
    import torch
    from torch import distributed as dist

    from noisekit.gradients import Ranks

    if device == "cuda" and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or 0) % torch.cuda.device_count())
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks()
    finally:
        dist.destroy_process_group()


def is_first(ranks: Ranks | None) -> bool:
    """Whether this is the process that trains, writes files and shows progress."""
    return ranks is None or ranks.rank == 0


def agreed(ranks: Ranks | None, work: Callable[[], Result]) -> Result:
    """Return what ``work()`` returns on this process; what it raises on one is raised on each."""
    if ranks is None:
        return work()
    mine: Exception | None = None
    try:
        found = work()
    except Exception as error:
        mine = error
    try:
        said = _heard(lambda: ranks.exchange(None if mine is None else _portable(mine)))
    except NoisekitError as gone:
        raise mine or gone from gone.__cause__
    if mine is not None:
        raise mine
    for other in filter(None, said):
        raise other
    return found


def on_all(ranks: Ranks | None, work: Callable[[], Mapping[Key, Result]]) -> dict[Key, Result]:
    """Return what ``work()`` returns on any of the processes; what it raises on one is raised on each."""
    found = agreed(ranks, work)
    return _joined([found] if ranks is None else _heard(lambda: ranks.exchange(found)))


def on_first(ranks: Ranks | None, work: Callable[[], Mapping[Key, Result]]) -> dict[Key, Result]:
    """Return ``on_all`` on the first process, which alone needs the room for it; nothing on the others."""
    found = agreed(ranks, work)
    return _joined([found] if ranks is None else _heard(lambda: ranks.gather(found)))


def from_first(ranks: Ranks | None, work: Callable[[], Result]) -> Result:
    """Return on each process what ``work()`` returns, or raise what it raises, on the first one."""
    return on_all(ranks, lambda: {"": work()} if is_first(ranks) else {})[""]


def tasks_of(costs: Mapping[Key, float], ranks: Ranks | None) -> list[Key]:
    """Return the tasks of this process: each task in turn goes to the one that has least to do."""
    if ranks is None:
        return list(costs)
    loads, own = [0.0] * ranks.size, []
    for key, cost in costs.items():
        taker = loads.index(min(loads))
        loads[taker] += cost
        if taker == ranks.rank:
            own.append(key)
    return own


def local_processes(ranks: Ranks | None) -> int:
    """Return how many of the processes share the cores of this machine."""
    return 1 if ranks is None else int(os.environ.get("LOCAL_WORLD_SIZE") or ranks.size)


def moved(solution: Solution, device: torch.device | str) -> Solution:
    """Return ``solution`` with its numbers on ``device``."""

    def each(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(device) for name, value in values.items()}

    return replace(
        solution,
        state=each(solution.state),
        observables=each(solution.observables),
        statistics=each(solution.statistics),
        diverged=solution.diverged.to(device),
    )


def _joined(parts: Iterable[Mapping[Key, Result]]) -> dict[Key, Result]:
    return {key: value for part in parts for key, value in part.items()}


def _heard(call: Callable[[], Result]) -> Result:
    """Return what the other processes say, or raise NoisekitError if one of them is gone."""
    try:
        return call()
    except RuntimeError as error:
        raise NoisekitError("Another process of the study ended early; its output says why.") from error


def _portable(error: Exception) -> Exception:
    """Return ``error`` if another process can read it, else one that says the same."""
    try:
        copy: Any = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error if isinstance(copy, type(error)) else RuntimeError(str(error))
