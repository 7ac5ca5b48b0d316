"""Help without the defaults that say nothing: an option that is unset by default does not show "None"."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

_NOTHING: tuple[Any, ...] = (None, False, "", ())


def leave_out_empty_defaults(command: type) -> None:
    """Mark the fields of ``command``, and of its settings, whose default is nothing: help shows none.

    The mark is an ``Annotated`` in the annotations, which only the parser reads.
    """
    hints, plain = get_type_hints(command, include_extras=True), get_type_hints(command)
    for field in fields(command):
        inner = plain[field.name]
        if is_dataclass(inner):
            leave_out_empty_defaults(inner)  # type: ignore[arg-type]
        elif _is_nothing(field) and not _is_marked(hints[field.name]):
            owner = next(c for c in command.__mro__ if field.name in inspect.get_annotations(c))
            mark = tyro.conf.arg(help_behavior_hint="")
            owner.__annotations__[field.name] = Annotated[hints[field.name], mark]


def _is_nothing(field: Field[Any]) -> bool:
    return field.default is not MISSING and any(field.default is value for value in _NOTHING)


def _is_marked(hint: Any) -> bool:
    """Return whether the annotation says itself how the argument is shown."""
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return any(hasattr(mark, "help_behavior_hint") for mark in marks)
