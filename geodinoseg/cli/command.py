"""The class of all commands, with checks of every option and argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click
from click.core import ParameterSource
from typing_extensions import override

from geodinoseg.cli.log import log_options, logged_run


class Command(click.Command):
    """Refuses values that are invalid for every parameter.

    An empty value, as in `-o ''`, would otherwise mean the current folder, or a missing option.
    Bytes that are not UTF-8 cannot be written to a picture, log or vector file; only arguments,
    such as names of scenes, may contain them. Refuses options that would have no effect, too.

    Args:
        args: as for `click.Command`.
        needs: options by parameter, of which one must be given for the parameter to have an effect;
            its default may be given in any case.
        conflicts: pairs of parameters of which only one can have an effect.
        more: as for `click.Command`.
    """

    def __init__(
        self,
        *args: Any,
        needs: Mapping[str, Sequence[str]] = MappingProxyType({}),
        conflicts: Sequence[tuple[str, str]] = (),
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self._needs, self._conflicts = needs, conflicts
        self.params += log_options()

    @override
    def invoke(self, ctx: click.Context) -> Any:
        with logged_run(ctx):
            return super().invoke(ctx)

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = list(args)
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # resilient parsing is used for shell completion
            self._check_values(ctx, typed)
            self._check_needs(ctx)
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

    def _check_needs(self, ctx: click.Context) -> None:
        parameters = {parameter.name: parameter for parameter in self.params}
        options = {name: parameter.opts[-1] for name, parameter in parameters.items()}
        for name, needed in self._needs.items():
            if _differs(ctx, parameters[name]) and not any(ctx.params[other] for other in needed):
                others = " or ".join(options[other] for other in needed)
                raise click.UsageError(f"{options[name]} has no effect without {others}.", ctx)
        for first, second in self._conflicts:
            if is_given(ctx, first) and is_given(ctx, second):
                raise click.UsageError(
                    f"{options[first]} and {options[second]}: give one of them.", ctx
                )


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether a parameter was typed, rather than left at its default."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _differs(ctx: click.Context, parameter: click.Parameter) -> bool:
    """Whether a value was typed that is not the default."""
    name, default = parameter.name or "", parameter.default
    if not isinstance(default, (str, float)):  # click marks a missing one in its own way
        return is_given(ctx, name)
    return bool(ctx.params[name] != parameter.type_cast_value(ctx, default))


def _texts(value: Any) -> Iterator[str]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return (text for text in values if isinstance(text, str))


def _is_utf8(text: str) -> bool:
    # Python represents other bytes by surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in text)
