"""The command `polygonize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from typing_extensions import override

from geodinoseg.cli.bar import progress_bar
from geodinoseg.cli.command import Command
from geodinoseg.cli.events import report_done
from geodinoseg.cli.options import (
    allow_external_option,
    class_raster_argument,
    fill_holes_option,
    json_option,
    map_legend_option,
    min_area_option,
    overwrite_option,
    simplify_option,
)

_FILE = click.Path(path_type=Path)


class _Classes(click.ParamType[tuple[int | str, ...]]):
    """Class ids or names such as 1,3 or water,forest."""

    name = "id|name,..."

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | str, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(parts):
            self.fail(f"{value!r} has an empty entry between commas", param, ctx)
        return tuple(int(part) if part.isdecimal() else part for part in parts)


@click.command(cls=Command, needs={"keep_class": ("min_area",)})
@class_raster_argument
@click.option(
    "-o",
    "--output",
    required=True,
    type=_FILE,
    help="File to write: .gpkg, .shp, .fgb, .geojson (in longitude and latitude) or .parquet.",
)
@min_area_option
@click.option(
    "--keep-class",
    type=_Classes(),
    multiple=True,
    help="Class whose polygons are kept however small; may be repeated.",
)
@fill_holes_option
@simplify_option
@click.option("--classes", type=_Classes(), help="Convert only these classes. [default: all]")
@click.option("--dissolve", is_flag=True, help="Write one multipolygon per class.")
@map_legend_option
@allow_external_option
@overwrite_option
@json_option
def polygonize(**options: Any) -> None:
    """Convert CLASS_RASTER to polygons that share their borders.

    The raster is read once, some rows at a time, so it can be of any size. QGIS shows the polygons
    with the names and colours of the classes.

    \b
    Examples:
      geodinoseg polygonize landcover.tif -o landcover.gpkg
      geodinoseg polygonize landcover.tif -o fields.shp --min-area 100 --simplify 1.5
    """  # noqa: D301 (click's own mark: keep these lines)
    from geodinoseg.polygons.polygonize import write_polygons
    from geodinoseg.polygons.stream import PolygonOptions
    from geodinoseg.rasters.class_raster import open_class_raster
    from geodinoseg.redaction import redact_path

    source, output = options["class_raster"], options["output"]
    raster = open_class_raster(
        source, allow_external=options["allow_external"], legend_file=options["legend_file"]
    )
    unit, tolerance = options["simplify"]
    with progress_bar("tracing", json=options["json_"]) as progress:
        write_polygons(
            raster,
            output,
            min_area_m2=options["min_area"],
            simplify_px=tolerance if unit == "px" else 0.0,
            options=PolygonOptions(
                classes=options["classes"],
                keep_classes=[name for names in options["keep_class"] for name in names],
                fill_holes_m2=options["fill_holes"],
                simplify_m=tolerance if unit == "m" else None,
                dissolve=options["dissolve"],
            ),
            overwrite=options["overwrite"],
            progress=progress,
        )
    name = redact_path(source)
    report_done(
        options["json_"],
        [output],
        [f"{output}: polygons of {name}"],
        result={"class_raster": name, "classes": raster.legend.to_json()},
    )
