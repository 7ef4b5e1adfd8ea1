"""The class of all commands: what holds for every option, however it is declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from typing_extensions import override


class Command(click.Command):
    """Refuses values that no parameter can have.

    An empty one, as in `-o ''`, would otherwise be the current folder, or no option at all. Bytes
    that are not UTF-8 can be written into no picture, log or vector file; names of scenes are
    looked up as they are.
    """

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = list(args)
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # which completes a line that is typed at the moment
            self._check_values(ctx, typed)
        return rest

    def _check_values(self, ctx: click.Context, args: list[str]) -> None:
        # As typed: click's types have made a folder of an empty path.
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
    # Python keeps other bytes as surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in text)
