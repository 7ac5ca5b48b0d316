"""Write the report to a file."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import xarray as xr

from noisekit.errors import NoisekitError
from noisekit.report.page import render_report
from noisekit.results.io import check_output


def write_report(tree: xr.DataTree, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write one self-contained HTML page about a result tree.

    The page needs no network and no script, follows the reader's light or dark setting and reads on a phone.
    It is written under a temporary name and renamed, so that no half page is ever seen.

    tree: as ``open_tree`` or ``run_study`` returns it; any group may be missing
    path: where to write, ending in .html; its folder must exist
    overwrite: whether a file that exists may be replaced
    Returns the path. Raises InputError where ``path`` cannot be used, NoisekitError where writing fails.
    """
    path = check_output(path, overwrite=overwrite, suffixes=(".html", ".htm"))
    page = render_report(tree)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
        raise NoisekitError(f"{path} could not be written: {reason}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return path
