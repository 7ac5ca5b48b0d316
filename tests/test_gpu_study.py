"""The script for GPU machines, at toy sizes on the CPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
import torch

import noisekit as nk

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "gpu_study"
PARTS = ("checks", "integrate", "recorder", "resnet", "gpt")
"""Those that leave a file at toy size."""


def gpu_study(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
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
    assert len(checks) == 7
    assert all(found["holds"] for found in checks)
    written = json.loads((folder / "integrate.json").read_text())
    assert written["complete"]
    alone = [row for row in written["integrate"] if "alone" in row]
    assert all(value > 0 for row in alone for name, value in row.items() if name.endswith("per_second"))
    speeds = [row for row in written["integrate"] if "per_second" in row and row not in alone]
    kinds = {(row["optimizer"], row["fused"]) for row in speeds}
    assert kinds == set(product(("SGD", "SignSGD", "RMSprop", "Adam"), (True, False)))
    assert all(row["per_second"] > 0 for row in speeds)
    costs, kernels, *blocks = json.loads((folder / "recorder.json").read_text())["recorder"]
    kinds = {"everything", "without the Gram matrix", "without moments", "norms alone"}
    assert set(costs["recorded"]) == kinds
    assert kernels["recorded"]["launched"] > kernels["plain"]["launched"] > 100
    assert [row["seconds"] > 0 for row in blocks] == [True, True]


def tables_script() -> ModuleType:
    spec = spec_from_file_location("make_gpu_tables", ROOT / "scripts" / "make_gpu_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_docs_show_what_was_found(folder: Path) -> None:
    text = tables_script().results(folder)
    assert "| no waiting in loops | yes |" in text
    assert "at toy sizes that say nothing of speed" in text
    for row in json.loads((folder / "integrate.json").read_text())["integrate"]:
        if "per_second" in row:
            assert f"{row['per_second'] / 1e9:.3g}" in text
    assert "| `fashion-resnet.nc` | 19,842 | cpu | 4 | 4 |" in text


def test_the_page_has_the_tables_of_its_folder() -> None:
    found = ROOT / "data" / "gpu_runs"
    assert (found / "results.md").read_text() == tables_script().results(found)
    assert '--8<-- "data/gpu_runs/results.md"' in (ROOT / "docs" / "scale.md").read_text()
    assert all(path.stat().st_size <= 5_000_000 for path in found.iterdir() if path.is_file())


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
def test_a_measurement_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    half = json.loads((folder / "integrate.json").read_text())
    half["integrate"] = [row for row in half["integrate"] if "alone" not in row]
    kept = half["integrate"][:8]
    wrong = {"optimizer": "Adam", "fused": False, "coordinates": 8, "paths": 64, "error": "it went wrong"}
    (tmp_path / "integrate.json").write_text(
        json.dumps(half | {"complete": False, "integrate": [*kept, wrong]})
    )
    for parts, code in ((("--budget", "0.1", "integrate"), 1), (("integrate",), 0)):
        done = gpu_study("--smoke", "--out", str(tmp_path), *parts)
        assert done.returncode == code, done.stderr
    again = json.loads((tmp_path / "integrate.json").read_text())
    assert again["complete"]
    assert again["integrate"][:8] == kept
    found = [row for row in again["integrate"][8:] if "alone" not in row]
    assert [(row["optimizer"], row["per_second"] > 0) for row in found] == [("Adam", True)]


CRASHING = """
import ctypes
def check_promises(settings, path):
    ctypes.string_at(0)
"""
LOSING = """
from settings import Findings, Settings
lost = []
Settings.alive = property(lambda self: not lost)
def lose():
    lost.append(1)
    raise RuntimeError("an illegal memory access was encountered")
def measure_integrate(settings, path):
    found = Findings(settings, path, "integrate")
    for number in range(4):
        found.add({"number": number}, lose if number in (1, 2) else lambda: {"found": not lost})
    found.end()
def measure_recorder(settings, path):
    import time
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""
WRONG = """
from settings import Findings
def train_small_gpt(settings, path):
    raise ValueError("no such thing")
def train_resnet(settings, path):
    raise TimeoutError
"""


