"""Processes of a study end with it, whatever ends it, and leave nothing half-written."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from noisekit.truth.pool import reason_to_stop, sweep

SCRIPT = """
import os, sys, time
from pathlib import Path

from noisekit.truth.pool import reason_to_stop, stored


class Slow:
    def store(self, folder):
        (folder / f"cell.{os.getpid()}.partial").touch()
        time.sleep(120)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        for _, error in stored([Slow() for _ in range(5)], folder, 2):
            print(reason_to_stop(error, folder))
            break
    except KeyboardInterrupt:
        sys.exit(130)
"""


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0]
    except FileNotFoundError:
        return False


@pytest.fixture
def study(tmp_path):
    """A study of cells that never end, and the numbers of its two processes."""
    script = tmp_path / "slow_cells.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "cells"
    folder.mkdir()
    command = [sys.executable, str(script), str(folder)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while len(found := list(folder.glob("*.partial"))) < 2 and time.monotonic() < end:
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.05)
    children = [int(path.name.split(".")[1]) for path in found]
    yield parent, children, folder
    for pid in (parent.pid, *children):
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
    parent.communicate()


@pytest.mark.slow
def test_an_interruption_ends_every_process_and_removes_what_is_half_written(study):
    parent, children, folder = study
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=20)
    assert parent.returncode == 130
    assert not errors
    assert not any(map(is_running, children))
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_a_process_killed_from_outside_is_one_sentence(study):
    parent, children, _ = study
    os.kill(children[0], signal.SIGKILL)
    out, errors = parent.communicate(timeout=20)
    assert parent.returncode == 0
    assert not errors
    assert "killed from outside, most often because memory ran out" in out
    assert not any(map(is_running, children))


@pytest.mark.slow
def test_no_process_outlives_its_parent(study):
    parent, children, _ = study
    parent.kill()
    parent.wait(timeout=20)
    end = time.monotonic() + 10
    while any(map(is_running, children)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_running, children))


def test_what_was_left_half_written_long_ago_is_removed(tmp_path):
    old, young, whole = (tmp_path / name for name in ("a.1.partial", "b.2.partial", "c.nc"))
    for path in (old, young, whole):
        path.touch()
    for path in (old, whole):
        os.utime(path, (0, 0))
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {young, whole}


def test_only_what_stops_every_cell_stops_the_study(tmp_path):
    assert "fewer workers" in reason_to_stop(BrokenProcessPool("terminated abruptly"), tmp_path)
    assert "full; make room" in reason_to_stop(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert "cannot be written" in reason_to_stop(OSError(errno.EROFS, "Read-only file system"), tmp_path)
    assert reason_to_stop(ValueError("of this cell"), tmp_path) == ""
    assert reason_to_stop(FileNotFoundError(errno.ENOENT, "No such file"), tmp_path) == ""
