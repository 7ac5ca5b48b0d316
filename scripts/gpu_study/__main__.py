"""What noisekit does on a GPU: trainings recorded, limits measured, promises checked. One command:

    python scripts/gpu_study                          # all parts, into data/gpu_runs/
    python scripts/gpu_study --budget 9               # what fits into nine minutes; again for the rest
    python scripts/gpu_study resnet gpt --minutes 4   # two of them, each stopped after four minutes
    python scripts/gpu_study --smoke --out /tmp/x     # every part at a toy size, on the CPU

What a part has found is kept, so the command can be repeated until all is there. See README.md beside this
file for what each part writes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from carried import use_carried

PARTS = {
    "checks": ("checks.json", "checks", "check_promises"),
    "integrate": ("integrate.json", "benchmarks", "measure_integrate"),
    "recorder": ("recorder.json", "benchmarks", "measure_recorder"),
    "gpt": ("shakespeare-gpt-10m.nc", "training", "train_small_gpt"),
    "resnet": ("fashion-resnet.nc", "training", "train_resnet"),
    "gpt-100m": ("shakespeare-gpt-100m.nc", "training", "train_large_gpt"),
    "truth": ("truth.nc", "truth", "run_truth_study"),
}
"""Name: the file it writes, and what writes it; what is worth most first."""
LEAST_MINUTES = {"gpt": 3.0, "resnet": 3.0, "gpt-100m": 4.0}
"""What must be left of the budget for a part to begin: a training cannot go on later. Others need less."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_study", description="Record, measure and check on a GPU.")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--minutes", type=float, default=8.0, help="most minutes a part may take")
    parser.add_argument("--budget", type=float, default=1e6, help="most minutes that all of them may take")
    parser.add_argument("--out", type=Path, default=Path("data/gpu_runs"), help="folder to write to")
    parser.add_argument("--wheels", type=Path, default=Path("wheels"), help="folder of packages to carry")
    parser.add_argument("--device", default="cuda", help="device to run on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="toy sizes on the CPU")
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return given


def main() -> int:
    begin = time.monotonic()
    given = arguments()
    for name in use_carried(given.wheels):
        print(f"using {name}", flush=True)
    settings = import_module("settings")
    why = settings.why_not(given.device, smoke=given.smoke)
    if why:
        print(f"gpu_study: {why}", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    left = []
    for part in given.parts or PARTS:
        name, module, function = PARTS[part]
        path = given.out / name
        if is_complete(path):
            print(f"{part}: {path} is there", flush=True)
            continue
        start, end = time.monotonic(), begin + 60 * given.budget
        if end - start < 60 * LEAST_MINUTES.get(part, 0.75):
            left.append(f"{part} (not begun)")
            continue
        deadline = min(start + 60 * given.minutes, end)
        try:
            run: Any = getattr(import_module(module), function)
            run(settings.of(given.device, given.seed, smoke=given.smoke, deadline=deadline), path)
            print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)
        except TimeoutError as error:
            left.append(f"{part} ({error})")
        except Exception as error:  # the parts after this one are worth having
            left.append(f"{part} ({type(error).__name__}: {error})")
            traceback.print_exc()
    for line in left:
        print(f"left: {line}", file=sys.stderr, flush=True)
    return 1 if left else 0


def is_complete(path: Path) -> bool:
    """Whether a part has nothing left to do."""
    if not path.exists() or path.suffix != ".json":
        return path.exists()
    return bool(json.loads(path.read_text(encoding="utf-8")).get("complete"))


if __name__ == "__main__":
    sys.exit(main())
