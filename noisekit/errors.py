"""The errors noisekit raises on purpose. Each message says what came, what is needed and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class NoisekitError(Exception):
    """Base of every error that noisekit expects; the command line shows its message without a traceback."""


class InputError(NoisekitError, ValueError):
    """An argument has a wrong value, shape, dtype or name."""


class UnsupportedModelError(NoisekitError):
    """Per-sample gradients of this model would be wrong, so they are not computed."""


class InfiniteVarianceError(NoisekitError):
    """An SDE that needs the variance of the noise was given noise without one."""


class NonFiniteError(NoisekitError):
    """A loss or a gradient is NaN or infinite."""


class FileFormatError(NoisekitError):
    """A file is not one that noisekit can read."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Return the error for an unknown ``name`` of some ``kind``, naming the nearest and all valid ones."""
    known = sorted(known)
    return InputError(
        f"There is no {kind} {str(name)!r}.{did_you_mean(name, known)} Known: {', '.join(known)}."
    )


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return the question that names the nearest of ``known``, with a space before it, or the empty text."""
    nearest = get_close_matches(str(name), sorted(known), n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def kind_of(value: object) -> str:
    """Return the name of the type of ``value`` with its article.

    >>> kind_of(2), kind_of([]), kind_of(None)
    ('an int', 'a list', 'None')
    """
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"
