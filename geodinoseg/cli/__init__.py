"""The command line: one module per command, which parses, calls the library and reports."""

from __future__ import annotations

import importlib
from typing import Any

import click

from geodinoseg.cli.console import report_errors
from geodinoseg.cli.process import exit_on_write_errors
from geodinoseg.version import __version__

_COMMANDS = {
    "segment": "Segment a scene into a class raster and polygons.",
    "train": "Train a model on labelled scenes.",
    "polygonize": "Turn a class raster into polygons.",
    "evaluate": "Assess the accuracy of a class raster by labels or by a sample of points.",
    "sample": "Draw a random sample of points to check a class raster by eye.",
    "picture": "Draw a scene and its map side by side.",
    "info": "Describe a scene, a model or a class raster.",
}


class _LazyCommands(click.Group):
    """Imports a command's module on first use, so that --help answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Names in the order of a typical workflow."""
        return list(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 (click's signature)
        cmd_name: str,
    ) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"geodinoseg.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 (click's signature)
        formatter: click.HelpFormatter,
    ) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the arguments; help and version are printed here."""
        with exit_on_write_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run; an error that a user can fix ends in one line and exit code 1."""
        with report_errors(ctx):
            return super().invoke(ctx)


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
    help="Show the versions of geodinoseg and GDAL and exit.",
)
def main() -> None:
    """Semantic segmentation of satellite scenes and drone orthomosaics with DINOv2.

    \b
    Example:
      geodinoseg train ortho.tif --labels fields.gpkg --class-field crop -o crops.model
      geodinoseg segment ortho.tif --model crops.model -o landcover.tif --polygons landcover.gpkg

    Shell completion: eval "$(_GEODINOSEG_COMPLETE=bash_source geodinoseg)", or zsh_source,
    or fish_source.
    """  # noqa: D301 (click's own mark: keep these lines)
