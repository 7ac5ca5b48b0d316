"""Cells computed in processes that end with the study, whatever ends it, and leave nothing half-written."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Protocol, TypeVar

PARTIAL = ".partial"
"""Ending of a file that is being written."""
_STALE = 3600.0
"""Seconds after which a partial file is that of a process that was killed: writing takes less than one."""
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class Storable(Protocol):
    """What is computed, and kept in a folder."""

    def store(self, folder: Path) -> None:
        """Compute it and write its file."""


C = TypeVar("C", bound=Storable)


def stored(
    cells: Sequence[C], folder: Path, workers: int
) -> Generator[tuple[C, BaseException | None], None, None]:
    """Store ``cells`` in ``workers`` processes of one thread, and yield each with its error or None.

    With one worker they are computed in this process. Where the loop over this ends early, by an interruption
    or because its generator is closed, the processes are ended and what they were writing is removed.
    """
    if workers == 1:
        for cell in cells:
            yield cell, _attempt(cell, folder)
        return
    before = set(active_children())
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    try:
        futures = {pool.submit(cell.store, folder): cell for cell in cells}
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield futures[future], future.exception()
    except BaseException:
        children = set(active_children()) - before
        for child in children:
            child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        for child in children:
            child.join()
            for partial in folder.glob(f"*.{child.pid}{PARTIAL}"):
                partial.unlink(missing_ok=True)
        raise
    pool.shutdown()


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left half-written."""
    for partial in folder.glob(f"*{PARTIAL}"):
        try:
            if time.time() - partial.stat().st_mtime > _STALE:
                partial.unlink()
        except FileNotFoundError:  # another process was quicker
            continue


def reason_to_stop(error: BaseException, folder: Path) -> str:
    """Return, in one sentence, why no further cell can succeed after ``error``; nothing if others may."""
    if isinstance(error, BrokenProcessPool):
        return (
            "A process of the study was killed from outside, most often because memory ran out; run it again "
            "with fewer workers."
        )
    if isinstance(error, OSError):
        text = str(error).lower()
        full = error.errno == errno.ENOSPC or "no space left" in text or "errno = 28" in text
        if full:
            return f"The disk of {folder} is full; make room and run it again."
        if error.errno in _DISK:
            return (
                f"{folder} cannot be written: {error.strerror or error}; name another folder for the cells."
            )
    return ""


def _attempt(cell: Storable, folder: Path) -> Exception | None:
    try:
        cell.store(folder)
    except Exception as error:
        return error
    return None


def _begin() -> None:
    """Leave an interruption to the parent, end with it, and compute with one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    import torch

    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
