"""The truth study at the sizes of a GPU, by its own command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from settings import Settings

WORKERS = 4
"""Processes that share the GPU."""


def run_truth_study(settings: Settings, path: Path) -> None:
    """Call ``noisekit study --preset gpu`` until the deadline; finished cells stay, so call it again.

    The cells are kept in one file, which is easier to carry from machine to machine than a folder. At toy
    size only what would be computed is printed.
    """
    command = [sys.executable, "-m", "noisekit", "study", "--preset", "gpu", "--seed", str(settings.seed)]
    if settings.smoke:
        subprocess.run([*command, "--list"], check=True)
        return
    # Elsewhere than the archive, whose folder is carried around and may hold few files.
    cells, archive = Path(tempfile.mkdtemp(prefix="cells-")), path.with_suffix(".cells.zip")
    unpack(archive, cells)
    command += ["--output", str(path), "--cells", str(cells), "--device", settings.device.type]
    study = subprocess.Popen([*command, "--workers", str(WORKERS)])
    try:
        while study.poll() is None:
            if settings.late:
                raise TimeoutError("the time was up; finished cells are kept, so run this part again")
            # Also while it runs, so that little is lost where this is killed.
            pack(cells, archive)
            time.sleep(5)
    finally:
        if study.poll() is None:
            # Interrupted, it ends its workers and removes what they have half written.
            study.send_signal(signal.SIGINT)
            try:
                study.wait(20)
            except subprocess.TimeoutExpired:
                study.kill()
                study.wait()
        pack(cells, archive)
        shutil.rmtree(cells, ignore_errors=True)
    if study.returncode:
        raise RuntimeError(f"noisekit study ended with {study.returncode}")
    archive.unlink(missing_ok=True)


def pack(cells: Path, archive: Path) -> None:
    """Put the finished cells into ``archive`` that are not there."""
    finished = sorted(cells.glob("*.nc"))
    if not finished:
        return
    held: set[str] = set()
    if archive.exists():
        with zipfile.ZipFile(archive) as found:
            held = set(found.namelist())
    if held >= {cell.name for cell in finished}:
        return
    part = archive.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as made:
        for cell in finished:
            made.write(cell, cell.name)
    os.replace(part, archive)


def unpack(archive: Path, cells: Path) -> None:
    """Put the cells of ``archive`` where the study looks for them."""
    if archive.exists():
        cells.mkdir(exist_ok=True)
        with zipfile.ZipFile(archive) as found:
            found.extractall(cells)
