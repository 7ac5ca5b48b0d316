"""What the schema is made of: variables with axes, units and symbols, in groups."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """One variable of a group: its axes, what it is, its unit and the sign it has in formulas."""

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"
    symbol: str = ""
    references: str = ""
    kind: str = "float"
    """``float``, ``int`` (also truth values, as 0 and 1) or ``str``."""

    def attributes(self) -> dict[str, str]:
        """Return what is written on the variable, without empty entries."""
        names = ("long_name", "units", "symbol", "references")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True)
class Group:
    """One group: what it is, its coordinates and its variables. ``open_dims`` admits further variables."""

    title: str
    coordinates: dict[str, Variable]
    variables: dict[str, Variable]
    open_dims: tuple[str, ...] | None = None
    """Axes of variables with free names (observables), if the group takes any."""


C25 = "Compagnoni et al. 2025, arXiv:2411.15958"
M18 = "McCandlish et al. 2018, arXiv:1812.06162"

COORDINATE = Variable(("coordinate",), "flat position of the parameter", kind="int")
TIME = Variable(("time",), "continuous time, learning rate times step", symbol="t = ηk")
TIME_STEP = Variable(("time",), "optimizer step", symbol="k", kind="int")
