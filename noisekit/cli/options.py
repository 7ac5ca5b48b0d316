"""The words of a command line, checked before they are parsed, so that each error is one sentence."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from noisekit.errors import InputError, did_you_mean, unknown_name

_NUMBERS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Option:
    """One argument of a command: its name, the types of its values, and whether it must be given."""

    name: str
    types: tuple[Any, ...]
    """One a value; none for a flag."""
    many: bool
    """Whether any number of values may follow."""
    required: bool
    positional: bool


def options_of(command: type) -> list[Option]:
    """Return the arguments of a command, those of its settings among them."""
    return list(_options(command))


def check_words(name: str, command: type, words: Sequence[str]) -> None:
    """Raise InputError for the first word that ``command`` cannot take, or for the first one it lacks."""
    if "--help" in words or "-h" in words:
        return
    options = options_of(command)
    named = {option.name: option for option in options if not option.positional}
    given, places = set(), 0
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            _refuse_dash(name, word, named)
            places += 1
            continue
        key, equals, value = word.partition("=")
        key = key.replace("_", "-")
        if key not in named:
            hint = did_you_mean(key, [*named, "--help"])
            raise InputError(f"noisekit {name} has no option {key}.{hint} See noisekit {name} --help.")
        option = named[key]
        given.add(option.name)
        _check_values(name, key, option, _values(option, equals, value, rest))
    places_of = [o for o in options if o.positional]
    missing = [o.name for o in options if o.required and not o.positional and o.name not in given]
    missing += [f"a {o.name}" for o in [o for o in places_of if o.required][places:]]
    if missing:
        needed = ", ".join(missing[:-1]) + " and " + missing[-1] if len(missing) > 1 else missing[0]
        raise InputError(f"noisekit {name} needs {needed}; see noisekit {name} --help.")
    _check_places(name, places_of, places)


def _values(option: Option, equals: str, value: str, rest: list[str]) -> list[str]:
    """Return the values of an option and take them out of ``rest``."""
    if equals:
        return [value]
    values: list[str] = []
    while rest and not rest[0].startswith("--") and (option.many or len(values) < len(option.types)):
        values.append(rest.pop(0))
    return values


def _check_values(name: str, key: str, option: Option, values: Sequence[str]) -> None:
    needed = len(option.types)
    if not needed:
        if values:
            raise InputError(f"{key} is a switch and takes no value; {values[0]!r} came.")
        return
    if (option.many and not values) or (not option.many and len(values) < needed):
        count = "a value" if needed == 1 else f"{needed} values"
        came = f"; {' '.join(values)} came" if values else ""
        raise InputError(f"noisekit {name} {key} needs {count}{came}.")
    kinds = option.types * len(values) if option.many else option.types
    for value, kind in zip(values, kinds, strict=False):
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise unknown_name(f"value of {key}", value, map(str, get_args(kind)))
        try:
            if kind in _NUMBERS:
                kind(value)
        except ValueError:
            raise InputError(f"{key} is {value!r}; it needs to be {_NUMBERS[kind]}.") from None


def _check_places(name: str, positional: Sequence[Option], count: int) -> None:
    if count > len(positional) and not any(option.many for option in positional):
        most = f"takes one {positional[0].name}" if positional else "takes no such word"
        raise InputError(f"noisekit {name} {most}, and {count} words came that are no options.")


def _refuse_dash(name: str, word: str, named: Mapping[str, Option]) -> None:
    if word.startswith("-") and len(word) > 1:
        hint = did_you_mean("-" + word, named)
        raise InputError(f"noisekit {name} has no option {word}.{hint} See noisekit {name} --help.")


def _options(command: type) -> Iterator[Option]:
    hints = get_type_hints(command, include_extras=True)
    for field in fields(command):
        hint = hints[field.name]
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        positional = tyro.conf.Positional in marks
        plain = get_type_hints(command)[field.name]
        if is_dataclass(plain):
            yield from _options(plain)  # type: ignore[arg-type]
            continue
        kinds, many = _kinds(plain)
        required = field.default is MISSING and field.default_factory is MISSING
        dashed = f"--{field.name.replace('_', '-')}"
        yield Option(_metavar(hint, field.name) if positional else dashed, kinds, many, required, positional)


def _kinds(hint: Any) -> tuple[tuple[Any, ...], bool]:
    """Return the types of an argument's values, and whether there may be any number of them."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        return (parts[0],) if Ellipsis in parts else parts, Ellipsis in parts
    return () if hint is bool else (hint,), False


def _metavar(hint: Any, name: str) -> str:
    if name == "problem":
        return "PROBLEM"
    return "FILE" if Path in _kinds(_plain(hint))[0] else name.upper()


def _plain(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint
