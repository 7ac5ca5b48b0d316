"""For the documentation site: docstrings, which are plain text, as Markdown that shows the same text."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_CODE = re.compile(r"(``.+?``|`[^`\n]+`)", flags=re.S)
_ROLE = re.compile(r":(?:func|class|meth|mod|data):`~?([^`]+)`")


def as_markdown(docstring: str) -> str:
    """Return ``docstring`` with its doctests fenced and its asterisks and signs of order kept as they are.

    >>> as_markdown("x* of :func:`fit`\\n\\n>>> 1 + 1\\n2")
    'x\\\\* of `fit`\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```'
    """
    lines: list[str] = []
    fenced, indent = False, ""
    for line in _ROLE.sub(r"`\1`", docstring).splitlines():
        begins = line.lstrip().startswith(">>> ")
        if begins and not fenced:
            indent = line[: len(line) - len(line.lstrip())]
            if lines and lines[-1].strip():
                lines.append("")
            lines.append(f"{indent}```pycon")
            fenced = True
        elif fenced and not line.strip():
            lines.append(f"{indent}```")
            fenced = False
        lines.append(line if fenced else _escape(line))
    if fenced:
        lines.append(f"{indent}```")
    return "\n".join(lines)


def _escape(line: str) -> str:
    if line.lstrip().startswith("* "):
        return line
    parts = _CODE.split(line)
    return "".join(part if i % 2 else re.sub(r"([*<])", r"\\\1", part) for i, part in enumerate(parts))


class DocstringsAsMarkdown(Extension):
    """Rewrites every docstring that griffe reads."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
