"""The command `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.bar import progress_bar
from geodinoseg.cli.command import Command
from geodinoseg.cli.events import report_done
from geodinoseg.cli.options import (
    Distance,
    all_touched_option,
    allow_external_option,
    class_field_option,
    class_raster_argument,
    extent_option,
    ignore_class_option,
    json_option,
    map_legend_option,
    overwrite_option,
    unlabelled_option,
)
from geodinoseg.evaluation.evaluate import MapEvaluation
from geodinoseg.rasters.class_raster import ClassRaster

_FILE = click.Path(path_type=Path)
_OF_LABELS = (
    *("class_field", "unlabelled", "extent", "ignore_class", "renames", "all_touched"),
    *("regions", "confidence", "boundary_tolerance"),
)


class _Rename(click.ParamType[tuple[str, str]]):
    """A class of the labels, and the class of the map that it is mapped to."""

    name = "label=class"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """The two names."""
        if isinstance(value, tuple):
            return value
        name, _, target = (part.strip() for part in str(value).partition("="))
        if not name or not target:
            self.fail(f"{value!r} is not a pair of classes such as ground=grass", param, ctx)
        return name, target


@click.command(
    cls=Command,
    needs={
        "overwrite": ("outputs",),
        "region_field": ("regions",),
        "further_class": ("sample",),
        **dict.fromkeys(_OF_LABELS, ("labels",)),
    },
)
@class_raster_argument
@click.option(
    "--labels",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Polygons with a class column, or a label raster; or one file per class as NAME=FILE, "
    "repeated.",
)
@click.option(
    "--sample",
    type=_FILE,
    help="Points drawn by geodinoseg sample, with the column reference filled in.",
)
@click.option(
    "-o",
    "--output",
    "outputs",
    type=_FILE,
    multiple=True,
    help="Report to write: .html (with figures), .json or .csv; may be repeated.",
)
@class_field_option
@unlabelled_option
@extent_option
@ignore_class_option
@click.option(
    "--rename",
    "renames",
    type=_Rename(),
    multiple=True,
    help="Map a class of the labels to a class of CLASS_RASTER, such as ground=grass; may be "
    "repeated.",
)
@all_touched_option
@click.option("--regions", type=_FILE, help="Polygons, each of which is also assessed separately.")
@click.option(
    "--region-field",
    metavar="COLUMN",
    help="Column with the names of the regions. [default: region, name or id]",
)
@click.option(
    "--confidence",
    type=_FILE,
    help="Confidence raster, in percent. [default: the one named in CLASS_RASTER]",
)
@click.option(
    "--boundary-tolerance",
    type=Distance(),
    default="3",
    show_default=True,
    help="Tolerance for the position of class borders, in pixels (3) or metres (1.5m).",
)
@click.option(
    "--further-class",
    metavar="NAME",
    multiple=True,
    help="Class that occurs in the reference of the sample but not in the map; may be repeated.",
)
@map_legend_option
@allow_external_option
@overwrite_option
@json_option
def evaluate(class_raster: str, **options: Any) -> None:
    """Assess the accuracy of CLASS_RASTER with labels, a sample of points, or both.

    The labels must not have been used for training. A sample also gives the area of each class
    with its 95% confidence interval.

    \b
    Examples:
      geodinoseg evaluate landcover.tif --labels check.gpkg --class-field crop -o report.html
      geodinoseg evaluate landcover.tif --sample points.gpkg -o report.html -o areas.csv
    """  # noqa: D301 (click's own mark: keep these lines)
    from geodinoseg.evaluation.report.write import check_reports, report_facts, write_report
    from geodinoseg.evaluation.sampling.evaluate import evaluate_sample
    from geodinoseg.rasters.class_raster import open_class_raster

    labels, sample, outputs = options["labels"], options["sample"], options["outputs"]
    if not labels and sample is None:
        raise click.UsageError("Give --labels, --sample, or both.")
    inputs = [class_raster, *labels, *filter(None, (sample, options["regions"]))]
    check_reports(outputs, overwrite=options["overwrite"], inputs=inputs)
    further = options["further_class"]
    raster = open_class_raster(
        class_raster,
        allow_external=options["allow_external"],
        legend_file=options["legend_file"],
    )
    by_sample = evaluate_sample(raster, sample, further_classes=further) if sample else None
    by_labels = _by_labels(raster, options) if labels else None
    for output in outputs:
        write_report(output, by_labels, by_sample, overwrite=options["overwrite"])
    found = [evaluation.table() for evaluation in (by_labels, by_sample) if evaluation]
    report_done(
        options["json_"],
        outputs,
        [*"\n\n".join(found).split("\n"), *map(str, outputs)],
        result=report_facts(by_labels, by_sample),
    )


def _by_labels(class_raster: ClassRaster, options: dict[str, Any]) -> MapEvaluation:
    from geodinoseg.evaluation.evaluate import EvaluationOptions, evaluate_map
    from geodinoseg.labels.options import LabelOptions

    unit, tolerance = options["boundary_tolerance"]
    in_unit = {f"boundary_tolerance_{unit}": tolerance}
    with progress_bar("comparing", json=options["json_"]) as progress:
        return evaluate_map(
            class_raster,
            options["labels"],
            label_options=LabelOptions(
                class_field=options["class_field"],
                unlabelled=options["unlabelled"],
                ignore_classes=options["ignore_class"],
                extent=options["extent"],
                all_touched=options["all_touched"],
                renames=options["renames"],
                allow_external=options["allow_external"],
            ),
            options=EvaluationOptions(
                regions=options["regions"],
                region_field=options["region_field"],
                confidence=options["confidence"],
                **in_unit,
            ),
            progress=progress,
        )
