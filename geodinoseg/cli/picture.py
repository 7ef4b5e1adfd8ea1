"""The command `picture`."""

from __future__ import annotations

from pathlib import Path

import click

from geodinoseg.cli.bar import progress_bar
from geodinoseg.cli.command import Command
from geodinoseg.cli.events import report_done
from geodinoseg.cli.options import (
    allow_external_option,
    bands_option,
    class_raster_argument,
    json_option,
    map_legend_option,
    overwrite_option,
)

_FILE = click.Path(path_type=Path)


@click.command(cls=Command)
@click.argument("scene")
@class_raster_argument
@click.option("-o", "--output", required=True, type=_FILE, help="PNG file to write.")
@click.option("--title", help="Title above the picture. [default: the name of CLASS_RASTER]")
@click.option("--caption", help="Text below the picture, such as the imagery's attribution.")
@bands_option("red, green and blue, or the first bands")
@map_legend_option
@allow_external_option
@overwrite_option
@json_option
def picture(
    *,
    scene: str,
    class_raster: str,
    output: Path,
    title: str | None,
    caption: str | None,
    bands: tuple[int, ...] | None,
    legend_file: str | None,
    allow_external: bool,
    overwrite: bool,
    json_: bool,
) -> None:
    """Draw SCENE and its CLASS_RASTER side by side, with a legend and the area of each class.

    \b
    Example:
      geodinoseg picture ortho.tif landcover.tif -o landcover.png --caption "Imagery: CC BY 4.0"
    """  # noqa: D301 (click's own mark: keep these lines)
    from geodinoseg.plots.map_figure import plot_map
    from geodinoseg.rasters.class_raster import open_class_raster
    from geodinoseg.rasters.scene import open_scene
    from geodinoseg.redaction import redact_path

    raster = open_class_raster(class_raster, allow_external=allow_external, legend_file=legend_file)
    with progress_bar("drawing", json=json_) as progress:
        path = plot_map(
            open_scene(scene, bands=bands, allow_external=allow_external),
            raster,
            output,
            bands=bands,
            title=title,
            caption=caption,
            overwrite=overwrite,
            progress=progress,
        )
    shown = {"scene": redact_path(scene), "class_raster": redact_path(class_raster)}
    report_done(
        json_,
        [path],
        [f"{path}: {shown['scene']} beside {shown['class_raster']}"],
        result={**shown, "classes": raster.legend.to_json()},
    )
