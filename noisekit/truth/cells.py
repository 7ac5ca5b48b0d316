"""Cells of a study: each computed once, kept in a file of its own, and never computed again."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from noisekit.errors import InfiniteVarianceError, NoisekitError
from noisekit.results.solutions import solution_to_dataset
from noisekit.study.parallel import usable_cores
from noisekit.study.progress import bar
from noisekit.truth.arms import find_arm
from noisekit.truth.experiment import TRUTH, Experiment

if TYPE_CHECKING:
    from noisekit.sde.solution import Solution


class Cell(ABC):
    """A piece of a study that any process can compute by itself, with the same numbers each time."""

    device: str

    @property
    @abstractmethod
    def label(self) -> str:
        """What to call the cell in a sentence."""

    @property
    @abstractmethod
    def cost(self) -> float:
        """A rough measure of the work, so that long cells begin first."""

    @abstractmethod
    def path(self, folder: Path) -> Path:
        """Return the cell's file, whose name changes with every setting that changes the numbers."""

    @abstractmethod
    def compute(self) -> xr.Dataset:
        """Return the numbers of the cell."""

    def store(self, folder: Path) -> None:
        """Compute the cell and write its file, under a temporary name until it is whole."""
        begin = time.process_time()
        data = self.compute()
        data.attrs["cpu_seconds"] = time.process_time() - begin
        path = self.path(folder)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            data.to_netcdf(partial, engine="h5netcdf")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def open(self, folder: Path) -> xr.Dataset:
        """Return the finished cell, read whole."""
        with xr.open_dataset(self.path(folder), engine="h5netcdf") as data:
            return data.load()


@dataclass(frozen=True)
class EnsembleCell(Cell):
    """One ensemble of an experiment: the real runs, or the paths of one arm."""

    experiment: Experiment
    arm: str
    device: str = "cpu"

    @property
    def label(self) -> str:
        return f"{self.experiment.name}, {self.arm}"

    @property
    def cost(self) -> float:
        substeps = 1 if self.arm == TRUTH else find_arm(self.arm).substeps(self.experiment.substeps)
        return self.experiment.steps * self.experiment.replicates * (substeps + 1)

    def path(self, folder: Path) -> Path:
        key = self.experiment.key(f"{self.arm}@{self.device}")
        return folder / f"{self.experiment.name}.{self.arm}.{key}.nc"

    def compute(self) -> xr.Dataset:
        """Return the ensemble; of a prediction that does not exist, the reason."""
        from noisekit.truth.ensembles import predicted_paths, real_runs

        try:
            if self.arm == TRUTH:
                return _kept(real_runs(self.experiment, self.device))
            return _kept(predicted_paths(self.experiment, find_arm(self.arm), self.device))
        except InfiniteVarianceError as refusal:
            return xr.Dataset(attrs={"refused": str(refusal)})


def cells_of(experiments: Iterable[Experiment], device: str = "cpu") -> list[EnsembleCell]:
    """Return the cells of some experiments: the truth of each, and each of its arms."""
    return [EnsembleCell(e, arm, device) for e in experiments for arm in (TRUTH, *e.arms)]


def run_cells(
    cells: Sequence[Cell], folder: Path, *, workers: int | None = None, progress: bool = False
) -> None:
    """Compute the cells that ``folder`` does not hold yet, in processes of one thread each.

    Started with torchrun, each rank takes its share. What is finished stays when the rest is interrupted.
    Raises NoisekitError, naming the cell, if one fails; the others are finished first.
    """
    mine = _share_of_rank(cells)
    todo = sorted((c for c in mine if not c.path(folder).exists()), key=lambda c: -c.cost)
    workers = workers or (usable_cores() if all(c.device == "cpu" for c in todo) else 1)
    failures: list[str] = []
    with bar("Running the study", len(mine), show=progress) as shown:
        shown.update(len(mine) - len(todo))
        for cell, error in _finished(todo, folder, min(workers, max(1, len(todo)))):
            shown.update()
            if error is not None:
                failures.append(f"{cell.label}: {error}")
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise NoisekitError(f"A cell of the study failed: {failures[0]}{more}. Run it again to go on.")


def _share_of_rank(cells: Sequence[Cell]) -> list[Cell]:
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return list(cells[rank::world])


def _finished(
    cells: Sequence[Cell], folder: Path, workers: int
) -> Iterator[tuple[Cell, BaseException | None]]:
    if workers == 1:
        for cell in cells:
            yield cell, _attempt(cell, folder)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        futures = {pool.submit(cell.store, folder): cell for cell in cells}
        waiting = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield futures[future], future.exception()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _attempt(cell: Cell, folder: Path) -> Exception | None:
    try:
        cell.store(folder)
    except Exception as error:
        return error
    return None


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _kept(solution: Solution) -> xr.Dataset:
    """Return what later questions need: observables, mean and total variance of x, and few last states."""
    data = solution_to_dataset(replace(solution, state={}, statistics={}))
    if solution.state:
        x = solution.state["x"][(solution.diverged < 0).to(solution.state["x"].device)]
        mean, variance = x.mean(0), x.var(0)
        data["final_x"] = (("survivor", "coordinate"), x[:, -1].cpu().numpy())
    else:
        mean, variance = solution.statistics["x_mean"], solution.statistics["x_variance"]
    data["x_mean"] = (("time", "coordinate"), mean.float().cpu().numpy())
    data["x_variance"] = (("time",), variance.double().sum(-1).cpu().numpy())
    return data


def cpu_seconds(cells: Iterable[Cell], folder: Path) -> float:
    """Return the processor time that the cells took."""
    return float(np.sum([cell.open(folder).attrs["cpu_seconds"] for cell in cells]))
