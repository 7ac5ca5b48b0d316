"""A matplotlib figure as SVG that lives inside an HTML page and follows its light or dark colours."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from matplotlib.figure import Figure

from noisekit.plots import style

VARIABLES = {
    style.INK: "--ink",
    style.MUTED: "--muted",
    style.GRID: "--grid",
    style.PAPER: "--paper",
    style.BLUE: "--blue",
    style.ORANGE: "--orange",
    style.GREEN: "--green",
    style.RED: "--red",
    style.PURPLE: "--purple",
    style.SKY: "--sky",
}
"""Which CSS variable stands for which colour of the figures; the page gives each a light and a dark value."""

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_HREF = "{http://www.w3.org/1999/xlink}href"


def to_inline_svg(figure: Figure, name: str, label: str) -> str:
    """Return ``figure`` as an ``<svg>`` element without names of its own that could clash with another's.

    Text is drawn as outlines, so it looks the same everywhere and no name of a model can become markup.

    figure: drawn in the style of ``noisekit.plots``
    name: a word that is unique on the page; it begins every id
    label: what a screen reader says
    """
    buffer = io.StringIO()
    with style.theme():
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches=None, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _drop(root, {"metadata", "style"})
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        _rewrite(element, name)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _rewrite(element: ElementTree.Element, name: str) -> None:
    target = element.attrib.pop(_HREF, None)
    if target is not None:
        element.set("href", f"#{name}-{target.removeprefix('#')}")
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == "style":
            element.set(key, _COLOUR.sub(_variable, value))
        elif key == "clip-path":
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))
        elif key in ("d", "x", "y"):
            element.set(key, _DECIMALS.sub(r"\1", value))


def _variable(match: re.Match[str]) -> str:
    colour = match.group().lower()
    return f"var({VARIABLES[colour]})" if colour in VARIABLES else colour


def _drop(root: ElementTree.Element, names: set[str]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in names:
                parent.remove(child)
