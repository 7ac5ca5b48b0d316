"""Reading image folders in the formats of MNIST (idx) and CIFAR-10 (binary and Python batches)."""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from noisekit.errors import FileFormatError

Images: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Training images (sample, channel, row, column) and labels (sample,), then those for testing; uint8."""

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))


def read_image_folder(folder: Path) -> Images:
    """Return the images of an MNIST-like or CIFAR-10 ``folder``, or of the one folder in it that is one.

    Raises:
        FileFormatError: if no known files are there, or one is damaged.
    """
    for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        if _idx_path(place, IDX_FILES[0]).exists():
            images, labels, test_images, test_labels = (read_idx(_idx_path(place, n)) for n in IDX_FILES)
            return _checked((images[:, None], labels, test_images[:, None], test_labels), place)
        if (place / "data_batch_1.bin").exists():
            return _cifar(place, ".bin", _read_cifar_binary)
        if (place / "data_batch_1").exists():
            return _cifar(place, "", _read_cifar_python)
    raise FileFormatError(
        f"The folder {str(folder)!r} holds neither MNIST files ({IDX_FILES[0]}[.gz], …) nor CIFAR-10 files "
        "(data_batch_1[.bin], …)."
    )


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array in an idx file, packed with gzip or not.

    Raises:
        FileFormatError: if the file is missing or is not an idx file of bytes.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise FileFormatError(f"The file {str(path)!r} cannot be read: {error}.") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise FileFormatError(f"The file {str(path)!r} is not an idx file of bytes.")
    n_axes = content[3]
    header = 4 + 4 * n_axes
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4))
    if len(content) - header != int(np.prod(shape)):
        raise FileFormatError(f"The file {str(path)!r} is cut off: its header says {shape}.")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _idx_path(folder: Path, name: str) -> Path:
    packed = folder / f"{name}.gz"
    return packed if packed.exists() else folder / name


def _cifar(folder: Path, suffix: str, read: Any) -> Images:
    batches = [read(folder / f"{name}{suffix}") for name in CIFAR_TRAIN]
    test_images, test_labels = read(folder / f"test_batch{suffix}")
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return _checked((images, labels, test_images, test_labels), folder)


def _read_cifar_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One label byte and 3 × 32 × 32 pixel bytes a record."""
    try:
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise FileFormatError(f"The file {str(path)!r} cannot be read: {error}.") from error
    if len(content) == 0 or len(content) % 3073:
        raise FileFormatError(f"The file {str(path)!r} is not a CIFAR-10 binary batch.")
    records = content.reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays and plain containers and nothing else, so that no code in a file can run."""

    _ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_cifar_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dict with b"data" (sample, 3072) and b"labels"."""
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        images = np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        return images, np.asarray(batch[b"labels"], dtype=np.uint8)
    except Exception as error:
        raise FileFormatError(f"The file {str(path)!r} is not a CIFAR-10 Python batch: {error}.") from error


def _checked(images: Images, folder: Path) -> Images:
    for pixels, labels in (images[:2], images[2:]):
        if pixels.ndim != 4 or labels.shape != (len(pixels),) or len(pixels) == 0:
            raise FileFormatError(
                f"In {str(folder)!r} images have shape {pixels.shape} and labels {labels.shape}; "
                "each image needs one label."
            )
    return images
