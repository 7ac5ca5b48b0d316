"""Packages that a machine without network lacks, from wheels that were carried to it."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def use_carried(wheels: Path) -> list[str]:
    """Let Python find this checkout's noisekit, and what is in ``wheels`` and not installed.

    Returns the names of the wheels in use. Subprocesses find the same by PYTHONPATH.
    """
    spec = find_spec("noisekit")
    # A folder of that name without code is no package, but would be found.
    added = [] if spec is not None and spec.origin else [str(ROOT)]
    missing = [wheel for wheel in sorted(wheels.glob("*.whl")) if not _installed(wheel.name.split("-")[0])]
    if missing:
        folder = tempfile.mkdtemp(prefix="carried-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for wheel in missing:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        added.append(folder)
    # Behind what is installed, which fits the machine better.
    sys.path += added
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), *added]))
    return [wheel.name for wheel in missing]


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
