"""The class of all commands, with checks of every option and argument."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from typing_extensions import override


class Command(click.Command):
    """Refuses values that are invalid for every parameter.

    An empty value, as in `-o ''`, would otherwise mean the current folder, or a missing option.
    Bytes that are not UTF-8 cannot be written to a picture, log or vector file; only arguments,
    such as names of scenes, may contain them.
    """

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = list(args)
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # resilient parsing is used for shell completion
            self._check_values(ctx, typed)
        return rest

    def _check_values(self, ctx: click.Context, args: list[str]) -> None:
        # Parsed again as typed, since click's types have turned an empty path into a folder.
        values, _, _ = self.make_parser(ctx).parse_args(args)
        for parameter in self.params:
            for text in _texts(values.get(parameter.name or "")):
                if not text:
                    raise click.BadParameter("the value is empty.", ctx, parameter)
                if isinstance(parameter, click.Option) and not _is_utf8(text):
                    raise click.BadParameter("the value is not valid UTF-8.", ctx, parameter)


def _texts(value: Any) -> Iterator[str]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return (text for text in values if isinstance(text, str))


def _is_utf8(text: str) -> bool:
    # Python represents other bytes by surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in text)
