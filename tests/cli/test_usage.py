"""Wrong uses of the command line: exit code 2 and one sentence."""

from __future__ import annotations

import re

import click
import pytest
from commands import call, cli, valued


@pytest.mark.parametrize(
    ("command", "parameter"),
    [pytest.param(*case, id=f"{case[0]}-{case[1].name}") for case in valued()],
)
def test_an_empty_value_is_a_wrong_use(command, parameter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = cli(*call(command, "x.tif", **{parameter.name: ""}))
    assert result.exit_code == 2
    assert result.stdout == ""
    *usage, message = result.stderr.splitlines()
    assert usage[0].startswith(f"Usage: main {command} ")
    name = "" if isinstance(parameter, click.Argument) else parameter.opts[-1]
    assert re.match(f"Error: Invalid value for '.*{name}'", message)
    assert not list(tmp_path.iterdir())


def test_help_is_shown_whatever_else_is_given():
    assert cli("segment", "-o", "", "--help").exit_code == 0
