"""What noisekit does on a GPU: trainings recorded, limits measured, promises checked. One command:

    python scripts/gpu_study                          # all parts, into data/gpu_runs/
    python scripts/gpu_study --budget 9               # what fits into nine minutes; again for the rest
    python scripts/gpu_study resnet gpt --minutes 4   # two of them, each stopped after four minutes
    python scripts/gpu_study --smoke --out /tmp/x     # every part at a toy size, on the CPU

Each part runs in a process of its own, so that one that crashes or hangs stops no other. What a part has
found is kept, and the command can be repeated until all is there. See README.md beside this file for what
each part writes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
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
LEAST_MINUTES = {"gpt": 2.0, "resnet": 2.0, "gpt-100m": 2.5}
"""What must be left of the budget for a part to begin: a training cannot go on later. Others need less."""
MOST_MINUTES = {"checks": 4.0, "integrate": 4.0, "recorder": 4.0}
"""What a part may take before the others get their turn; it goes on when the command is repeated."""
GRACE = 35.0
"""Seconds that a part may take to end after its time is up, before it is interrupted."""
WRONG, LATE, LOST = 1, 3, 4
"""What a part's process returns: it went wrong; the time was up; the device answers no more."""
LIVES = 4
"""How often a part may lose its device: a process is of no use after an illegal access."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_study", description="Record, measure and check on a GPU.")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--minutes", type=float, default=8.0, help="most minutes a part may take")
    parser.add_argument("--budget", type=float, default=1e6, help="most minutes that all of them may take")
    parser.add_argument("--out", type=Path, default=Path("data/gpu_runs"), help="folder to write to")
    parser.add_argument("--wheels", type=Path, default=Path("wheels"), help="folder of packages to carry")
    parser.add_argument("--device", default="cuda", help="device to run on")
    parser.add_argument("--resume", type=Path, help="folder of earlier files, which are copied to --out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="toy sizes on the CPU")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--keep-wrong", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return given


def main() -> int:
    begin = time.monotonic()
    given = arguments()
    carried = use_carried(given.wheels)
    if given.part:
        return take(given.part, given)
    for name in carried:
        print(f"using {name}", flush=True)
    settings = import_module("settings")
    why = settings.why_not(given.device, smoke=given.smoke)
    if why:
        print(f"gpu_study: {why}", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    if given.resume is not None:
        bring(given.resume, given.out)
    end, left = begin + 60 * given.budget, []
    for part in given.parts or PARTS:
        path = given.out / PARTS[part][0]
        if is_complete(path):
            print(f"{part}: {path} is there", flush=True)
            continue
        start = time.monotonic()
        if end - start < 60 * LEAST_MINUTES.get(part, 0.75):
            left.append(f"{part} (not begun)")
            continue
        minutes = min(given.minutes, MOST_MINUTES.get(part, given.minutes))
        why = apart(part, min(start + 60 * minutes, end))
        if why:
            left.append(f"{part} ({why})")
        else:
            print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)
    show_tables(given.out)
    for line in left:
        print(f"left: {line}", file=sys.stderr, flush=True)
    return 1 if left else 0


def apart(part: str, until: float) -> str:
    """Run ``part`` in a process of its own until that time; return what was wrong, nothing if nothing was.

    Where it loses the device, it goes on in another process, behind what made it lose it.
    """
    command = [
        sys.executable,
        str(Path(__file__).parent),
        *sys.argv[1:],
        "--part",
        part,
        "--until",
        str(until),
    ]
    for life in range(LIVES):
        process = subprocess.Popen(command + ["--keep-wrong"] * (life > 0))
        try:
            code = process.wait(until + GRACE - time.monotonic())
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return "it hung and was ended"
        if code != LOST:
            break
    said = {0: "", WRONG: "it went wrong, see above", LATE: "the time was up; run it again for the rest"}
    return said.get(code, "it lost the device" if code == LOST else f"its process ended with {code}")


def take(part: str, given: argparse.Namespace) -> int:
    """Run ``part`` in this process."""
    name, module, function = PARTS[part]
    settings = import_module("settings")
    own = settings.of(
        given.device, given.seed, smoke=given.smoke, deadline=given.until, keep_wrong=given.keep_wrong
    )
    try:
        run: Any = getattr(import_module(module), function)
        run(own, given.out / name)
    except TimeoutError:
        return LATE
    except Exception:
        traceback.print_exc()
        return WRONG if own.alive else LOST
    return 0


def show_tables(out: Path) -> None:
    """Print what is found so far; what is wrong with that must not hide what is left to do."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    try:
        print("\n" + import_module("make_gpu_tables").results(out), flush=True)
    except Exception:
        traceback.print_exc()


def bring(folder: Path, out: Path) -> None:
    """Copy what earlier runs left in ``folder`` and is not in ``out``."""
    for ending in ("json", "nc", "zip"):
        for path in sorted(folder.glob(f"*.{ending}")):
            if not (out / path.name).exists():
                shutil.copyfile(path, out / path.name)


def is_complete(path: Path) -> bool:
    """Whether a part has nothing left to do."""
    if not path.exists() or path.suffix != ".json":
        return path.exists()
    return bool(json.loads(path.read_text(encoding="utf-8")).get("complete"))


if __name__ == "__main__":
    sys.exit(main())
