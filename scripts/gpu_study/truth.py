"""The truth study at the size of a GPU, by its own command."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from settings import Settings


def run_truth_study(settings: Settings, path: Path) -> None:
    """Call ``noisekit study --preset gpu``; it goes on where it stopped, so it may be called again."""
    preset = "smoke" if settings.smoke else "gpu"
    command = [sys.executable, "-m", "noisekit", "study", "--preset", preset, "--output", str(path)]
    left = max(settings.deadline - time.monotonic(), 1)
    subprocess.run(command, check=True, timeout=left)
