"""The page of the command line knows every command and option, and no other."""

import re
from pathlib import Path

import pytest

from noisekit.cli.options import options_of
from noisekit.cli.parse import COMMANDS

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S))
COMMON = {"--json", "--debug"}


def test_every_command_has_its_section_and_its_row():
    assert list(SECTIONS) == list(COMMANDS)
    assert re.findall(r"^\| \[`(\S+)`\]", PAGE, flags=re.M) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_the_table_of_its_command(name):
    listed = re.findall(r"^\| `([^`]+)` \|", SECTIONS[name], flags=re.M)
    assert len(listed) == len(set(listed))
    assert set(listed) == {option.name for option in options_of(COMMANDS[name])} - COMMON


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_its_help(name, capsys):
    from noisekit.cli import main

    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = capsys.readouterr().out
    for option in options_of(COMMANDS[name]):
        assert option.name in shown
