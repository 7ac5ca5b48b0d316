"""What every part is told, and how a part writes down what it measured."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from noisekit.results.provenance import git_commit, versions


@dataclass(frozen=True)
class Settings:
    """Where to run, at what size, and until when."""

    device: torch.device
    seed: int
    smoke: bool
    deadline: float
    """In seconds of time.monotonic()."""

    @property
    def late(self) -> bool:
        """Whether the part should come to an end."""
        return time.monotonic() > self.deadline

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

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

    def facts(self) -> dict[str, Any]:
        """Return what the numbers depend on."""
        known: dict[str, Any] = {"versions": versions(), "git_commit": git_commit(), "seed": self.seed}
        known["device"] = torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"
        known["smoke"] = self.smoke
        if self.on_gpu:
            known["cuda"] = torch.version.cuda
        return known


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to a temporary name, then rename it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
    print(json.dumps(content, indent=1), flush=True)
