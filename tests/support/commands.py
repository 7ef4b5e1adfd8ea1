"""All commands with all their parameters, from click's own tree, and how tests run them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
from click.testing import CliRunner, Result

from geodinoseg.cli import _COMMANDS, main

COMMANDS = tuple(_COMMANDS)


def cli(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def events(result: Result) -> list[dict[str, Any]]:
    """The JSON events on stdout."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def parameters(command: str) -> list[click.Parameter]:
    """Arguments and options of a command."""
    with click.Context(main) as ctx:
        found = main.get_command(ctx, command)
    assert found is not None
    return found.params


def valued() -> Iterator[tuple[str, click.Parameter]]:
    """Command and parameter of all that take a value."""
    for command in COMMANDS:
        for parameter in parameters(command):
            if isinstance(parameter, click.Argument) or not getattr(parameter, "is_flag", False):
                yield command, parameter


def call(command: str, value: str, **replaced: str) -> list[str]:
    """A call with one value for all that the command requires, and others by parameter."""
    words = [command]
    for parameter in parameters(command):
        text = replaced.get(parameter.name or "", value if parameter.required else None)
        if text is not None:
            words += [text] if isinstance(parameter, click.Argument) else [parameter.opts[-1], text]
    return words
