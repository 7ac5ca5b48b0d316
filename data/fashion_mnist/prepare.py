"""Cut the first 6,000 training and 1,000 test images of Fashion-MNIST out of the original idx.gz files.

python prepare.py FOLDER_OR_DEB     a folder with the four original files, or dataset-fashion-mnist_*.deb
"""

import gzip
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
KEEP = {"t10k": 1000, "train": 6000}
FILES = {
    "t10k-images-idx3-ubyte.gz": 28 * 28,
    "t10k-labels-idx1-ubyte.gz": 1,
    "train-images-idx3-ubyte.gz": 28 * 28,
    "train-labels-idx1-ubyte.gz": 1,
}


def first_items(content: bytes, count: int, item_size: int) -> bytes:
    """Return an idx file with the first ``count`` items; bytes 4 to 8 of its header hold their number."""
    n_axes = content[3]
    header = content[:4] + count.to_bytes(4, "big") + content[8 : 4 + 4 * n_axes]
    start = len(header)
    return header + content[start : start + count * item_size]


def main(source: Path) -> None:
    with tempfile.TemporaryDirectory() as unpacked:
        if source.suffix == ".deb":
            subprocess.run(["dpkg-deb", "-x", source, unpacked], check=True)
            source = Path(unpacked) / "usr/share/datasets/fashion-mnist"
        digest = hashlib.sha256()
        for name, item_size in FILES.items():
            content = gzip.decompress((source / name).read_bytes())
            content = first_items(content, KEEP[name.split("-")[0]], item_size)
            (HERE / name).write_bytes(gzip.compress(content, 9, mtime=0))
            digest.update(content)
    print(digest.hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
