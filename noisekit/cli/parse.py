"""From words to a command object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Union, cast

import tyro

import noisekit
from noisekit.cli.analyze import Analyze
from noisekit.cli.command import Command
from noisekit.cli.export import Export
from noisekit.cli.list_problems import ListProblems
from noisekit.cli.report import Report
from noisekit.cli.run import Run
from noisekit.cli.summary import Summary
from noisekit.errors import InputError, did_you_mean, unknown_name

COMMANDS: dict[str, type[Command]] = {
    "run": Run,
    "list": ListProblems,
    "report": Report,
    "summary": Summary,
    "analyze": Analyze,
    "export": Export,
}

DESCRIPTION = (
    "Statistical analysis of gradient noise: what the noise is, what the optimizer does with it, and whether "
    "that is true. Begin with `noisekit run`."
)


def parse(arguments: Sequence[str]) -> Command:
    """Return the command that ``arguments`` ask for.

    Help, and values that are missing or of a wrong type, end the process as argparse does.

    Raises:
        InputError: if there is no such command or option, naming the nearest.
    """
    if list(arguments) == ["--version"]:
        print(f"noisekit {noisekit.__version__}")
        raise SystemExit(0)
    _refuse_unknown_words(arguments)
    choices = tuple(
        Annotated[command, tyro.conf.subcommand(name, prefix_name=False)]
        for name, command in COMMANDS.items()
    )
    return tyro.cli(
        cast("type[Command]", Union.__getitem__(choices)),
        prog="noisekit",
        description=DESCRIPTION,
        args=list(arguments) or ["--help"],
        config=(tyro.conf.DisallowNone,),
    )


def _refuse_unknown_words(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        return
    name = arguments[0]
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    known = {"--help", *(f"--{option.replace('_', '-')}" for option in _options(COMMANDS[name]))}
    for word in arguments[1:]:
        option = word.partition("=")[0]
        if option.startswith("--") and option.replace("_", "-") not in known:
            hint = did_you_mean(option, known)
            raise InputError(f"noisekit {name} has no option {option}.{hint} See noisekit {name} --help.")


def _options(command: type) -> Iterator[str]:
    """Yield the names of the command's options, those of its settings among them."""
    for field in fields(command):
        if is_dataclass(field.default_factory):
            yield from _options(cast(type, field.default_factory))
        elif "Positional" not in str(field.type):
            yield field.name
