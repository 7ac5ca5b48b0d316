"""Run a script once for each rank of a process group, as a launcher would."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch


def load_script(path: Path) -> ModuleType:
    """Return the script as a module, for its constants and its reference computations."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_ranks(script: Path, size: int, folder: Path, timeout: float) -> list[Any]:
    """Return what each rank of ``script RANK SIZE FOLDER`` saved as rankR.pt."""
    command = [sys.executable, "-W", "error", str(script)]
    processes = [
        subprocess.Popen([*command, str(rank), str(size), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(size)]
