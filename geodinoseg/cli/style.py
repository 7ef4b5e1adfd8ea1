"""The command `style`."""

from __future__ import annotations

from pathlib import Path

import click

from geodinoseg.cli.command import Command
from geodinoseg.cli.events import report_done
from geodinoseg.cli.options import class_raster_argument, json_option


@click.command(cls=Command)
@class_raster_argument
@click.argument("colors", metavar="STYLE", type=click.Path(path_type=Path))
@click.option(
    "--polygons",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Polygons of the map that also get the colours; may be repeated. [default: the GeoPackage "
    "of the same name beside CLASS_RASTER]",
)
@json_option
def style(class_raster: str, colors: Path, *, polygons: tuple[Path, ...], json_: bool) -> None:
    """Give CLASS_RASTER and its polygons the colours of STYLE, in place.

    STYLE is a QGIS style (.qml), CSV with id, name, color, or any other file that --legend takes.
    Pixels, geometries and class names stay; a class without a colour in STYLE keeps its own.

    \b
    Examples:
      geodinoseg style landcover.tif landcover.qml
      geodinoseg style landcover.tif legend.csv --polygons fields.shp
    """  # noqa: D301 (click's own mark: keep these lines)
    from geodinoseg.polygons.style_map import style_map
    from geodinoseg.rasters.class_raster import describe_class_raster
    from geodinoseg.rasters.source import RasterSource

    paths = style_map(class_raster, colors, polygons=polygons)
    raster = describe_class_raster(RasterSource.of(paths[0]))
    report_done(
        json_,
        list(paths),
        [f"{path}: has the colours of {colors}" for path in paths],
        result={"class_raster": class_raster, "classes": raster.legend.to_json()},
    )
