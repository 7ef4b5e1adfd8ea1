"""The command line: one module per command, which parses, calls the library and reports."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import Any

import click
from typing_extensions import override

from geodinoseg.cli.console import report_errors, report_usage_error
from geodinoseg.cli.events import expect_json
from geodinoseg.cli.log import log_options, remember_typed
from geodinoseg.cli.process import exit_on_write_errors
from geodinoseg.version import __version__

_COMMANDS = {
    "segment": "Segment a scene into a class raster and polygons.",
    "train": "Train a model on labelled scenes.",
    "polygonize": "Convert a class raster to polygons.",
    "evaluate": "Assess the accuracy of a class raster with labels or a sample of points.",
    "sample": "Draw a random sample of points from a class raster for visual interpretation.",
    "picture": "Draw a scene and its class raster side by side.",
    "style": "Give a class raster and its polygons other colours.",
    "info": "Describe a scene, a model folder or a class raster.",
}


class _LazyCommands(click.Group):
    """Imports the module of a command on first use, so that --help is fast."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"geodinoseg.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # click itself suggests the commands that are loaded, and here none is yet.
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise _no_such_command(error.command_name, ctx) from error

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    @override
    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        # Help and version are printed here.
        typed = list(args)
        with exit_on_write_errors():
            try:
                ctx = super().make_context(info_name, args, parent, **extra)
            except click.UsageError as error:
                report_usage_error(error, json_="--json" in typed)
                raise
        expect_json(ctx, typed)
        remember_typed(ctx, typed)
        return ctx

    @override
    def invoke(self, ctx: click.Context) -> Any:
        with report_errors(ctx):
            return super().invoke(ctx)


def _no_such_command(name: str, ctx: click.Context) -> click.UsageError:
    """The error of a mistyped command, with the one that is meant, or with all of them."""
    meant = get_close_matches(name.lower(), _COMMANDS, n=1)
    way_out = (
        f"Did you mean {meant[0]!r}?" if meant else f"The commands are {', '.join(_COMMANDS)}."
    )
    return click.UsageError(f"No such command {name!r}. {way_out}", ctx)


def _versions() -> str:
    """The versions of geodinoseg, rasterio and the GDAL that rasterio bundles."""
    import rasterio

    return (
        f"geodinoseg {__version__} "
        f"(rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__})"
    )


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(_versions())
        ctx.exit()


@click.group(
    cls=_LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of geodinoseg, rasterio and GDAL, and exit.",
)
def main() -> None:
    """Semantic segmentation of satellite scenes and drone orthomosaics with DINOv2.

    \b
    Examples:
      geodinoseg train ortho.tif --labels fields.gpkg --class-field crop -o crops.model
      geodinoseg segment ortho.tif --model crops.model -o landcover.tif --polygons landcover.gpkg

    Shell completion: eval "$(_GEODINOSEG_COMPLETE=bash_source geodinoseg)", or zsh_source,
    or fish_source.
    """  # noqa: D301 (click's own mark: keep these lines)


main.params += log_options()
