"""The bundled data are what they claim to be, wherever noisekit is installed."""

import hashlib
import importlib.util
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from noisekit.errors import FileFormatError, InputError
from noisekit.problems import datasets

ROOT = Path(__file__).parents[2]


def installed_package(tmp_path, monkeypatch):
    """Make noisekit believe that it lies in ``tmp_path`` as a wheel puts it, data in noisekit/_data."""
    package = tmp_path / "site-packages" / "noisekit"
    shutil.copytree(ROOT / "data", package / "_data")
    monkeypatch.setattr(datasets, "__file__", str(package / "problems" / "datasets.py"))
    return package


def prepare_script(folder):
    spec = importlib.util.spec_from_file_location(f"prepare_{folder}", ROOT / "data" / folder / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", datasets.SHA256)
def test_readme_states_the_hash_that_is_checked(name):
    assert datasets.SHA256[name] in (ROOT / "data" / name / "README.md").read_text()


def test_data_are_found_in_a_checkout():
    assert datasets.data_folder("shakespeare") == ROOT / "data" / "shakespeare"


def test_data_are_found_in_an_installed_wheel(tmp_path, monkeypatch):
    package = installed_package(tmp_path, monkeypatch)
    assert datasets.data_folder("fashion_mnist") == package / "_data" / "fashion_mnist"
    assert len(datasets.fashion_mnist().inputs) == 6000
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["data"] == "noisekit/_data"


def test_missing_data_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "noisekit" / "problems" / "datasets.py"))
    with pytest.raises(FileFormatError, match="'shakespeare' are missing"):
        datasets.shakespeare(context=8, n_samples=4)


def test_damaged_data_are_refused(tmp_path, monkeypatch):
    plays = installed_package(tmp_path, monkeypatch) / "_data" / "shakespeare" / "plays.txt"
    plays.write_bytes(plays.read_bytes().replace(b"HAMLET", b"HAMLEY", 1))
    with pytest.raises(FileFormatError, match="damaged: their sha256 is"):
        datasets.shakespeare(context=8, n_samples=4)


def test_fashion_mnist_is_standardised_and_labelled():
    data = datasets.fashion_mnist()
    assert data.inputs.shape == (6000, 1, 28, 28)
    assert data.test_inputs.shape == (1000, 1, 28, 28)
    assert data.sha256 == datasets.SHA256["fashion_mnist"]
    assert abs(data.inputs.mean()) < 1e-3
    assert abs(data.inputs.std() - 1) < 1e-3
    counts = torch.bincount(data.targets)
    assert len(counts) == data.n_classes == 10
    assert counts.min() > 500
    # The first ten labels of the original training file: ankle boot, shirt-like, ...
    assert data.targets[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]


@pytest.mark.parametrize(
    ("load", "shape", "n_test", "n_classes"),
    [(datasets.breast_cancer, (455, 30), 114, 2), (datasets.digits, (1437, 64), 360, 10)],
)
def test_tables_are_split_and_standardised(load, shape, n_test, n_classes):
    data = load()
    assert data.inputs.shape == shape
    assert len(data.test_inputs) == len(data.test_targets) == n_test
    assert data.n_classes == n_classes
    assert data.inputs.mean(0).abs().max() < 1e-5
    deviation = data.inputs.std(0, correction=0)
    assert ((deviation - 1).abs() < 1e-4).logical_or(deviation == 0).all()
    assert torch.equal(load().inputs, data.inputs)
    rows = {hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in data.test_inputs}
    train = {hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in data.inputs}
    assert not rows & train


def test_shakespeare_targets_are_the_following_characters():
    data = datasets.shakespeare(context=16, n_samples=50)
    assert data.inputs.shape == data.targets.shape == (50, 16)
    assert torch.equal(data.inputs[:, 1:], data.targets[:, :-1])
    assert data.n_classes == 62
    text = datasets.data_folder("shakespeare").joinpath("plays.txt").read_text()
    assert len(text) == 1_118_534
    characters = np.array(sorted(set(text)))
    assert "".join(characters[data.inputs[0].numpy()]) == text[:16]
    assert "".join(characters[data.targets[0].numpy()]) == text[1:17]


def test_shakespeare_blocks_do_not_overlap():
    most = (1_118_534 * 9 // 10 - 1) // 128
    data = datasets.shakespeare(context=128, n_samples=most)
    assert len({row.numpy().tobytes() for row in data.inputs}) == most
    with pytest.raises(InputError, match=f"1 to {most} blocks"):
        datasets.shakespeare(context=128, n_samples=most + 1)


def test_plays_are_cleaned_to_speeches():
    markdown = (
        "# Title\n\n## ACT I\n\n_Enter A\nand B_\n\n"
        "**First Clown**  \nTwo _aside_ lines,  \nc\u2019est \\[all\\] & c.\n"
    )
    assert prepare_script("shakespeare").plain_text(markdown) == "FIRST CLOWN:\nTwo lines,\ncest all etc."


def test_idx_files_are_cut_with_a_right_header():
    content = bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 1]) + bytes(range(10))
    cut = prepare_script("fashion_mnist").first_items(content, 3, 2)
    assert cut == bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1]) + bytes(range(6))
