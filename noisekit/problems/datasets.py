"""The data sets that problems train on: bundled, from scikit-learn, or in a folder the user already has."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from noisekit.errors import FileFormatError, InputError
from noisekit.problems.image_folders import IDX_FILES, read_image_folder

SHA256 = {
    "fashion_mnist": "1770f6a4af42b06b9a55906961ab11f1f91a753398f1fd516b215e836f213dfc",
    "shakespeare": "3653d0f0b29afec778a563e116a1aaae6bb4fdc1021ca6e54a71cab9eebf037f",
}
"""Of the unpacked bundled files, one after the other in the order of their names."""


@dataclass(frozen=True)
class Dataset:
    """Training and test samples, standardised, with what names them for ever."""

    name: str
    inputs: Tensor
    """(sample, …), float32, or int64 for text."""
    targets: Tensor
    """(sample, …), int64."""
    test_inputs: Tensor
    test_targets: Tensor
    sha256: str
    n_classes: int


def data_folder(name: str) -> Path:
    """Return the folder of bundled data: inside an installed package, or beside it in a checkout.

    Raises:
        FileFormatError: if it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_data" / name, package.parent / "data" / name):
        if folder.is_dir():
            return folder
    raise FileFormatError(
        f"The bundled data {name!r} are missing from this installation; install noisekit again."
    )


def breast_cancer() -> Dataset:
    """569 tumours, 30 measurements each, benign or malignant (scikit-learn's copy of the Wisconsin data)."""
    from sklearn.datasets import load_breast_cancer

    inputs, targets = load_breast_cancer(return_X_y=True)
    return _from_table("breast_cancer", inputs, targets, n_train=455)


def digits() -> Dataset:
    """1,797 handwritten digits of 8 × 8 pixels (scikit-learn's copy of the UCI test set)."""
    from sklearn.datasets import load_digits

    inputs, targets = load_digits(return_X_y=True)
    return _from_table("digits", inputs, targets, n_train=1437)


def fashion_mnist() -> Dataset:
    """6,000 training and 1,000 test images of clothes, 28 × 28 pixels (bundled)."""
    folder = data_folder("fashion_mnist")
    contents = {name: gzip.decompress((folder / f"{name}.gz").read_bytes()) for name in sorted(IDX_FILES)}
    _verify("fashion_mnist", b"".join(contents.values()))
    return images_from_folder(folder, name="fashion_mnist")


def images_from_folder(folder: str | Path, *, name: str | None = None) -> Dataset:
    """Return the MNIST-like (idx) or CIFAR-10 images in a ``folder`` that is already on this machine.

    Raises:
        InputError: if the folder does not exist.
        FileFormatError: if it holds neither format, or a file of it is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r}; give one that holds MNIST or CIFAR-10 files.")
    images, labels, test_images, test_labels = read_image_folder(folder)
    digest = hashlib.sha256()
    for array in (images, labels, test_images, test_labels):
        digest.update(np.ascontiguousarray(array).data)
    mean = images.mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    deviation = images.std(axis=(0, 2, 3), keepdims=True, dtype=np.float64).clip(1e-6)

    def standardise(array: np.ndarray) -> Tensor:
        scaled = array.astype(np.float32)
        scaled -= mean.astype(np.float32)
        scaled /= deviation.astype(np.float32)
        return torch.from_numpy(scaled)

    return Dataset(
        name=name or folder.name,
        inputs=standardise(images),
        targets=torch.from_numpy(labels.astype(np.int64)),
        test_inputs=standardise(test_images),
        test_targets=torch.from_numpy(test_labels.astype(np.int64)),
        sha256=SHA256[name] if name in SHA256 else digest.hexdigest(),
        n_classes=int(labels.max()) + 1,
    )


def shakespeare(*, context: int, n_samples: int, n_test: int = 256) -> Dataset:
    """Blocks of ``context`` characters of nine plays, each with the characters that follow (bundled).

    Training blocks are spread evenly over the first nine tenths of the text, test blocks over the last.

    Raises:
        InputError: if the text is too short for so many blocks without overlap.
    """
    content = (data_folder("shakespeare") / "plays.txt").read_bytes()
    _verify("shakespeare", content)
    codes, tokens = np.unique(np.frombuffer(content, dtype=np.uint8), return_inverse=True)
    text = torch.from_numpy(tokens.astype(np.int64))
    cut = len(text) * 9 // 10
    inputs, targets = _blocks(text[:cut], context, n_samples)
    test_inputs, test_targets = _blocks(text[cut:], context, min(n_test, (len(text) - cut - 1) // context))
    return Dataset(
        "shakespeare", inputs, targets, test_inputs, test_targets, SHA256["shakespeare"], n_classes=len(codes)
    )


def _blocks(text: Tensor, context: int, count: int) -> tuple[Tensor, Tensor]:
    most = (len(text) - 1) // context
    if not 1 <= count <= most:
        raise InputError(f"n_samples is {count}; the text has 1 to {most} blocks of {context} characters.")
    starts = torch.linspace(0, len(text) - 1 - context, count, dtype=torch.float64).long()
    index = starts[:, None] + torch.arange(context)
    return text[index], text[index + 1]


def _from_table(name: str, inputs: np.ndarray, targets: np.ndarray, *, n_train: int) -> Dataset:
    """Shuffle once, always the same way, split, and standardise each feature by the training part."""
    digest = hashlib.sha256(np.ascontiguousarray(inputs).tobytes() + np.ascontiguousarray(targets).tobytes())
    order = np.random.default_rng(0).permutation(len(inputs))
    train, test = order[:n_train], order[n_train:]
    deviation = inputs[train].std(0)
    scaled = (inputs - inputs[train].mean(0)) / np.where(deviation > 0, deviation, 1.0)
    x = torch.from_numpy(scaled.astype(np.float32))
    y = torch.from_numpy(targets.astype(np.int64))
    return Dataset(
        name, x[train], y[train], x[test], y[test], digest.hexdigest(), n_classes=int(targets.max()) + 1
    )


def _verify(name: str, content: bytes) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise FileFormatError(
            f"The bundled data {name!r} are damaged: their sha256 is {found[:12]}…, "
            f"not {SHA256[name][:12]}…; install noisekit again."
        )
