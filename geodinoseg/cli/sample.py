"""The command `sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from typing_extensions import override

from geodinoseg.cli.bar import progress_bar
from geodinoseg.cli.command import Command, is_given
from geodinoseg.cli.events import report_done
from geodinoseg.cli.options import (
    COUNT,
    SEED,
    Number,
    allow_external_option,
    class_raster_argument,
    json_option,
    map_legend_option,
    overwrite_option,
)

_FILE = click.Path(path_type=Path)


class _Accuracy(click.ParamType[tuple[str, float]]):
    """An accuracy such as 0.8, or of one class such as water=0.95, as (class or "", accuracy)."""

    name = "[class=]fraction"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        name, _, number = str(value).rpartition("=")
        try:
            accuracy = float(number)
        except ValueError:
            self.fail(f"{value!r} is not an accuracy such as 0.8 or water=0.95", param, ctx)
        if not 0 <= accuracy <= 1:
            self.fail(f"{number} is not a fraction from 0 to 1", param, ctx)
        return name, accuracy


@click.command(
    cls=Command, conflicts=[("points", "standard_error"), ("points", "expected_accuracy")]
)
@class_raster_argument
@click.option("-o", "--output", required=True, type=_FILE, help="GeoPackage (.gpkg) to write.")
@click.option(
    "--points",
    type=COUNT,
    help="Total number of points. [default: as many as --standard-error requires]",
)
@click.option(
    "--standard-error",
    type=Number(click.FloatRange(0, 1, min_open=True, max_open=True), "fraction"),
    default=0.02,
    show_default=True,
    help="Target standard error of overall accuracy, between 0 and 1.",
)
@click.option(
    "--expected-accuracy",
    type=_Accuracy(),
    multiple=True,
    help="Expected user's accuracy of all classes (0.8) or of one (water=0.95); may be repeated. "
    "[default: 0.8]",
)
@click.option(
    "--allocation",
    type=click.Choice(["balanced", "proportional", "equal"]),
    default="balanced",
    show_default=True,
    help="How points are divided among classes: by area with a minimum (balanced), by area "
    "(proportional), or equally (equal).",
)
@click.option(
    "--min-per-class",
    type=Number(click.IntRange(min=2)),
    default=50,
    show_default=True,
    help="Minimum number of points per class in the balanced allocation.",
)
@click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="Random seed; the same seed draws the same points.",
)
@map_legend_option
@allow_external_option
@overwrite_option
@json_option
@click.pass_context
def sample(ctx: click.Context, /, class_raster: str, **options: Any) -> None:
    """Draw random points from each class of CLASS_RASTER for visual interpretation.

    Open the file in QGIS, fill in the column reference of each point, and pass the file to
    geodinoseg evaluate --sample.

    \b
    Examples:
      geodinoseg sample landcover.tif -o points.gpkg
      geodinoseg sample landcover.tif -o points.gpkg --points 300 --min-per-class 30
    """  # noqa: D301 (click's own mark: keep these lines)
    from geodinoseg.evaluation.sampling.draw import SampleOptions, draw_sample
    from geodinoseg.rasters.class_raster import open_class_raster

    if options["allocation"] != "balanced" and is_given(ctx, "min_per_class"):
        raise click.UsageError("--min-per-class has no effect without --allocation balanced.", ctx)
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
    lines = [*design.table().split("\n"), f"{design.path}: {design.points:,} points to fill in"]
    report_done(options["json_"], [design.path], lines, result=design.to_json())
