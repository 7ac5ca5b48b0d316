"""From words to a command object."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Return the command that ``arguments`` ask for; help and wrong use end the process as argparse does."""
    if list(arguments) == ["--version"]:
        print(f"noisekit {noisekit.__version__}")
        raise SystemExit(0)
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
