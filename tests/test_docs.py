"""The docs speak of what is there: commands, options, files, Python names."""

from __future__ import annotations

import ast
import builtins
import re
import shlex
import textwrap
from pathlib import Path

import click
import pytest

import geodinoseg
from geodinoseg.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def command_lines() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        lines = re.findall(r"^\s*geodinoseg .*$|`geodinoseg [^`]+`", text, flags=re.MULTILINE)
        found += [(page.name, " ".join(line.strip("` \n").split())) for line in lines]
    return found


def commands() -> dict[str, click.Command]:
    context = click.Context(main)
    return {name: main.get_command(context, name) for name in main.list_commands(context)}


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_commands_in_the_docs_exist_with_their_options(page, line):
    known = commands()
    words = shlex.split(line.split("#")[0].replace("...", "X"))
    if len(words) < 2 or words[1].startswith("-"):
        return
    assert words[1] in known, f"{page}: {line}"
    options = {option for p in known[words[1]].params for option in (*p.opts, *p.secondary_opts)}
    options |= {"--help", "-h"}
    for word in words[2:]:
        if word.startswith("-") and not re.fullmatch(r"-\d.*", word):
            for option in word.split("=")[0].split("|"):
                assert option in options, f"{page}: {line}: {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_names_in_the_docs_are_public(page):
    for name in set(re.findall(r"\bgds\.(\w+)", page.read_text("utf-8"))):
        assert name in geodinoseg.__all__, f"{page.name}: gds.{name}"


def python_blocks(page: Path) -> list[ast.Module]:
    """The indented blocks of a page that are Python."""
    text = page.read_text("utf-8")
    found = []
    for block in re.findall(r"(?:^(?: {4}.*)?\n)+", text, flags=re.MULTILINE):
        try:
            tree = ast.parse(textwrap.dedent(block))
        except SyntaxError:
            continue
        if "gds." in block or any(
            isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree)
        ):
            found.append(tree)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_in_python_import_what_they_use(page):
    known = set(dir(builtins)) | {"__name__"}
    for tree in python_blocks(page):
        used = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
            elif isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.arg):
                known.add(node.arg)
            elif isinstance(node, ast.ClassDef | ast.FunctionDef):
                known.add(node.name)
        assert not used - known, f"{page.name}: {', '.join(sorted(used - known))}"


def test_every_command_has_help_with_an_example():
    for name, command in commands().items():
        assert "Example" in command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help or parameter.show_default, f"{name} {parameter.name}"
