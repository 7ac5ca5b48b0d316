"""Run a script once for each rank of a process group, as a launcher would.

What the script imports is imported once: its ranks are forks of one process, which does nothing else.
Run as: rank_processes.py SCRIPT SIZE FOLDER
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import traceback
import warnings
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
    """Return what each rank of ``script RANK SIZE FOLDER`` saved as rankR.pt.

    ``prepare`` of the script, if it has one, runs before there are ranks: for what it imports late.
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error", __file__, str(script), str(size), str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        errors = process.communicate(timeout=timeout)[1]
    finally:
        _kill_group(process.pid)
    assert process.returncode == 0, errors
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(size)]


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:  # all have ended
        return


def _fork_ranks(script: Path, size: int, folder: str) -> bool:
    """Return whether all ranks ended well; the first that does not ends the others."""
    module = load_script(script)
    importlib.import_module("torch._dynamo")  # any optimizer imports it with its first step
    getattr(module, "prepare", lambda: None)()
    ranks = {_start(module, [str(script), str(rank), str(size), folder]) for rank in range(size)}
    well = True
    while ranks:
        ended, status = os.wait()
        ranks.remove(ended)
        if status != 0 and well:
            well = False
            for rank in ranks:
                os.kill(rank, signal.SIGKILL)
    return well


def _start(module: ModuleType, words: list[str]) -> int:
    """Return the number of a process that runs ``main`` of the script with ``words``."""
    with warnings.catch_warnings():
        # Python warns of threads that a fork leaves behind; a library that began one on import lacks nothing.
        warnings.simplefilter("ignore", DeprecationWarning)
        number = os.fork()
    if number:
        return number
    status = 1
    try:
        sys.argv = words
        module.main()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(not _fork_ranks(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
