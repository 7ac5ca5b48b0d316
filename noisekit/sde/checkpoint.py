"""Checkpoints of long integrations: one file, replaced whole, read without executing anything."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from noisekit._typing import State
from noisekit.errors import FileFormatError, InputError
from noisekit.sde.share import Share
from noisekit.sde.trajectory import Trajectory

_FORMAT = "noisekit-checkpoint-1"
_BY_REPLICATE = ("states", "observables", "finite_steps")
"""What a trajectory records of each replicate; the rest is of all of them."""


def save_checkpoint(
    path: Path, step: int, state: State, trajectory: Trajectory, identity: dict[str, Any], share: Share
) -> None:
    """Write everything that resuming needs to a temporary file, then rename it to ``path``.

    Of several processes the first one writes, for all replicates: any number of them can resume.
    """
    recorded = trajectory.tensors()
    content = {
        "format": _FORMAT,
        "identity": identity,
        "step": step,
        "state": share.wholes(state),
        "trajectory": recorded | {group: share.wholes(recorded[group]) for group in _BY_REPLICATE},
    }
    if not share.first:
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    try:
        torch.save(content, temporary)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_checkpoint(
    path: Path, state: State, trajectory: Trajectory, identity: dict[str, Any], share: Share
) -> int | None:
    """Restore ``state`` and ``trajectory`` and return the step reached, or None where there is no file.

    Raises FileFormatError for a file that is not a checkpoint, InputError for one of another run.
    """
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} of the checkpoint does not exist; create it first.")
    exists = path.exists()
    share.check_same({f"a file {path}": exists})
    if not exists:
        return None
    try:
        content = torch.load(path, map_location=state["x"].device, weights_only=True)
        known = content["format"] == _FORMAT
    except Exception as error:
        raise FileFormatError(f"{path} is not a checkpoint of noisekit; give another path.") from error
    if not known:
        raise FileFormatError(f"{path} has format {content['format']!r}; this version reads {_FORMAT!r}.")
    differing = [key for key, value in identity.items() if content["identity"].get(key) != value]
    if differing:
        raise InputError(
            f"The checkpoint {path} is of another run: {', '.join(differing)} differ; "
            "give the same arguments or another path."
        )
    for name, value in state.items():
        value.copy_(content["state"][name][share.rows])
    recorded = content["trajectory"]
    own = {
        group: {name: value[share.rows] for name, value in recorded[group].items()} for group in _BY_REPLICATE
    }
    trajectory.load(recorded | own)
    return int(content["step"])
