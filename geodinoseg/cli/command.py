"""The class of all commands: what holds for every option, however it is declared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
from typing_extensions import override


class Command(click.Command):
    """Refuses empty values: `-o ''` would otherwise be the current folder, or no option at all."""

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
            if "" in _texts(values.get(parameter.name or "")):
                raise click.BadParameter("the value is empty.", ctx, parameter)


def _texts(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else [value]
