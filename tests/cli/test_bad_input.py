"""Bad input, case by case: one sentence that names what came, the right code, and nothing left behind."""

import json
import os
import pickle
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from small_tree import small_tree

import noisekit as nk
from noisekit.cli import main
from noisekit.errors import NoisekitError
from noisekit.results import make_example_tree


class Bomb:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch exploded",)


def make_files(folder):
    example = small_tree()
    nk.save_tree(example, folder / "run.nc")
    good = (folder / "run.nc").read_bytes()
    (folder / "cut.nc").write_bytes(good[: len(good) // 2])
    (folder / "empty.nc").write_bytes(b"")
    (folder / "text.nc").write_text("step,loss\n1,2\n")
    (folder / "folder.nc").mkdir()
    (folder / "bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    torch.save({"weight": torch.zeros(3)}, folder / "model.pt")
    xr.Dataset({"temperature": ("day", np.arange(3.0))}).to_netcdf(folder / "weather.nc", engine="h5netcdf")
    old = xr.DataTree(name="old")
    old.attrs["Conventions"] = "noisekit-0"
    old.to_netcdf(folder / "old.nc", engine="h5netcdf")
    axes = xr.DataTree.from_dict({"/training": xr.Dataset({"loss": (("day", "hour"), np.zeros((2, 2)))})})
    axes.attrs["Conventions"] = "noisekit-1"
    axes.to_netcdf(folder / "axes.nc", engine="h5netcdf")
    training = xr.DataTree.from_dict({"/training": example["training"].to_dataset()})
    broken = folder / "broken.zarr"
    nk.save_tree(training, broken)
    (broken / ".zmetadata").write_text("{")
    pickled = folder / "pickled.zarr"
    nk.save_tree(training, pickled)
    array = json.loads((pickled / "training" / "loss" / ".zarray").read_text())
    array["filters"] = [{"id": "pickle", "protocol": 5}]
    (pickled / "training" / "loss" / ".zarray").write_text(json.dumps(array))
    nk.save_tree(training, folder / "bare.nc")
    nk.save_tree(training, folder / "run.zarr")
    (folder / "own.py").write_text("def bad():\n    return 3\n")
    (folder / "page.html").write_text("mine")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad-input")
    make_files(folder)
    return folder


def listing(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != "__pycache__"}


def refuse(files, monkeypatch, capsys, line, code, *words):
    """Run ``line`` in ``files`` and check that it is refused in one sentence with ``words``."""
    monkeypatch.chdir(files)
    before = listing(files)
    assert main(shlex.split(line)) == code
    out, err = capsys.readouterr()
    sentence = err.splitlines()[-1]
    assert out == ""
    assert err.count("\n") == 1 or err.startswith(("To repeat this", "Writing", "Fitting")), err
    assert sentence.startswith("noisekit: ")
    assert sentence.endswith((".", "?"))
    assert "Traceback" not in err
    for word in words:
        assert word in sentence
    assert listing(files) == before


READERS = {
    "summary": "summary {}",
    "analyze": "analyze {}",
    "predict": "predict {} --optimizer adam --lr 0.001",
    "compare": "compare {}",
    "scale": "scale {} --optimizer sgd --lr 0.1 --batch-ratio 2",
    "report": "report {} --output new.html",
    "export": "export {} --to csv --output new",
}
BAD_FILES = {
    "absent.nc": (2, "no file absent.nc"),
    "cut.nc": (1, "cut.nc is not a result file, or is damaged"),
    "empty.nc": (1, "empty.nc is not a result file"),
    "text.nc": (1, "not in netCDF-4"),
    "folder.nc": (1, "folder.nc is not a result file"),
    "bomb.pkl": (1, "bomb.pkl is not a result file"),
    "model.pt": (1, "model.pt is not a result file"),
    "weather.nc": (1, "weather.nc was not written by noisekit"),
    "old.nc": (1, "schema 'noisekit-0'"),
    "axes.nc": (1, "loss in group /training has the axes"),
    "broken.zarr": (1, "broken.zarr is damaged"),
    "pickled.zarr": (1, "could run code"),
}


@pytest.mark.parametrize("file", BAD_FILES)
@pytest.mark.parametrize("command", READERS)
def test_bad_file(files, monkeypatch, capsys, command, file):
    code, words = BAD_FILES[file]
    refuse(files, monkeypatch, capsys, READERS[command].format(file), code, words)


CASES = [
    # commands and options
    ("colect digits-mlp", 2, "There is no command 'colect'. Did you mean 'collect'?"),
    ("--steps 3", 2, "begins with a command", "--steps"),
    ("--print-completion fish", 2, "fish", "bash, zsh"),
    ("predict", 2, "needs --optimizer"),
    ("predict --optimizer adam --lr 0.1", 2, "needs a FILE"),
    ("predict run.nc --optimizer adam", 2, "needs --learning-rate"),
    ("predict run.nc --optimiser adam --lr 0.1", 2, "--optimiser", "Did you mean '--optimizer'"),
    ("predict run.nc --optimizer adm --lr 0.1", 2, "optimizer 'adm'", "Did you mean 'adam'"),
    ("scale --optimizer adam --lr 0.1", 2, "needs --batch-ratio"),
    ("collect", 2, "needs a PROBLEM"),
    ("compare", 2, "needs a FILE"),
    ("export run.nc", 2, "needs --to"),
    ("summary run.nc run.zarr", 2, "takes one FILE", "2 words"),
    ("list quadratic", 2, "takes no such word"),
    ("study --preset quik", 2, "value of --preset 'quik'", "Did you mean 'quick'"),
    ("summary run.nc -j", 2, "no option -j"),
    ("summary run.nc --json=yes", 2, "--json is a switch", "'yes'"),
    ("predict run.nc --optimizer adam --lr", 2, "--learning-rate needs a value"),
    ("predict run.nc --optimizer adam --lr 0.1 --betas 0.9", 2, "--betas needs 2 values", "0.9 came"),
    # numbers
    ("predict run.nc --optimizer adam --lr fast", 2, "--learning-rate is 'fast'", "a number"),
    ("predict run.nc --optimizer adam --lr 0", 2, "learning_rate = 0"),
    ("predict run.nc --optimizer adam --lr -1", 2, "learning_rate = -1"),
    ("predict run.nc --optimizer adam --lr nan", 2, "learning_rate = nan"),
    ("predict run.nc --optimizer adam --lr inf", 2, "learning_rate = inf"),
    ("predict run.nc --optimizer adam --lr 0.1 --batch-size 0", 2, "batch_size = 0"),
    ("predict run.nc --optimizer adam --lr 0.1 --batch-size 2.5", 2, "'2.5'", "whole number"),
    ("predict run.nc --optimizer adam --lr 0.1 --betas 0.9 1", 2, "β₂ = 1"),
    ("predict run.nc --optimizer adam --lr 0.1 --eps -1", 2, "eps = -1"),
    ("predict run.nc --optimizer adamw --lr 0.1 --weight-decay -1", 2, "weight_decay = -1"),
    ("predict run.nc --optimizer sgd --lr 0.1 --sharpness 0", 2, "sharpness = 0"),
    ("scale --optimizer adam --lr 0.1 --batch-ratio 0", 2, "batch_ratio = 0"),
    ("scale --optimizer sgd --lr 0.1 --batch-ratio 1e300", 2, "batch_ratio = 1e+300"),
    ("scale --optimizer adam --lr 0.1 --batch-ratio 2 --steps -5", 2, "steps = -5"),
    ("scale --optimizer adam --lr 0.1 --batch-ratio 100 --preset sde", 2, "less than 10 times"),
    ("compare run.nc --tolerance 2", 2, "tolerance is 2"),
    ("run quadratic --steps many", 2, "--steps is 'many'"),
    ("run quadratic --steps 0", 2, "steps is 0"),
    ("run quadratic --steps 99999999999999999999", 2, "at most 1,000,000,000"),
    ("run quadratic --replicates 1", 2, "replicates is 1"),
    ("run quadratic --learning-rates nan 0.1", 2, "learning rate is nan"),
    ("run quadratic --learning-rates 0.1", 2, "1 learning rates for 2 optimizers"),
    ("run quadratic --seed -1", 2, "seed is -1"),
    ("run quadratic --substeps 3", 2, "substeps is 3", "power of two"),
    ("collect digits-mlp --steps 0", 2, "steps is 0"),
    ("collect digits-mlp --batch-size 100000", 2, "batch_size is 100000", "1437 samples"),
    ("collect digits-mlp --learning-rate -0.1", 2, "learning_rate is -0.1"),
    ("collect digits-mlp --coordinates 99999999999", 2, "at most"),
    ("collect digits-mlp --momentum 1", 2, "momentum is 1"),
    # flags that contradict each other
    ("predict run.nc --optimizer sgd --lr 0.1 --betas 0.9 0.9", 2, "sgd has no --betas"),
    ("scale --optimizer adam --lr 0.1 --momentum 0.9 --batch-ratio 2", 2, "adam has no --momentum"),
    ("scale --optimizer sgd --lr 0.1 --batch-ratio 2 --preset fixed_lr", 2, "fixed_lr is for adaptive"),
    ("collect digits-mlp --every 2 --logarithmic 5", 2, "every and logarithmic"),
    ("collect digits-mlp --optimizer adam --momentum 0.9", 2, "momentum is a setting of sgd"),
    ("run quadratic --report x.html --no-report", 2, "--report and --no-report"),
    # names
    ("run digit-mlp", 2, "no problem 'digit-mlp'", "Did you mean 'digits-mlp'"),
    ("collect quadratic", 2, "quadratic has no network", "noisekit run"),
    ("collect digits-mlp --optimizer lion", 2, "no optimizer 'lion'"),
    ("collect folder.nc", 1, "folder.nc", "neither MNIST files"),
    ("collect absent.py:make", 2, "no file 'absent.py'"),
    ("collect own.py:good", 2, "'good'"),
    ("collect own.py:bad", 2, "returned an int"),
    ("run digits-mlp --device tpu", 2, "device 'tpu'", "cpu, cuda"),
    ("collect digits-mlp --device cuda", 2, "finds no CUDA device"),
    ("scale --optimizer adam --lr 0.1 --batch-ratio 2 --preset linear", 2, "preset linear is for sgd"),
    ("export run.nc --to cvs", 2, "Did you mean 'csv'"),
    # places
    ("collect digits-mlp --output absent/x.nc", 2, "folder absent does not exist"),
    ("collect digits-mlp --output run.nc", 2, "run.nc exists"),
    ("collect digits-mlp --output x.pkl", 2, "suffix '.pkl'"),
    ("collect digits-mlp --output folder.nc --overwrite", 2, "folder.nc is a folder"),
    ("run quadratic --output /dev/full", 2, "/dev/full"),
    ("analyze run.nc --output run.nc", 2, "run.nc exists"),
    ("report run.nc --output page.html", 2, "page.html exists"),
    ("report run.nc --output page.pdf", 2, "suffix '.pdf'"),
    ("export run.nc --to zarr --output run.zarr", 2, "run.zarr exists"),
    ("export run.nc --to csv --output folder.nc/absent/x", 2, "does not exist"),
    # groups
    ("analyze bare.nc", 1, "no group '/gradient_noise'"),
    ("compare bare.nc", 1, "bare.nc", "noisekit run"),
    ("predict bare.nc --optimizer adam --lr 0.1", 1, "no record of gradient noise", "noisekit collect"),
    ("compare run.nc absent.nc", 2, "no file absent.nc"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_bad_words(files, monkeypatch, capsys, case):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refuse(files, monkeypatch, capsys, *case)


def test_nothing_in_a_file_was_run(files):
    assert not (files / "exploded").exists()


def test_a_file_that_may_not_be_read_is_named(files, monkeypatch, capsys):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(xr, "open_datatree", refused)
    refuse(files, monkeypatch, capsys, "summary run.nc", 1, "run.nc may not be read")


def test_a_folder_that_may_not_be_written_to_is_named_before_the_work(files, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)
    refuse(files, monkeypatch, capsys, "collect digits-mlp --output new.nc", 2, "cannot be written to")


@pytest.mark.parametrize("file", ["new.nc", "new.zarr"])
def test_an_interruption_while_writing_leaves_nothing(files, monkeypatch, capsys, file):
    monkeypatch.chdir(files)
    before = listing(files)

    def interrupted(tree, path, suffix):
        path.mkdir() if suffix == ".zarr" else path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("noisekit.results.io._write", interrupted)
    assert main(["export", "run.nc", "--to", "zarr" if "zarr" in file else "netcdf", "--output", file]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert listing(files) == before


def test_too_little_memory_is_one_sentence(files, monkeypatch, capsys):
    def hungry(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("noisekit.study.run.train_and_record", hungry)
    monkeypatch.chdir(files)
    assert main(["run", "digits-mlp", "--output", "new.nc"]) == 1
    assert "needs more memory" in capsys.readouterr().err.splitlines()[-1]
    assert not (files / "new.nc").exists()


FULL = """
import json, resource, sys
from noisekit.cli import main
sys.stdout.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
codes = [main(line.split()) for line in json.loads(sys.argv[1])]
print(json.dumps(codes))
"""


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_nothing_half_written(files):
    lines = [
        "export run.nc --to netcdf --output new.nc",
        "export run.nc --to zarr --output new.zarr",
        "export run.nc --to csv --output new",
        "report bare.nc --output new.html",
        "report bare.nc --output page.html --overwrite",
        "analyze run.nc --output new.nc",
    ]
    before = listing(files)
    done = subprocess.run(
        [sys.executable, "-c", FULL, json.dumps(lines)],
        cwd=files,
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout) == [1] * len(lines), done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("noisekit: ")]
    assert len(sentences) == len(lines), done.stderr
    assert all("could not be written" in s for s in sentences), sentences
    assert "Traceback" not in done.stderr
    assert listing(files) == before
    assert (files / "page.html").read_text() == "mine"


@pytest.mark.slow
def test_a_stdout_that_is_full_is_one_sentence(files):
    command = f"{sys.executable} -m noisekit summary run.nc > /dev/full"
    done = subprocess.run(["bash", "-c", command], cwd=files, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "noisekit: No space left on device.\n"


@pytest.mark.slow
def test_unicode_paths_work(files, tmp_path, capsys):
    path = tmp_path / "Größe η 測定.nc"
    for command, line in READERS.items():
        path.write_bytes((files / ("bare.nc" if command == "report" else "run.nc")).read_bytes())
        words = [w.replace("{}", str(path)).replace("new", str(tmp_path / "новый")) for w in line.split()]
        assert main(words) == 0, capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Größe η 測定.nc", "новый", "новый.html"]


@pytest.mark.slow
def test_hostile_text_in_a_file_is_shown_and_does_nothing(tmp_path, capsys):
    evil = "<script>alert(1)</script>\x1b[31m"
    tree = small_tree()
    tree.attrs |= {"title": evil, "problem": evil, "dataset": evil, "command": evil}
    for node in tree["comparison"].children.values():
        node.attrs["verdict_text"] = evil
    noise = tree["gradient_noise"].to_dataset()
    tree["gradient_noise"].dataset = noise.assign_coords(block=[b + evil[:-5] for b in noise["block"].values])
    path = nk.save_tree(tree, tmp_path / "evil.nc")
    assert main(["report", str(path)]) == 0
    page = (tmp_path / "evil.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    capsys.readouterr()
    for command in ("summary", "analyze", "compare", "predict"):
        assert main([w.format(path) for w in READERS[command].split()]) == 0
        assert "\x1b" not in capsys.readouterr().out


SAMPLES = torch.zeros(5, 2)
TREE = make_example_tree()
CALLS = {
    "open_tree": (lambda: nk.open_tree("absent.nc"), "absent.nc"),
    "save_tree": (lambda: nk.save_tree(TREE, "x.txt"), "suffix '.txt'"),
    "write_report": (lambda: nk.write_report(TREE, "x.pdf"), "suffix '.pdf'"),
    "load_problem": (lambda: nk.load_problem("quadratik"), "Did you mean 'quadratic'"),
    "load_problem of a size": (lambda: nk.load_problem("quadratic", size="huge"), "'huge'"),
    "Quadratic": (lambda: nk.Quadratic(torch.ones(2, 3)), "(2, 3)"),
    "every": (lambda: nk.every(0), "every(0)"),
    "logarithmic": (lambda: nk.logarithmic(-1), "logarithmic(-1)"),
    "noise_covariance": (lambda: nk.noise_covariance(SAMPLES, kind="round"), "'round'"),
    "tail_index": (lambda: nk.tail_index(SAMPLES, estimator="hil"), "Did you mean 'hill'"),
    "gradient_noise_scale": (lambda: nk.gradient_noise_scale(SAMPLES[:3]), "3"),
    "fit_noise": (lambda: nk.fit_noise(torch.randn(50, 2), family="cauchy"), "'cauchy'"),
    "GaussianNoise": (lambda: nk.GaussianNoise(scale=-1.0), "scale"),
    "StudentTNoise": (lambda: nk.StudentTNoise(scale=1.0, df=0.0), "df"),
    "SGDSDE": (lambda: nk.SGDSDE(lambda x: x, nk.GaussianNoise(scale=1.0), -0.1), "-0.1"),
    "integrate": (
        lambda: nk.integrate(
            nk.SGDSDE(lambda x: x, nk.GaussianNoise(scale=1.0), 0.1), torch.ones(2), steps=0
        ),
        "steps",
    ),
    "simulate_optimizer": (
        lambda: nk.simulate_optimizer(
            nk.Quadratic(torch.ones(2)), lambda p: torch.optim.SGD(p, lr=0.1), torch.ones(2), steps=3
        ),
        "noise",
    ),
    "stationary_law": (lambda: nk.stationary_law("sdg", [1.0], [1.0], 0.1), "'sgd'"),
    "noise_floor": (lambda: nk.noise_floor("sgd", [1.0, float("nan")], 0.1), "NaN"),
    "regimes": (lambda: nk.regimes("sgd", 0.1, sharpness=float("inf")), "sharpness"),
    "scale_hyperparameters": (lambda: nk.scale_hyperparameters("sgd", {"rate": 1.0}, 2), "'rate'"),
    "predict": (lambda: nk.predict(TREE, "adam", learning_rate=0.1, batch_size=-4), "batch_size = -4"),
    "collect": (lambda: nk.collect(nk.load_problem("rosenbrock")), "rosenbrock has no network"),
    "run_study": (
        lambda: nk.run_study(nk.load_problem("rosenbrock"), nk.study.StudyConfig(optimizers=())),
        "optimizer",
    ),
    "compare": (lambda: nk.compare(TREE, TREE), "DataTree"),
    "plot_noise_scale": (lambda: nk.plot_noise_scale(xr.DataTree()), "gradient_noise"),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_arguments_of_a_public_function(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, word = CALLS[name]
    with pytest.raises(NoisekitError) as raised:
        call()
    message = str(raised.value)
    assert word in message
    assert "\n" not in message
    assert message.endswith((".", "?"))
    assert list(tmp_path.iterdir()) == []
