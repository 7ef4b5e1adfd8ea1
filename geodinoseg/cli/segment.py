"""The command `segment`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.console import progress_bar, report_done, report_plan
from geodinoseg.cli.options import (
    Length,
    MemorySize,
    allow_external_option,
    bands_option,
    device_option,
    json_option,
    nodata_option,
    overwrite_option,
)
from geodinoseg.cli.segment_many import check_only_one, many_scenes_options, segment_many

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("scenes", metavar="SCENE...", nargs=-1)
@click.option("--model", required=True, type=_FILE, help="Model folder, as `train` writes it.")
@click.option("-o", "--output", type=_FILE, help="Class raster to write, .tif.")
@click.option(
    "--polygons",
    type=_FILE,
    multiple=True,
    help="Also write polygons: .gpkg, .shp, .fgb, .geojson or .parquet; may be repeated.",
)
@click.option(
    "--confidence", type=_FILE, help="Also write the probability of the predicted class, percent."
)
@click.option("--probabilities", type=_FILE, help="Also write one band of probability a class.")
@bands_option
@nodata_option
@click.option("--tile", type=click.IntRange(min=1), help="Side of a tile, px. [default: model's]")
@click.option(
    "--overlap", type=click.IntRange(min=0), help="Overlap of tiles, px. [default: a quarter]"
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Tiles at once. [default: 4; 16 on a GPU]"
)
@click.option(
    "--max-memory",
    type=MemorySize(),
    default="1GiB",
    show_default=True,
    help="Memory to read, blend and write in, beside the network and the libraries.",
)
@click.option(
    "--resolution",
    type=Length(),
    help="Ground resolution of the scene, m per px. [default: what its CRS says]",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="In which the network computes; auto is float32 on a CPU.",
)
@device_option
@allow_external_option
@click.option(
    "--dry-run", is_flag=True, help="Print what would be done and how long it would take, and stop."
)
@overwrite_option
@click.option(
    "--no-resume",
    is_flag=True,
    help="Start over, where an interrupted run left finished parts beside the output.",
)
@click.option(
    "--parts",
    metavar="PLACE",
    help="Folder, or address such as s3://bucket/runs, for the parts of a run until its map is "
    "whole. [default: beside the output]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes of this machine to compute with, one a GPU where there are several.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="A Dask scheduler whose workers compute, such as tcp://node1:8786.",
)
@many_scenes_options
@json_option
def segment(scenes: tuple[str, ...], **options: Any) -> None:
    """Segment SCENE with a model into a class raster on the scene's own grid.

    \b
    Examples:
      geodinoseg segment ortho.tif --model quarry.model -o landcover.tif
      geodinoseg segment ortho.tif --model quarry.model -o landcover.tif --dry-run
      geodinoseg segment ortho.tif --model quarry.model -o landcover.tif --max-memory 2GB
      geodinoseg segment ortho.tif --model quarry.model -o landcover.tif \\
          --confidence confidence.tif --polygons landcover.gpkg
      geodinoseg segment ortho.tif --model quarry.model -o landcover.tif --workers 4
      geodinoseg segment 'flights/*.tif' --model quarry.model --output-dir maps --polygons .gpkg

    Run the same command again to resume an interrupted run: finished parts lie beside the output,
    in <output>.parts, until the map is whole.

    With --output-dir, SCENE is one or more files, folders, quoted patterns, @lists of them or STAC
    items; each gets a map of its own, and the names of outputs are templates: {stem} stands for the
    scene's name. A journal in the folder lists what is done: the same command again does the rest.
    """  # noqa: D301 (click's own mark: keep these lines)
    if options["workers"] and options["scheduler"]:
        raise click.UsageError("--workers and --scheduler: give one of them.")
    if options["output_dir"]:
        segment_many(scenes, options, settings=_settings, workers=_workers)
        return
    check_only_one(scenes, options)
    _segment_one(scenes[0], options)


def _segment_one(scene: str, options: dict[str, Any]) -> None:
    import geodinoseg as gds

    source = gds.open_scene(scene, allow_external=options["allow_external"])
    asked = {
        "confidence": options["confidence"] or False,
        "probabilities": options["probabilities"] or False,
        "polygons": options["polygons"],
        "settings": _settings(options),
        "device": options["device"],
        "overwrite": options["overwrite"],
        "parts": options["parts"],
    }
    if options["dry_run"]:
        plan = gds.plan_segmentation(source, options["model"], options["output"], **asked)
        report_plan(plan, json_=options["json_"])
        return
    with progress_bar("segmenting", json=options["json_"]) as progress:
        raster = gds.segment_scene(
            source,
            options["model"],
            options["output"],
            **asked,
            resume=not options["no_resume"],
            workers=_workers(options),
            progress=progress,
        )
    outputs = [options["output"], options["confidence"], options["probabilities"]]
    outputs = [*filter(None, outputs), *options["polygons"]]
    report_done(options["json_"], outputs, _lines(raster, outputs))


def _workers(options: dict[str, Any]) -> AbstractContextManager[Any] | None:
    """Who computes; this process where nothing is given. They start after all checks."""
    if options["workers"]:
        from geodinoseg.cluster.local import local_workers

        return local_workers(options["workers"], device=options["device"])
    if options["scheduler"]:
        from geodinoseg.cluster.client import connect_workers

        return connect_workers(options["scheduler"])
    return None


def _settings(options: dict[str, Any]) -> Any:
    import geodinoseg as gds

    return gds.SegmentationSettings(
        tile_px=options["tile"],
        overlap_px=options["overlap"],
        batch_size=options["batch_size"],
        bands=options["bands"],
        nodata=options["nodata"],
        precision=options["precision"],
        resolution_m=options["resolution"],
        max_memory=options["max_memory"],
    )


def _lines(raster: Any, outputs: list[Path]) -> list[str]:
    first = (
        f"{raster.path}: {raster.width} x {raster.height} px, {len(raster.legend)} classes "
        f"({', '.join(raster.legend.names)})"
    )
    return [first, *(str(path) for path in outputs[1:]), "Open them in QGIS: drag them there."]
