"""What noisekit does on a GPU: trainings recorded, limits measured, promises checked. One command:

    python scripts/gpu_study                          # all parts, into data/gpu_runs/
    python scripts/gpu_study resnet gpt --minutes 4   # two of them, each stopped after four minutes
    python scripts/gpu_study --smoke --out /tmp/x     # every part at a toy size, on the CPU

A part that has written its file is not run again, so the command can be repeated until all are there. See
README.md beside this file for what each part writes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from benchmarks import measure_integrate, measure_recorder
from checks import check_promises
from settings import Settings
from training import train_gpt, train_resnet
from truth import run_truth_study

PARTS: dict[str, tuple[str, Callable[[Settings, Path], None]]] = {
    "checks": ("checks.json", check_promises),
    "integrate": ("integrate.json", measure_integrate),
    "recorder": ("recorder.json", measure_recorder),
    "resnet": ("fashion-resnet.nc", train_resnet),
    "gpt": ("shakespeare-gpt-10m.nc", lambda settings, path: train_gpt(settings, path, "10m")),
    "gpt-100m": ("shakespeare-gpt-100m.nc", lambda settings, path: train_gpt(settings, path, "100m")),
    "truth": ("truth.nc", run_truth_study),
}
"""Name: the file it writes, and what writes it; the quick ones first."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_study", description="Record, measure and check on a GPU.")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--minutes", type=float, default=8.0, help="most minutes a part may take")
    parser.add_argument("--out", type=Path, default=Path("data/gpu_runs"), help="folder to write to")
    parser.add_argument("--device", default="cuda", help="device to run on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="toy sizes on the CPU")
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if not given.smoke and given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch sees no GPU; give --smoke to test the script on the CPU")
    return given


def main() -> int:
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cpu" if given.smoke else given.device)
    failed = []
    for part in given.parts or PARTS:
        name, run = PARTS[part]
        path = given.out / name
        if path.exists():
            print(f"{part}: {path} is there", flush=True)
            continue
        start = time.monotonic()
        settings = Settings(device, given.seed, given.smoke, start + 60 * given.minutes)
        try:
            run(settings, path)
            print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)
        except Exception as error:  # the parts after this one are worth having
            failed.append(part)
            print(f"{part} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
