"""From words to a command object."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Annotated, Union, cast

import tyro

import noisekit
from noisekit.cli.analyze import Analyze
from noisekit.cli.collect import Collect
from noisekit.cli.command import Command
from noisekit.cli.compare import Compare
from noisekit.cli.export import Export
from noisekit.cli.list_problems import ListProblems
from noisekit.cli.options import check_words
from noisekit.cli.predict import Predict
from noisekit.cli.report import Report
from noisekit.cli.run import Run
from noisekit.cli.scale import Scale
from noisekit.cli.shown_defaults import leave_out_empty_defaults
from noisekit.cli.study import Study
from noisekit.cli.summary import Summary
from noisekit.errors import InputError, unknown_name

COMMANDS: dict[str, type[Command]] = {
    "run": Run,
    "study": Study,
    "collect": Collect,
    "list": ListProblems,
    "summary": Summary,
    "analyze": Analyze,
    "predict": Predict,
    "compare": Compare,
    "scale": Scale,
    "report": Report,
    "export": Export,
}

DESCRIPTION = (
    "Statistical analysis of gradient noise: what the noise is, what the optimizer does with it, and whether "
    "that is true. Begin with `noisekit run`. `noisekit COMMAND --help` explains one command, `noisekit "
    "--version` says which noisekit this is, and `noisekit --print-completion bash` (or zsh) prints the "
    "completion of the shell."
)
SHORT = {"--lr": "--learning-rate"}
"""Options with a second name."""
_SHELLS = ("bash", "zsh", "tcsh")


def parse(arguments: Sequence[str]) -> Command:
    """Return the command that ``arguments`` ask for.

    Help, version and shell completion end the process.

    Raises:
        InputError: if there is no such command or option, naming the nearest, or a value is missing or wrong.
    """
    arguments = list(arguments) or ["--help"]
    if arguments == ["--version"]:
        print(f"noisekit {noisekit.__version__}")
        raise SystemExit(0)
    arguments = [_long(word) for word in _completion(arguments)]
    if not arguments[0].startswith("-"):
        if arguments[0] not in COMMANDS:
            raise unknown_name("command", arguments[0], COMMANDS)
        check_words(arguments[0], COMMANDS[arguments[0]], arguments[1:])
    elif arguments[0] not in ("--help", "-h", "--tyro-print-completion"):
        raise InputError(
            f"noisekit begins with a command, and {arguments[0]} is none; see noisekit --help for them."
        )
    listed = arguments[0] in ("--help", "-h")
    choices = tuple(
        Annotated[
            command,
            tyro.conf.subcommand(
                name, prefix_name=False, description=_first_sentence(command) if listed else None
            ),
        ]
        for name, command in COMMANDS.items()
    )
    for command in COMMANDS.values():
        leave_out_empty_defaults(command)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                cast("type[Command]", Union.__getitem__(choices)),
                prog="noisekit",
                description=DESCRIPTION,
                args=arguments,
                config=(tyro.conf.DisallowNone,),
            )
    except SystemExit as ended:
        if not ended.code:
            raise
        words = " ".join(said.getvalue().translate({ord(c): " " for c in "╭╮╰╯│─"}).split())
        raise InputError(f"noisekit {arguments[0]}: {words}") from None


def _first_sentence(command: type[Command]) -> str:
    """Return what the list of commands says of one."""
    return (command.__doc__ or "").partition("\n\n")[0]


def _long(word: str) -> str:
    """Return the long name of an option that has a short one, with its value if that is joined to it."""
    name, equals, value = word.partition("=")
    return f"{SHORT.get(name, name)}{equals}{value}" if name in SHORT else word


def _completion(arguments: list[str]) -> list[str]:
    """Return ``arguments`` with the option of shell completion under the name that the parser knows."""
    if arguments[0].partition("=")[0] != "--print-completion":
        return arguments
    shells = arguments[0].split("=")[1:] + arguments[1:]
    if len(shells) != 1 or shells[0] not in _SHELLS:
        came = " ".join(shells) or "nothing"
        raise InputError(f"--print-completion needs the shell, one of {', '.join(_SHELLS)}; {came} came.")
    return ["--tyro-print-completion", shells[0]]
