"""Where a result comes from: what the root attributes of a file say."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import noisekit
from noisekit.results.attributes import storable, to_json
from noisekit.results.schema import SCHEMA

_LIBRARIES = ("torch", "numpy", "scipy", "xarray", "h5netcdf", "statsmodels", "scikit-learn")


def provenance(
    *,
    problem: str,
    seed: int,
    title: str = "",
    config: Mapping[str, Any] | None = None,
    command: str = "",
    **facts: Any,
) -> dict[str, Any]:
    """Return the root attributes of a result file.

    No host name, user name or path of the machine is among them; ``command`` and ``config`` are the caller's
    and must hold none.

    Args:
        problem: name of the problem.
        seed: the seed that repeats the numbers.
        title: what the file is; made from the problem's name if not given.
        config: what configured the study, stored as JSON.
        command: the command line that repeats it.
        facts: further attributes of the schema, such as dataset, batch_size, device, dtype.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return storable(
        {
            "Conventions": SCHEMA,
            "title": title or f"Gradient noise of {problem}",
            "history": f"{now} made by noisekit {noisekit.__version__}",
            "created_at": now,
            "versions": to_json(versions()),
            "git_commit": git_commit(),
            "command": command,
            "config_json": to_json(config or {}),
            "problem": problem,
            "seed": seed,
            "loss_reduction": "mean",
            "noise_definition": "gradient of one sample minus the mean gradient of its batch",
            **facts,
        }
    )


def versions() -> dict[str, str]:
    """Return the versions of noisekit, Python and the libraries that make the numbers."""
    found = {"noisekit": noisekit.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """Return the commit of the working copy that noisekit runs from; empty for an installed package."""
    root = Path(noisekit.__file__).resolve().parents[1]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return ""
    answer = subprocess.run(
        [git, "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() if answer.returncode == 0 else ""