@pytest.mark.slow
def test_a_part_that_crashes_hangs_or_loses_the_device_stops_no_other(tmp_path: Path) -> None:
    script, out, earlier = tmp_path / "gpu_study", tmp_path / "out", tmp_path / "earlier"
    shutil.copytree(SCRIPT, script, ignore=shutil.ignore_patterns("__pycache__"))
    main = (script / "__main__.py").read_text().replace("GRACE = 35.0", "GRACE = 1.0")
    (script / "__main__.py").write_text(main)
    for name, code in {"checks": CRASHING, "benchmarks": LOSING, "training": WRONG}.items():
        (script / f"{name}.py").write_text(code)
    earlier.mkdir()
    (earlier / "truth.nc").write_text("found before")
    command = [sys.executable, str(script), "--smoke", "--out", str(out), "--resume", str(earlier)]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], capture_output=True, text=True, check=False, timeout=200)

    done = run("--minutes", "0.15", "recorder")
    assert done.returncode == 1
    assert "left: recorder (it hung and was ended)" in done.stderr
    done = run("checks", "integrate", "gpt", "resnet", "truth")
    assert done.returncode == 1
    for line in (
        "left: checks (its process ended with -11)",
        "left: integrate (it went wrong, see above)",
        "left: gpt (it went wrong, see above)",
        "left: resnet (the time was up; run it again for the rest)",
    ):
        assert line in done.stderr
    assert "ValueError: no such thing" in done.stderr
    assert f"truth: {out / 'truth.nc'} is there" in done.stdout
    rows = json.loads((out / "integrate.json").read_text())["integrate"]
    assert [row["number"] for row in rows] == [0, 1, 2, 3]
    assert [row["number"] for row in rows if "error" in row] == [1, 2]
    assert all(row["found"] for row in rows if "found" in row)


@pytest.mark.slow
def test_packages_that_are_missing_are_taken_from_wheels(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "carriedpackage-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carriedpackage.py", "NAME = 'carried'")
        wheel.writestr("carriedpackage-1.0.dist-info/METADATA", "Name: carriedpackage\nVersion: 1.0\n")
    with zipfile.ZipFile(tmp_path / "torch-0.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("torch.py", "raise AssertionError('torch is installed')")
    code = (
        "import pathlib, subprocess, sys; from carried import use_carried;"
        f"print(use_carried(pathlib.Path({str(tmp_path)!r})));"
        "import torch, carriedpackage;"
        "subprocess.run([sys.executable, '-c', 'import carriedpackage; print(carriedpackage.NAME)'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPT, capture_output=True, text=True, check=False, timeout=60
    )
    assert "carriedpackage-1.0-py3-none-any.whl" in done.stdout, done.stderr
    assert "torch-0.1" not in done.stdout
    assert done.stdout.split()[-1] == "carried"


def test_cells_travel_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT))
    truth = import_module("truth")
    cells, archive = tmp_path / "truth.cells", tmp_path / "truth.cells.zip"
    truth.unpack(archive, cells)
    assert not cells.exists()
    cells.mkdir()
    truth.pack(cells, archive)
    assert not archive.exists()
    for name in ("a.nc", "b.nc"):
        (cells / name).write_text(name)
        (cells / f"{name}.partial").write_text("half")
        truth.pack(cells, archive)
    before = archive.stat().st_mtime_ns
    truth.pack(cells, archive)
    assert archive.stat().st_mtime_ns == before
    other = tmp_path / "elsewhere"
    truth.unpack(archive, other)
    assert sorted(path.name for path in other.iterdir()) == ["a.nc", "b.nc"]


@pytest.mark.slow
def test_the_truth_study_is_planned(tmp_path: Path) -> None:
    done = gpu_study("--smoke", "--out", str(tmp_path), "truth")
    assert done.returncode == 0, done.stderr
    assert "adam" in done.stdout


def test_what_does_not_hold_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT))
    settings, path = import_module("settings"), tmp_path / "checks.json"
    rows = [{"check": "a", "holds": True}, {"check": "b", "holds": False}, {"check": "c", "error": "no"}]
    path.write_text(json.dumps({"complete": False, "checks": rows}))
    given = settings.of("cpu", 0, smoke=True, deadline=float("inf"))
    assert settings.Findings(given, path, "checks").rows == rows[:1]
    kept = settings.of("cpu", 0, smoke=True, deadline=float("inf"), keep_wrong=True)
    assert settings.Findings(kept, path, "checks").rows == rows
