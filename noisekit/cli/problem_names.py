"""How a problem given on the command line is called in files and in the line that repeats it."""

from __future__ import annotations

import shlex
from itertools import count
from pathlib import Path

from noisekit.errors import InputError

FOLDER = "noisekit-runs"


def shown_name(problem: str) -> str:
    """Return ``problem`` as a shell word; of a user's own file or folder only the name is kept.

    >>> shown_name("/home/me/work/my.py:make")
    'my.py:make'
    """
    path, colon, function = problem.rpartition(":")
    name = f"{Path(path).name}:{function}" if colon else Path(problem).name
    return shlex.quote(name)


def target(problem: str, output: Path | None, *, overwrite: bool, suffix: str = "") -> Path:
    """Return the data file to write: ``output``, or a free name in the folder of runs, which may be absent.

    Raises:
        InputError: if it cannot be written; asked before the work begins.
    """
    from noisekit.results.io import check_output, check_place

    folder = Path(FOLDER)
    if output is None:
        if folder.is_file():
            raise InputError(f"{FOLDER} is a file, and runs go into a folder of that name; give --output.")
        check_place(folder, overwrite=True)
        stem = (problem.rpartition(":")[2] if ":" in problem else Path(problem).name) + suffix
        output = free_name(folder, stem, overwrite=overwrite)
    if not made_later(output):
        check_output(output, overwrite=overwrite)
    return output


def made_later(path: Path) -> bool:
    """Return whether ``path`` lies in the folder of runs, which is made when there is something to keep."""
    return path.parent == Path(FOLDER) and not path.parent.exists()


def free_name(folder: Path, stem: str, *, overwrite: bool = False) -> Path:
    """Return ``folder/stem.nc``, or with a number after it so that neither data nor report is there yet."""
    names = (f"{stem}.nc" if number == 1 else f"{stem}-{number}.nc" for number in count(1))
    paths = (folder / name for name in names)
    return next(p for p in paths if overwrite or not (p.exists() or p.with_suffix(".html").exists()))
