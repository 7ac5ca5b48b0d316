"""Cells of a study: each computed once, kept in a file of its own, and never computed again."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from noisekit import __version__
from noisekit.errors import InfiniteVarianceError, NoisekitError
from noisekit.results.solutions import solution_to_dataset
from noisekit.study.parallel import usable_cores
from noisekit.study.progress import bar
from noisekit.truth.arms import find_arm
from noisekit.truth.experiment import TRUTH, Experiment
from noisekit.truth.pool import PARTIAL, reason_to_stop, stored, sweep
from noisekit.truth.ranks import Rank

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

    def is_finished(self, folder: Path) -> bool:
        """Return whether ``folder`` holds the cell, as it would be computed."""
        return self.path(folder).exists()

    def store(self, folder: Path) -> None:
        """Compute the cell and write its file, under a temporary name until it is whole."""
        begin = time.process_time()
        data = self.compute()
        data.attrs["cpu_seconds"] = time.process_time() - begin
        data.attrs["made_with"] = f"noisekit {__version__}, torch {_torch_version()}"
        path = self.path(folder)
        partial = path.with_suffix(f".{os.getpid()}{PARTIAL}")
        try:
            data.to_netcdf(partial, engine="h5netcdf")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def open(self, folder: Path) -> xr.Dataset:
        """Return the finished cell, read whole.

        Raises NoisekitError where its file is missing or damaged.
        """
        path = self.path(folder)
        try:
            with xr.open_dataset(path, engine="h5netcdf") as data:
                return data.load()
        except FileNotFoundError:
            raise NoisekitError(
                f"The cell {self.label} is missing in {folder}; run the study again."
            ) from None
        except OSError as error:
            raise NoisekitError(f"{path} is damaged; delete it and run the study again.") from error


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
        updates = self.experiment.steps * self.experiment.replicates
        if self.arm == TRUTH:
            return 2.0 * updates
        arm = find_arm(self.arm)
        # Order 2 takes at least five times the gradients.
        return updates * (arm.substeps(self.experiment.substeps) + 1) * (5.0 if arm.order == 2 else 1.0)

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
    Raises NoisekitError, naming the cell, if one fails; the others are finished first, unless the disk is
    full or a process was killed.
    """
    rank = Rank.here()
    # Long cells begin first.
    mine = rank.share(sorted(cells, key=lambda cell: -cell.cost))
    todo = [cell for cell in mine if not cell.is_finished(folder)]
    sweep(folder)
    on_cpu = all(cell.device == "cpu" for cell in todo)
    workers = workers or (max(1, usable_cores() // rank.local_size) if on_cpu else 1)
    if not on_cpu and rank.size > 1:
        _take_own_device(rank)
    failures: list[str] = []
    with (
        bar("Running the study", len(mine), show=progress) as shown,
        closing(stored(todo, folder, min(workers, max(1, len(todo))))) as results,
    ):
        shown.update(len(mine) - len(todo))
        for cell, error in results:
            shown.update()
            if error is None:
                continue
            if reason := reason_to_stop(error, folder):
                left = sum(not cell.is_finished(folder) for cell in mine)
                raise NoisekitError(
                    f"{reason} {len(mine) - left} of {len(mine)} cells are finished and stay."
                )
            failures.append(f"{cell.label}: {error or type(error).__name__}")
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise NoisekitError(f"A cell of the study failed: {failures[0]}{more}. Run it again to go on.")


def wait_for(cells: Sequence[Cell], folder: Path, *, patience: float = 3600.0, pause: float = 1.0) -> None:
    """Wait until other ranks have finished their share of ``cells``.

    Raises NoisekitError where none came for ``patience`` seconds.
    """
    missing, since = list(cells), time.monotonic()
    while left := [cell for cell in missing if not cell.is_finished(folder)]:
        if len(left) < len(missing):
            missing, since = left, time.monotonic()
        elif time.monotonic() - since > patience:
            raise NoisekitError(
                f"{len(left)} cells of other ranks, such as {left[0].label}, did not come for "
                f"{patience / 60:.0f} minutes; run the study again, and what is finished stays."
            )
        time.sleep(pause)


def _take_own_device(rank: Rank) -> None:
    import torch

    torch.cuda.set_device(rank.local_number % torch.cuda.device_count())


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
    total = 0.0
    for cell in cells:
        with xr.open_dataset(cell.path(folder), engine="h5netcdf") as data:
            total += float(data.attrs["cpu_seconds"])
    return total


def _torch_version() -> str:
    import torch

    return str(torch.__version__)


def makers(cells: Iterable[Cell], folder: Path) -> list[str]:
    """Return the versions that computed the cells, which may have been kept from an earlier run."""
    found = set()
    for cell in cells:
        with xr.open_dataset(cell.path(folder), engine="h5netcdf") as data:
            found.add(str(data.attrs.get("made_with", "unknown")))
    return sorted(found)
