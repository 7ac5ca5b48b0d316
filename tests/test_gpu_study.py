"""The script for GPU machines, at toy sizes on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import noisekit as nk

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("checks", "integrate", "recorder", "resnet", "gpt")
"""Those that leave a file at toy size."""


def gpu_study(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "gpu_study"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which every part but the truth study has left its file."""
    folder = tmp_path_factory.mktemp("gpu_runs")
    done = gpu_study("--smoke", "--out", str(folder), *PARTS)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion-resnet.nc", "shakespeare-gpt-10m.nc"])
def test_trainings_leave_small_files_that_say_what_made_them(folder: Path, name: str) -> None:
    assert (folder / name).stat().st_size < 5_000_000
    with nk.open_tree(folder / name) as tree:
        assert tree.attrs["problem"] == name.removesuffix(".nc")
        assert tree.attrs["dataset_sha256"]
        assert json.loads(tree.attrs["config_json"])["smoke"] is True
        assert str(folder) not in json.dumps(tree.attrs, default=str)
        trace = tree["gradient_noise"]["trace"]
        assert trace.dtype == "float32"
        assert bool((trace > 0).all())
        # bf16 gradients against the mean of float32 statistics of the same bf16 pass
        error = tree["gradient_noise"]["mean_gradient_error"].values
        assert error[-1] < 0.05


@pytest.mark.slow
def test_checks_and_measurements_are_written(folder: Path) -> None:
    checks = json.loads((folder / "checks.json").read_text())["checks"]
    assert len(checks) == 5
    assert all(found["holds"] for found in checks.values())
    speeds = json.loads((folder / "integrate.json").read_text())["integrate"]
    assert {row["optimizer"] for row in speeds} >= {"SGD", "SignSGD", "RMSprop", "Adam"}
    assert all(row["per_second"] > 0 for row in speeds)
    (costs,) = json.loads((folder / "recorder.json").read_text())["recorder"]
    assert set(costs["recorded"]) == {"everything", "without the Gram matrix", "norms alone"}


@pytest.mark.slow
def test_parts_that_are_there_are_left_alone(folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    done = gpu_study("--smoke", "--out", str(folder), *PARTS)
    assert done.returncode == 0
    assert done.stdout.count("is there") == len(PARTS)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.slow
def test_what_cannot_run_is_said_at_once(tmp_path: Path) -> None:
    done = gpu_study("--smoke", "--out", str(tmp_path / "out"), "nothing")
    assert done.returncode == 2
    assert "there is no part 'nothing'" in done.stderr
    if not torch.cuda.is_available():
        done = gpu_study("--out", str(tmp_path / "out"))
        assert done.returncode == 2
        assert "torch sees no GPU" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_truth_study_is_planned(tmp_path: Path) -> None:
    done = gpu_study("--smoke", "--out", str(tmp_path), "truth")
    assert done.returncode == 0, done.stderr
    assert "adam" in done.stdout
