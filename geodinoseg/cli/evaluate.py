"""The command `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.console import progress_bar, report_done
from geodinoseg.cli.options import (
    class_field_option,
    extent_option,
    ignore_class_option,
    json_option,
    overwrite_option,
    unlabelled_option,
)

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("class_raster", type=_FILE)
@click.option(
    "--labels",
    multiple=True,
    required=True,
    help="Polygons with a class column, or a label raster; or one file a class, NAME=FILE each.",
)
@click.option("-o", "--output", type=_FILE, help="Also write the measures as JSON.")
@class_field_option
@unlabelled_option
@extent_option
@ignore_class_option
@overwrite_option
@json_option
def evaluate(class_raster: Path, **options: Any) -> None:
    """Compare CLASS_RASTER with labels that were kept out of training.

    \b
    Example:
      geodinoseg evaluate landcover.tif --labels check.gpkg --class-field crop -o accuracy.json
    """  # noqa: D301 (click's own mark: keep these lines)
    from geodinoseg.evaluation import evaluate_map
    from geodinoseg.outputs import check_output, written_beside

    output: Path | None = options["output"]
    if output:
        check_output(output, overwrite=options["overwrite"], suffixes=(".json",))
    with progress_bar("comparing", json=options["json_"]) as progress:
        accuracy, legend = evaluate_map(
            class_raster,
            options["labels"],
            class_field=options["class_field"],
            unlabelled=options["unlabelled"],
            ignore_classes=options["ignore_class"],
            extent=options["extent"],
            progress=progress,
        )
    if output:
        facts = {"classes": legend.to_json(), **accuracy.to_json()}
        with written_beside(output) as beside:
            beside.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", "utf-8")
    lines = [accuracy.table(legend), *([str(output)] if output else [])]
    report_done(options["json_"], [output] if output else [], lines)
