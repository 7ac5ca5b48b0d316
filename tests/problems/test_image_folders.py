"""MNIST and CIFAR-10 folders that the user already has."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest

from noisekit.errors import FileFormatError, InputError
from noisekit.problems import images_from_folder, load_problem
from noisekit.problems.image_folders import CIFAR_TRAIN, IDX_FILES, read_idx, read_image_folder

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 3, 4, 9], dtype=np.uint8)


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def write_mnist(folder, *, packed=False):
    arrays = dict(
        zip(IDX_FILES, (PIXELS[:, 0, :28, :28], LABELS, PIXELS[:2, 0, :28, :28], LABELS[:2]), strict=True)
    )
    for name, array in arrays.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))


def write_cifar(folder, kind, *, protocol=2):
    for name in (*CIFAR_TRAIN, "test_batch"):
        if kind == "binary":
            records = np.concatenate([LABELS[:, None], PIXELS.reshape(6, -1)], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            batch = {b"data": PIXELS.reshape(6, -1), b"labels": LABELS.tolist(), b"batch_label": b"x"}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_folder(tmp_path, packed):
    write_mnist(tmp_path, packed=packed)
    images, labels, test_images, test_labels = read_image_folder(tmp_path)
    assert np.array_equal(images, PIXELS[:, :1, :28, :28])
    assert np.array_equal(labels, LABELS)
    assert np.array_equal(test_images, PIXELS[:2, :1, :28, :28])
    assert np.array_equal(test_labels, LABELS[:2])


@pytest.mark.parametrize(("kind", "protocol"), [("binary", 0), ("python", 2), ("python", 4)])
def test_cifar_folder(tmp_path, kind, protocol):
    inner = tmp_path / "cifar-10-batches"
    inner.mkdir()
    write_cifar(inner, kind, protocol=protocol)
    images, labels, test_images, test_labels = read_image_folder(tmp_path)
    assert np.array_equal(images, np.concatenate([PIXELS] * 5))
    assert np.array_equal(labels, np.tile(LABELS, 5))
    assert np.array_equal(test_images, PIXELS)
    assert np.array_equal(test_labels, LABELS)


def test_channels_are_standardised(tmp_path):
    write_cifar(tmp_path, "binary")
    data = images_from_folder(tmp_path, name="cifar")
    assert data.inputs.mean((0, 2, 3)).abs().max() < 1e-5
    assert (data.inputs.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert data.n_classes == 10


def test_a_problem_trains_on_the_folder(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    write_mnist(folder, packed=True)
    problem = load_problem("fashion-cnn", folder=folder, n_samples=4)
    assert problem.name == "mnist-cnn"
    assert problem.inputs.shape == (4, 1, 28, 28)
    assert problem.metadata["dataset"] == "mnist"
    assert len(problem.metadata["dataset_sha256"]) == 64
    assert load_problem("fashion-cnn", folder=folder).n_samples == 6


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    mark = tmp_path / "code-ran"
    write_cifar(tmp_path, "python")
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Malicious(mark), b"labels": [0]}))
    with pytest.raises(FileFormatError, match=r"data_batch_1.*refers to"):
        read_image_folder(tmp_path)
    assert not mark.exists()


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        images_from_folder(tmp_path / "absent")
    with pytest.raises(FileFormatError, match="neither MNIST files"):
        images_from_folder(tmp_path)
    write_mnist(tmp_path)
    path = tmp_path / IDX_FILES[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match="cut off"):
        images_from_folder(tmp_path)
    path.write_bytes(b"something else")
    with pytest.raises(FileFormatError, match="not an idx file"):
        read_idx(path)
    path.write_bytes(idx(PIXELS[:5, 0]))
    with pytest.raises(FileFormatError, match="each image needs one label"):
        images_from_folder(tmp_path)
    (tmp_path / IDX_FILES[3]).unlink()
    with pytest.raises(FileFormatError, match="cannot be read"):
        images_from_folder(tmp_path)


def test_a_cut_off_gzip_is_refused(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(idx(LABELS))[:-9])
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_idx(path)


def test_a_wrong_binary_batch_is_refused(tmp_path):
    write_cifar(tmp_path, "binary")
    (tmp_path / "data_batch_2.bin").write_bytes(b"short")
    with pytest.raises(FileFormatError, match=r"data_batch_2\.bin.*not a CIFAR-10 binary batch"):
        read_image_folder(tmp_path)
