"""Independent tasks in threads: torch lets go of the interpreter while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event, Lock
from typing import Any, TypeVar

import torch

Key = TypeVar("Key")
Result = TypeVar("Result")


class Stopped(Exception):
    """Another task failed or the user interrupted, so this one ends too."""


class Counter:
    """Moves a progress bar from several threads, and ends tasks that report to it once ``stop`` is called."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._lock = Lock()
        self._stopped = Event()

    def add(self, amount: int) -> None:
        """Move the bar; raise Stopped if the tasks were told to end."""
        if self._stopped.is_set():
            raise Stopped
        with self._lock:
            self._shown.update(amount)

    def stop(self) -> None:
        """Let every task end at its next report."""
        self._stopped.set()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(tasks: int, device: torch.device, *, processes: int = 1) -> int:
    """Return how many tasks to run at a time: as many as a process has cores, one on an accelerator."""
    return max(1, min(usable_cores() // processes, tasks)) if device.type == "cpu" else 1


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute each operation with ``count`` threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_tasks(
    tasks: Mapping[Key, Callable[[], Result]], *, workers: int, counter: Counter
) -> dict[Key, Result]:
    """Return the results of ``tasks``, run by ``workers`` threads in the order given.

    The first error, or an interruption, ends the other tasks at their next report.
    """
    if workers <= 1:
        return {key: task() for key, task in tasks.items()}
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        futures = {key: pool.submit(task) for key, task in tasks.items()}
        try:
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            counter.stop()
            pool.shutdown(cancel_futures=True)
            raise
    return {key: future.result() for key, future in futures.items()}
