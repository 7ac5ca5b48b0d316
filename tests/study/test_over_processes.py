"""A study shared by processes: the file of one process, and no process that waits for one that failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from rank_processes import load_script

import noisekit as nk
from noisekit.cli import main
from noisekit.errors import InputError, NoisekitError, NonFiniteError
from noisekit.study import ranks as sharing

SCRIPT = Path(__file__).with_name("study_worker.py")
worker = load_script(SCRIPT)
CLOCK = {("/training", "elapsed_time")}
"""What differs between two runs of anything."""


def assert_same(found: xr.DataTree, expected: xr.DataTree) -> None:
    nodes, others = ({node.path: node for node in tree.subtree} for tree in (found, expected))
    assert nodes.keys() == others.keys()
    for path, node in nodes.items():
        mine, theirs = node.to_dataset(), others[path].to_dataset()
        assert set(mine.variables) == set(theirs.variables)
        for name in set(mine.variables) - {name for where, name in CLOCK if where == path}:
            np.testing.assert_array_equal(mine[name].values, theirs[name].values, err_msg=f"{path} {name}")
        dated = {"created_at", "history", "git_commit"}
        assert {k: v for k, v in mine.attrs.items() if k not in dated} == {
            k: v for k, v in theirs.attrs.items() if k not in dated
        }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder with the file of three processes, and what each of them said."""
    folder, size = tmp_path_factory.mktemp("shared"), 3
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    done = subprocess.run(
        [*launcher, str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder, [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(size)]


@pytest.mark.slow
def test_the_file_is_that_of_one_process(shared: Any, tmp_path: Path) -> None:
    folder, _ = shared
    assert main([*worker.WORDS, "--output", str(tmp_path / "alone.nc")]) == 0
    with nk.open_tree(folder / "shared.nc") as found, nk.open_tree(tmp_path / "alone.nc") as expected:
        assert_same(found, expected)


@pytest.mark.slow
def test_the_first_process_speaks_for_all(shared: Any) -> None:
    _, (first, *others) = shared
    assert first["log"].count("To repeat this") == 1
    assert first["log"].count("Predicting and running") == 1
    assert first["data"].count("Data:") == 1
    assert [(own["status"], own["data"], own["log"]) for own in others] == [(0, "", "")] * len(others)


@pytest.mark.slow
def test_the_first_process_alone_has_the_ensembles(shared: Any) -> None:
    _, said = shared
    assert [own["ensembles"] for own in said] == [["sgd", "adam"], [], []]


@pytest.mark.slow
def test_what_one_process_cannot_do_is_raised_on_all(shared: Any) -> None:
    _, said = shared
    for own in said:
        assert "real runs of sgd diverged" in own["divergence"]
        assert own["failure"] == "this process alone fails"


class Told:
    """One of two processes: the other one says each of ``said`` in turn."""

    size = 2

    def __init__(self, *said: Any, rank: int = 1) -> None:
        self.rank = rank
        self.said = list(said)
        self.heard: list[Any] = []

    def exchange(self, value: Any) -> list[Any]:
        self.heard.append(value)
        if isinstance(said := self.said.pop(0), RuntimeError):
            raise said
        return [said, value]

    def gather(self, value: Any) -> list[Any]:
        return self.exchange(value) if self.rank == 0 else []


def test_results_and_errors_of_all() -> None:
    assert sharing.on_all(Told(None, {"a": 1}), lambda: {"b": 2}) == {"a": 1, "b": 2}
    assert sharing.from_first(Told(None, {"": 3}), lambda: 4) == 3
    assert sharing.on_first(Told(None, {"a": 1}, rank=0), lambda: {"b": 2}) == {"a": 1, "b": 2}
    assert sharing.on_first(Told(None), lambda: {"b": 2}) == {}
    assert sharing.on_first(None, lambda: {"b": 2}) == {"b": 2}
    for share in (sharing.agreed, sharing.on_all, sharing.on_first):
        with pytest.raises(NonFiniteError, match="theirs"):
            share(Told(NonFiniteError("theirs")), lambda: {"b": 2})
        with pytest.raises(ZeroDivisionError):
            share(Told(None), lambda: {"b": 1 // 0})


def test_a_process_that_is_gone_is_noticed() -> None:
    gone = RuntimeError("Connection closed by peer")
    for said in ([gone], [None, gone]):
        with pytest.raises(NoisekitError, match="ended early"):
            sharing.on_all(Told(*said), lambda: {"b": 2})
    with pytest.raises(ZeroDivisionError):
        sharing.on_all(Told(gone), lambda: {"b": 1 // 0})


def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    class Local(Exception):
        """A class that another process cannot find."""

    def work() -> dict[str, int]:
        raise Local("no")

    ranks = Told(None)
    with pytest.raises(Local):
        sharing.on_all(ranks, work)
    (told,) = ranks.heard
    assert type(told) is RuntimeError
    assert str(told) == "Local: no"


@pytest.mark.parametrize("size", [1, 2, 3, 6, 9])
def test_every_task_has_one_process(size: int) -> None:
    costs = {"a": 4.0, "b": 4.0, "c": 2.0, "d": 2.0, "e": 1.0, "f": 1.0}

    class Of:
        def __init__(self, rank: int) -> None:
            self.rank, self.size = rank, size

    shares = [sharing.tasks_of(costs, Of(rank)) for rank in range(size)]
    assert sorted(key for own in shares for key in own) == sorted(costs)
    loads = [sum(costs[key] for key in own) for own in shares]
    assert max(loads) <= max(4.0, 14 / size + 1)
    assert sharing.tasks_of(costs, None) == list(costs)


def test_results_keep_their_numbers_when_they_move() -> None:
    problem = nk.Quadratic(torch.ones(2, dtype=torch.float64))
    sde = nk.SGDSDE(problem.gradient, nk.GaussianNoise(scale=0.1), 0.1)
    solution = nk.integrate(sde, problem.x0, steps=2, keep_state=False, replicates=3)
    there = sharing.moved(solution, "meta")
    assert {value.device.type for value in there.statistics.values()} == {"meta"}
    assert there.diverged.device.type == "meta"
    assert there.settings == solution.settings


def test_where_the_other_processes_are_must_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(InputError, match="start the processes with torchrun"), sharing.launched():
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    with sharing.launched() as ranks:
        assert ranks is None
