"""Wrong uses of the command line: exit code 2 and one sentence."""

from __future__ import annotations

import re
import sys

import click
import pytest
from commands import COMMANDS, call, cli, valued
from workshop import open_workshop

from geodinoseg.cli import process


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


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("segmnet", "Did you mean 'segment'?"),
        ("segmentation", "Did you mean 'segment'?"),
        ("TRAIN", "Did you mean 'train'?"),
        ("melt", f"The commands are {', '.join(COMMANDS)}."),
        ("train a.tif --lables b.gpkg", "'--labels'"),
        ("segment a.tif --poligons b.gpkg", "'--polygons'"),
        ("info a.tif --jsn", "Did you mean '--json'?"),
        ("--versoin", "'--version'"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_is_meant(words, meant):
    for more in ((), ("--json",)):
        result = cli(*words.split(), *more)
        assert result.exit_code == 2
        assert re.search(f"Error: No such (command|option) '.*{re.escape(meant)}", result.stderr)


# A line break of each kind, and a command to a terminal.
HOSTILE = "first\nsecond\r\x85\u2028\x1b[31m"
LINES = ("Error: ", "Warning: ", "Usage: ", "Try ", "the fused head is ")


def check_lines(result):
    """Each line on stderr is a message of its own; nothing sends commands to a terminal."""
    assert not set("\r\x85\u2028\x1b") & set(result.stdout + result.stderr)
    for line in result.stderr.splitlines():
        assert not line or line.startswith(LINES)
    assert not re.search("^second", result.stdout, re.MULTILINE)


@pytest.fixture(scope="session")
def hostile_inputs(tmp_path_factory, color_field, small_model, backbone):
    folder = tmp_path_factory.mktemp("hostile")
    return open_workshop(
        folder, field=color_field, model=small_model, backbone=backbone, prefix=HOSTILE
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_names_with_line_breaks_are_written_in_one_line(command, hostile_inputs, workshop):
    hostile_inputs.clear()
    hostile, plain = (cli(*files.call(command)) for files in (hostile_inputs, workshop))
    assert (hostile.exit_code, plain.exit_code) == (0, 0), hostile.stderr
    check_lines(hostile)
    for stream in ("stdout", "stderr"):
        lines = [getattr(result, stream).count("\n") for result in (hostile, plain)]
        assert lines[0] == lines[1], stream


@pytest.mark.parametrize(
    ("command", "parameter"),
    [pytest.param(*case, id=f"{case[0]}-{case[1].name}") for case in valued()],
)
def test_errors_of_names_with_line_breaks_are_one_line(
    command, parameter, workshop, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{HOSTILE}.tif"
    words = workshop.call(command)
    if isinstance(parameter, click.Argument):
        words = call(command, str(path))
    else:
        words += [parameter.opts[-1], path]
    for more in ([], ["--json"]):
        result = cli(*words, *more)
        check_lines(result)
        workshop.clear()
        if result.exit_code:
            assert isinstance(result.exception, SystemExit), result.exception
            errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
            assert len(errors) == 1
        if not path.exists():
            path.write_text("no raster\n")


def test_a_name_that_is_no_utf8_is_refused_or_written_with_escapes(workshop, tmp_path):
    for option in ("--title", "--caption"):
        result = cli(*workshop.call("picture"), option, "Stra\udcdfe")
        assert result.exit_code == 2
        assert f"'{option}': the value is not valid UTF-8." in result.stderr


def test_a_line_that_the_terminal_cannot_write_has_escapes(capfdbinary, monkeypatch):
    monkeypatch.setattr(sys, "stdout", open(1, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    process.echo("Straße: \udcdf")
    assert capfdbinary.readouterr().out == rb"Stra\xdfe: \udcdf" + b"\n"
