"""The command `sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.console import progress_bar, report_done
from geodinoseg.cli.options import (
    allow_external_option,
    class_raster_argument,
    json_option,
    map_legend_option,
    overwrite_option,
)

_FILE = click.Path(path_type=Path)


class _Accuracy(click.ParamType[tuple[str, float]]):
    """An accuracy such as 0.8, or that of a class such as water=0.95."""

    name = "[class=]share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """The class, empty for all, and the share."""
        if isinstance(value, tuple):
            return value
        name, _, number = str(value).rpartition("=")
        try:
            share = float(number)
        except ValueError:
            self.fail(f"{value!r} is no accuracy such as 0.8 or water=0.95", param, ctx)
        if not 0 <= share <= 1:
            self.fail(f"{number} is no share of 0 to 1", param, ctx)
        return name, share


@click.command()
@class_raster_argument
@click.option("-o", "--output", required=True, type=_FILE, help="GeoPackage (.gpkg) to write.")
@click.option(
    "--points",
    type=click.IntRange(min=1),
    help="Points in all. [default: as many as --standard-error needs]",
)
@click.option(
    "--standard-error",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.02,
    show_default=True,
    help="Wanted standard error of overall accuracy.",
)
@click.option(
    "--expected-accuracy",
    type=_Accuracy(),
    multiple=True,
    help="User's accuracy as you guess it, of all classes (0.8) or of one (water=0.95); may be "
    "repeated. [default: 0.8]",
)
@click.option(
    "--allocation",
    type=click.Choice(["balanced", "proportional", "equal"]),
    default="balanced",
    show_default=True,
    help="How classes share the points: by area with a least number, by area, or alike.",
)
@click.option(
    "--min-per-class",
    type=click.IntRange(min=2),
    default=50,
    show_default=True,
    help="Points of a class at least, in the balanced allocation.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the random numbers; the same seed draws the same points.",
)
@map_legend_option
@allow_external_option
@overwrite_option
@json_option
def sample(class_raster: str, **options: Any) -> None:
    """Draw random points from each class of CLASS_RASTER, to say by eye what is there.

    Open the file in QGIS, fill in the column reference at each point, and give it to
    geodinoseg evaluate --sample.

    \b
    Examples:
      geodinoseg sample landcover.tif -o points.gpkg
      geodinoseg sample landcover.tif -o points.gpkg --points 300 --min-per-class 30
    """  # noqa: D301 (click's own mark: keep these lines)
    from geodinoseg.evaluation.sampling.draw import SampleOptions, draw_sample
    from geodinoseg.rasters.class_raster import open_class_raster

    expected = dict(options["expected_accuracy"])
    with progress_bar("drawing", json=options["json_"]) as progress:
        design = draw_sample(
            open_class_raster(
                class_raster,
                allow_external=options["allow_external"],
                legend_file=options["legend_file"],
            ),
            options["output"],
            options=SampleOptions(
                points=options["points"],
                standard_error=options["standard_error"],
                expected_accuracy=expected.pop("", 0.8),
                expected_by_class=expected,
                allocation=options["allocation"],
                min_per_class=options["min_per_class"],
                seed=options["seed"],
            ),
            overwrite=options["overwrite"],
            progress=progress,
        )
    lines = [design.table(), f"{design.path}: {design.points:,} points to fill in"]
    report_done(options["json_"], [design.path], lines, result=design.to_json())
