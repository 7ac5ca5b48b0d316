"""What every part is told, and how a part writes down what it measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Settings:
    """Where to run, at what size, and until when."""

    device: torch.device
    seed: int
    smoke: bool
    deadline: float
    """In seconds of time.monotonic()."""
    keep_wrong: bool = False
    """Whether a measurement that went wrong before is left as it is."""

    @property
    def late(self) -> bool:
        """Whether the part should come to an end."""
        return time.monotonic() > self.deadline

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def alive(self) -> bool:
        """Whether the device still answers: after an illegal access it does not, in this process."""
        try:
            torch.ones(1, device=self.device).sum().item()
        except Exception:
            return False
        return True

    def synchronize(self) -> None:
        """Wait until the device has done its work."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Any, repeats: int = 5) -> float:
        """Return the least time that ``run()`` takes, of ``repeats`` after one that does not count."""
        run()
        found = []
        for _ in range(repeats):
            self.synchronize()
            start = time.perf_counter()
            run()
            self.synchronize()
            found.append(time.perf_counter() - start)
        return min(found)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the numbers depend on."""
        # Only here, so that what is missing on a machine is said in a sentence before.
        from noisekit.results.provenance import git_commit, versions

        # A machine may see the files of a commit without being told which.
        commit = git_commit() or os.environ.get("GIT_COMMIT", "")
        known: dict[str, Any] = {"versions": versions(), "git_commit": commit, "seed": self.seed}
        known["device"] = torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"
        known["smoke"] = self.smoke
        if self.on_gpu:
            known |= {"cuda": torch.version.cuda, "gpu": asked_of_driver(*ASKED)}
        return known


ASKED = ("driver_version", "clocks.max.sm", "clocks.sm", "temperature.gpu", "power.limit")


def asked_of_driver(*names: str) -> dict[str, str]:
    """Return what nvidia-smi says of the first GPU, by name; nothing where it says nothing."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    query = [tool, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return {}
    values = [value.strip() for value in told.stdout.strip().split(",")]
    return dict(zip(names, values, strict=True)) if len(values) == len(names) else {}


def of(device: str, seed: int, *, smoke: bool, deadline: float, keep_wrong: bool = False) -> Settings:
    """Return the settings of a part; what stays on the CPU is too small to be shared by its cores."""
    torch.set_num_threads(1)
    return Settings(torch.device("cpu" if smoke else device), seed, smoke, deadline, keep_wrong)


def why_not(device: str, *, smoke: bool) -> str:
    """Return why nothing can run here; nothing if it can."""
    if not smoke and device.startswith("cuda") and not torch.cuda.is_available():
        return "torch sees no GPU; give --smoke to test the script on the CPU"
    missing = [name for name in ("h5netcdf", "statsmodels", "sklearn", "xarray") if find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} cannot be imported; carry the wheels that README.md names, see --wheels"
    return ""


class Findings:
    """Rows of a JSON file, each written when it is found; a part that runs again goes on with the rest.

    What went wrong, and a check that does not hold, is done again.
    """

    def __init__(self, settings: Settings, path: Path, name: str) -> None:
        self.settings, self.path, self.name = settings, path, name
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            right = (row for row in found[name] if "error" not in row and row.get("holds", True))
            self.rows = list(found[name] if settings.keep_wrong else right)

    def add(self, what: dict[str, Any], find: Callable[[], dict[str, Any]]) -> None:
        """Find the row called ``what`` if it is not there; what goes wrong is written in its place.

        Raises RuntimeError where what went wrong took the device along.
        """
        if any(what.items() <= row.items() for row in self.rows):
            return
        if self.settings.late:
            raise TimeoutError("the time was up; run it again for the rest")
        try:
            row = what | find()
        except Exception as error:
            traceback.print_exc()
            row = what | {"error": f"{type(error).__name__}: {error}"[:2000]}
        self.rows.append(row)
        self.write()
        print(json.dumps(row), flush=True)
        if "error" in row and not self.settings.alive:
            raise RuntimeError(f"the device answers no more after {what}")

    def end(self) -> None:
        """Say that no row is missing, or raise RuntimeError where one went wrong."""
        wrong = [row["error"] for row in self.rows if "error" in row]
        if wrong:
            raise RuntimeError(f"{len(wrong)} of {len(self.rows)} went wrong, the first: {wrong[0][:200]}")
        self.write(complete=True)

    def write(self, *, complete: bool = False) -> None:
        """Write all rows to a temporary name, then rename it."""
        content = self.settings.facts | {"complete": complete, self.name: self.rows}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)
