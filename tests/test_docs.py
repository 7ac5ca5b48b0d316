"""The documentation: its Python runs, the gallery's scripts draw, the site builds without a warning."""

import importlib
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import noisekit
from noisekit.cli.command import Command
from noisekit.cli.parse import parse

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
SCRIPTS = sorted((ROOT / "scripts").glob("[0-9][0-9]_*.py"))
ROOMS = sorted(page.stem for page in (ROOT / "docs" / "reference").glob("*.md"))
FENCE = re.compile(r"^```python\n(.*?)^```", flags=re.S | re.M)
ELSEWHERE = "# Not run by the tests, needs "
"""How a block begins that needs several processes or a trainer of the reader's own."""


def code_of(page):
    """Return (line, code) of the Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start(1)].count("\n"), m[1]) for m in FENCE.finditer(text)]


RUNNABLE = [page for page in PAGES if any(not code.startswith(ELSEWHERE) for _, code in code_of(page))]


def test_pages_and_scripts_are_found():
    assert len(RUNNABLE) >= 5
    assert len(SCRIPTS) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if not hasattr(torch.cpu.Stream, "record_event"):  # FSDP2 of torch 2.6 needs a GPU
        monkeypatch.setattr("torch.distributed.fsdp.fully_shard", lambda module: module)
    namespace = {"__name__": "page"}
    for line, code in code_of(page):
        if not code.startswith(ELSEWHERE):
            exec(compile("\n" * line + code, str(page), "exec"), namespace)


def test_few_blocks_are_left_out_and_all_are_python():
    left_out = 0
    for page in PAGES:
        for line, code in code_of(page):
            compile("\n" * line + code, str(page), "exec")
            left_out += code.startswith(ELSEWHERE)
    assert left_out <= 3


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_commands_on_a_page_are_understood(page):
    for line in re.findall(r"^\$ noisekit (.*)$", page.read_text(encoding="utf-8"), flags=re.M):
        words = shlex.split(line, comments=True)
        if words != ["--help"]:
            assert isinstance(parse(words), Command), line


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_gallery_script_draws_its_figure(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figure = Path("docs/gallery") / f"{script.stem}.png"
    figure.parent.mkdir(parents=True)
    runpy.run_path(str(script), run_name="__main__")
    assert figure.stat().st_size > 10_000


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_gallery_shows_script_and_figure(script):
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert f'--8<-- "scripts/{script.name}"' in page
    assert f"(gallery/{script.stem}.png)" in page
    assert (ROOT / "docs" / "gallery" / f"{script.stem}.png").is_file()
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60


def test_schema_page_says_what_the_schema_says():
    make = runpy.run_path(str(ROOT / "scripts" / "make_schema_page.py"))["schema_page"]
    assert (ROOT / "docs" / "schema.md").read_text(encoding="utf-8") == make()


def test_reference_has_a_page_for_every_room_with_public_names():
    assert set(noisekit._ROOM_OF.values()) | {"plots", "errors"} <= set(ROOMS)
    for room in ROOMS:
        assert f"::: noisekit.{room}\n" in (ROOT / "docs" / "reference" / f"{room}.md").read_text()


if importlib.util.find_spec("mkdocs") and importlib.util.find_spec("mkdocstrings"):

    def test_docstrings_become_markdown_that_shows_the_same_text():
        as_markdown = runpy.run_path(str(ROOT / "scripts" / "docs_docstrings.py"))["as_markdown"]
        assert as_markdown("x* and ``a*b`` of :func:`fit`") == r"x\* and ``a*b`` of `fit`"
        assert as_markdown("Text\n>>> 1\n1\n\nMore") == "Text\n\n```pycon\n>>> 1\n1\n```\n\nMore"

    @pytest.mark.slow
    def test_site_builds_without_a_warning_and_asks_nothing_of_the_network(tmp_path):
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
        environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        for page in tmp_path.rglob("*.html"):
            loaded = re.findall(
                r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text()
            )
            assert not loaded, f"{page.name} loads {loaded}"
            assert "```" not in page.read_text(), f"{page.name} has a fence that is no block"
        for room in ROOMS:
            page = (tmp_path / "reference" / f"{room}.html").read_text()
            for name in getattr(importlib.import_module(f"noisekit.{room}"), "__all__", []):
                entry = rf'id="noisekit\.{room}\.(?:{name}\.)?{name}"'
                assert re.search(entry, page), f"{room}.html has no entry for {name}"
