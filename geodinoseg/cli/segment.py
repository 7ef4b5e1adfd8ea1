"""The command `segment`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.bar import progress_bar
from geodinoseg.cli.command import Command
from geodinoseg.cli.events import report_done
from geodinoseg.cli.options import (
    COUNT,
    Length,
    MemorySize,
    Number,
    allow_external_option,
    bands_option,
    device_option,
    fill_holes_option,
    json_option,
    min_area_option,
    nodata_option,
    overwrite_option,
    simplify_option,
)
from geodinoseg.cli.reports import report_plan
from geodinoseg.cli.segment_many import (
    OUTPUT_DIR_OPTIONS,
    check_single_scene,
    many_scenes_options,
    segment_many,
)

_FILE = click.Path(path_type=Path)


@click.command(
    cls=Command,
    needs={
        **dict.fromkeys(OUTPUT_DIR_OPTIONS, ("output_dir",)),
        **dict.fromkeys(("min_area", "fill_holes", "simplify"), ("polygons",)),
    },
    conflicts=[("workers", "scheduler"), ("output", "output_dir")],
)
@click.argument("scenes", metavar="SCENE...", nargs=-1)
@click.option(
    "--model", required=True, type=_FILE, help="Model folder written by geodinoseg train."
)
@click.option("-o", "--output", type=_FILE, help="Class raster to write (.tif).")
@click.option(
    "--polygons",
    type=_FILE,
    multiple=True,
    help="Also write polygons: .gpkg, .shp, .fgb, .geojson or .parquet; may be repeated.",
)
@min_area_option
@fill_holes_option
@simplify_option
@click.option(
    "--confidence",
    type=_FILE,
    help="Also write a confidence raster: the probability of the predicted class, in percent.",
)
@click.option(
    "--probabilities",
    type=_FILE,
    help="Also write the probability of each class, one band per class.",
)
@bands_option("those of the model")
@nodata_option
@click.option(
    "--tile",
    type=Number(click.IntRange(min=1), "px"),
    help="Side of a tile, in pixels of the scene. [default: the model's]",
)
@click.option(
    "--overlap",
    type=Number(click.IntRange(min=0), "px"),
    help="Overlap of adjacent tiles, in pixels. [default: a quarter of a tile]",
)
@click.option("--batch-size", type=COUNT, help="Tiles per batch. [default: 4; up to 16 on a GPU]")
@click.option(
    "--max-memory",
    type=MemorySize(),
    default="1GiB",
    show_default=True,
    help="Memory to read, blend and write in, such as 2GB, in addition to the network and the "
    "libraries.",
)
@click.option(
    "--resolution",
    type=Length(),
    help="Ground resolution of the scene, in metres per pixel. [default: from its CRS]",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Precision of the network; auto is float32 on a CPU.",
)
@device_option
@allow_external_option
@click.option("--dry-run", is_flag=True, help="Print the plan and the estimated time, and stop.")
@overwrite_option
@click.option(
    "--no-resume",
    is_flag=True,
    help="Start over instead of reusing the finished parts of an interrupted run.",
)
@click.option(
    "--parts",
    metavar="FOLDER|ADDRESS",
    help="Folder, or address such as s3://bucket/runs, for finished parts until the map is "
    "complete. [default: beside the output]",
)
@click.option(
    "--workers",
    type=COUNT,
    help="Compute in N processes on this machine; with several GPUs, each uses one.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Compute with the workers of a Dask scheduler, such as tcp://node1:8786.",
)
@many_scenes_options
@json_option
def segment(scenes: tuple[str, ...], **options: Any) -> None:
    """Segment SCENE with a model into a class raster on the grid of the scene.

    \b
    Examples:
      geodinoseg segment ortho.tif --model quarry.model -o landcover.tif
      geodinoseg segment ortho.tif --model quarry.model -o landcover.tif --dry-run
      geodinoseg segment ortho.tif --model quarry.model -o landcover.tif --max-memory 2GB
      geodinoseg segment ortho.tif --model quarry.model -o landcover.tif \\
          --confidence confidence.tif --polygons landcover.gpkg
      geodinoseg segment ortho.tif --model quarry.model -o landcover.tif --workers 4
      geodinoseg segment 'flights/*.tif' --model quarry.model --output-dir maps --polygons .gpkg

    --min-area, --fill-holes and --simplify have the same effect as in polygonize.

    Run the same command again to resume an interrupted run: finished parts are kept beside the
    output, in <output>.parts, until the map is complete.

    With --output-dir, SCENE is one or more files, folders, quoted patterns, @lists of them or STAC
    items. Each scene gets its own map, and the names of outputs are templates, in which {stem} is
    the name of the scene. A journal in the folder records finished scenes: run the same command
    again to process the rest.
    """  # noqa: D301 (click's own mark: keep these lines)
    if options["output_dir"]:
        segment_many(
            scenes,
            options,
            settings=_settings,
            polygon_settings=_polygon_settings,
            workers=_workers,
        )
        return
    check_single_scene(scenes, options)
    _segment_one(scenes[0], options)


def _segment_one(scene: str, options: dict[str, Any]) -> None:
    import geodinoseg as gds
    from geodinoseg.cli.info import area_lines, describe

    source = gds.open_scene(scene, allow_external=options["allow_external"])
    arguments = {
        "confidence": options["confidence"] or False,
        "probabilities": options["probabilities"] or False,
        "polygons": options["polygons"],
        "polygon_settings": _polygon_settings(options),
        "settings": _settings(options),
        "device": options["device"],
        "overwrite": options["overwrite"],
        "parts": options["parts"],
    }
    if options["dry_run"]:
        plan = gds.plan_segmentation(source, options["model"], options["output"], **arguments)
        report_plan(plan, json_=options["json_"])
        return
    with progress_bar("segmenting", json=options["json_"]) as progress:
        raster = gds.segment_scene(
            source,
            options["model"],
            options["output"],
            **arguments,
            resume=not options["no_resume"],
            workers=_workers(options),
            progress=progress,
        )
    outputs = [options["output"], options["confidence"], options["probabilities"]]
    outputs = [*filter(None, outputs), *options["polygons"]]
    facts = describe(raster.path)
    details = [*area_lines(facts), f"tiles {raster.seams}"]
    lines = _summary(raster, outputs, details)
    report_done(options["json_"], outputs, lines, result=facts)


def _workers(options: dict[str, Any]) -> AbstractContextManager[Any] | None:
    """The workers requested, which start after all checks; None for this process."""
    if options["workers"]:
        from geodinoseg.cluster.local import local_workers

        return local_workers(options["workers"], device=options["device"])
    if options["scheduler"]:
        from geodinoseg.cluster.client import connect_workers

        return connect_workers(options["scheduler"])
    return None


def _polygon_settings(options: dict[str, Any]) -> Any:
    import geodinoseg as gds

    unit, tolerance = options["simplify"]
    return gds.PolygonSettings(
        min_area_m2=options["min_area"],
        fill_holes_m2=options["fill_holes"],
        simplify_px=tolerance if unit == "px" else 0.0,
        simplify_m=(tolerance or None) if unit == "m" else None,
    )


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


def _summary(raster: Any, outputs: list[Path], details: list[str]) -> list[str]:
    first = (
        f"{raster.path}: {raster.width} x {raster.height} px, {len(raster.legend)} classes "
        f"({', '.join(raster.legend.names)})"
    )
    others = [str(path) for path in outputs[1:]]
    return [first, *others, *details, "Drag the files into QGIS to view them."]
