"""The published insights as cells of a study."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import xarray as xr

from noisekit.results.attributes import storable
from noisekit.truth.cells import Cell
from noisekit.truth.experiment import CELL_VERSION


@dataclass(frozen=True)
class InsightCell(Cell):
    """One insight of ``noisekit.truth.insights``."""

    name: str
    preset: Literal["quick", "full"]
    seed: int = 0
    device: str = "cpu"

    @property
    def label(self) -> str:
        return f"insight {self.name}"

    @property
    def cost(self) -> float:
        return 2e5

    def path(self, folder: Path) -> Path:
        return folder / f"insight.{self.name}.{self.preset}.{self.seed}.{CELL_VERSION}.nc"

    def is_finished(self, folder: Path) -> bool:
        """Return whether ``folder`` holds the insight in the sizes that the preset has now."""
        path = self.path(folder)
        if not path.exists():
            return False
        sizes = import_module(f"noisekit.truth.insights.{self.name}").SIZES[self.preset]
        expected = storable({"settings": asdict(sizes) | {"seed": self.seed}})["settings"]
        try:
            with xr.open_dataset(path, engine="h5netcdf") as data:
                return bool(data.attrs.get("settings") == expected)
        except OSError:  # damaged
            return False

    def compute(self) -> xr.Dataset:
        from noisekit.truth.insights import INSIGHTS

        return INSIGHTS[self.name](preset=self.preset, seed=self.seed)


INSIGHT_NAMES = (
    "signsgd_phases",
    "noise_floors",
    "signsgd_stationary",
    "heavy_tails",
    "decoupled_decay",
    "batch_scaling",
    "floor_from_record",
)


def insight_cells(preset: Literal["quick", "full"], seed: int = 0) -> list[InsightCell]:
    """Return a cell for each insight."""
    return [InsightCell(name, preset, seed) for name in INSIGHT_NAMES]
