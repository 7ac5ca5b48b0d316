"""The truth study at the sizes of a GPU, by its own command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from settings import Settings

WORKERS = 4
"""Processes that share the GPU."""


def run_truth_study(settings: Settings, path: Path) -> None:
    """Call ``noisekit study --preset gpu`` until the deadline; finished cells stay, so call it again.

    At toy size only what would be computed is printed.
    """
    command = [sys.executable, "-m", "noisekit", "study", "--preset", "gpu", "--seed", str(settings.seed)]
    if settings.smoke:
        subprocess.run([*command, "--list"], check=True)
        return
    where = ["--output", str(path), "--cells", str(path.with_suffix(".cells"))]
    command += [*where, "--device", settings.device.type, "--workers", str(WORKERS)]
    # In a session of its own, so that its workers end with it.
    study = subprocess.Popen(command, start_new_session=True)
    try:
        if study.wait(timeout=max(settings.deadline - time.monotonic(), 1)):
            raise RuntimeError(f"noisekit study ended with {study.returncode}")
    except subprocess.TimeoutExpired:
        os.killpg(study.pid, signal.SIGTERM)
        study.wait()
        raise TimeoutError("the time was up; finished cells are kept, so run this part again") from None
