"""``noisekit run``: the file, the page, the line that repeats it, and what happens when it cannot go on."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import noisekit as nk
from noisekit.cli import main
from noisekit.cli.problem_names import free_name

QUICK = shlex.split(
    "breast-cancer-mlp --steps 8 --warmup-steps 4 --replicates 4 --n-samples 100 --training-steps 12 "
    "--record-every 4 --coordinates 32 --sketch 8 --batch-size 8 --seed 5"
)
OWN = """
import torch
from noisekit import ModelProblem

def problem(model, loss=torch.nn.functional.cross_entropy, bad=False):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 4, generator=generator)
    if bad:
        inputs[150, 0] = float("nan")
    return ModelProblem(model, loss, inputs, (inputs[:, 1] > 0).long())

def good():
    return problem(torch.nn.Linear(4, 2))

def batch_norm():
    return problem(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)))

def unreduced():
    return problem(torch.nn.Linear(4, 2), torch.nn.CrossEntropyLoss(reduction="none"))

def not_finite():
    return problem(torch.nn.Linear(4, 2), bad=True)

def nothing():
    return None

def broken():
    raise RuntimeError("no data here")
"""


@pytest.mark.slow
def test_a_run_writes_a_file_and_a_page_and_its_line_repeats_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *QUICK, "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["command"] in err
    folder = tmp_path / "noisekit-runs"
    assert sorted(p.name for p in folder.iterdir()) == ["breast-cancer-mlp.html", "breast-cancer-mlp.nc"]
    assert said["file"] == "noisekit-runs/breast-cancer-mlp.nc"
    assert {row["topic"] for row in said["summary"]} >= {"training", "noise", "theory", "comparison"}
    again = [*shlex.split(said["command"])[1:], "--output", "again.nc", "--no-report"]
    assert main(again) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Data:   again.nc"
    with nk.open_tree(said["file"]) as one, nk.open_tree("again.nc") as two:
        for path in ("sde/adam/loss", "optimizer/sgd/loss", "gradient_noise/trace"):
            np.testing.assert_array_equal(one[path], two[path])
        assert one.attrs["command"] == said["command"]


def test_runs_without_a_name_never_meet(tmp_path):
    assert free_name(tmp_path, "a") == tmp_path / "a.nc"
    (tmp_path / "a.nc").touch()
    (tmp_path / "a-2.html").touch()
    assert free_name(tmp_path, "a") == tmp_path / "a-3.nc"
    assert free_name(tmp_path, "a", overwrite=True) == tmp_path / "a.nc"


def test_a_file_where_runs_would_go_is_told_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noisekit-runs").write_text("mine")
    assert main(["run", *QUICK]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "noisekit: noisekit-runs is a file, and runs go into a folder of that name; give --output.\n"
    )


@pytest.mark.parametrize(
    ("function", "code", "sentence"),
    [
        ("batch_norm", 1, "BatchNorm"),
        ("unreduced", 2, "loss"),
        ("not_finite", 1, "gradients in weight, bias"),
        ("nothing", 2, "returned None"),
        ("broken", 2, "no data here"),
        ("god", 2, "Did you mean 'good'"),
    ],
)
def test_a_users_problem_that_cannot_be_studied_is_one_sentence(
    tmp_path, monkeypatch, capsys, function, code, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    assert main(["run", f"own.py:{function}", *QUICK[1:]]) == code
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert out == ""
    assert last.startswith("noisekit: ")
    assert sentence in last
    assert "Traceback" not in err
    assert {p.name for p in tmp_path.iterdir()} <= {"own.py", "__pycache__"}


@pytest.mark.slow
def test_a_users_own_problem_is_studied(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    assert main(["run", str(tmp_path / "own.py:good"), *QUICK[1:], "--no-report"]) == 0
    capsys.readouterr()
    with nk.open_tree("noisekit-runs/good.nc") as tree:
        assert tree.attrs["command"].startswith("noisekit run own.py:good ")


@pytest.mark.slow
def test_interruption_in_the_middle_ends_soon_and_leaves_nothing(tmp_path):
    arguments = ["run", "breast-cancer-mlp", "--steps", "4000", "--training-steps", "8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "noisekit", *arguments],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    seen = b""
    while b"Predicting" not in seen:
        seen += os.read(process.stderr.fileno(), 4096)
        assert process.poll() is None, seen.decode()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert b"interrupted" in err
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []
