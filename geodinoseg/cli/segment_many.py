"""The command `segment` over many scenes: `--output-dir` in place of `-o`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import click

from geodinoseg.cli.bar import progress_bar
from geodinoseg.cli.reports import (
    report_failed_plan,
    report_plan_of_many,
    report_scene,
    report_summary,
    report_totals,
)
from geodinoseg.errors import GeodinosegError

OUTPUT_DIR_OPTIONS = ("name_template", "scene_list", "asset")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def many_scenes_options(command: _Command) -> _Command:
    """Add `--output-dir` and the options that require it."""
    options = (
        click.option(
            "--output-dir",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder for the maps of many scenes and for their journal.",
        ),
        click.option(
            "--name-template",
            metavar="NAME",
            help="Template of the names of maps, with {stem} and {parent} of the scene. "
            "[default: {stem}.tif]",
        ),
        click.option(
            "--scene-list",
            type=click.Path(path_type=Path),
            help="Text file that lists scenes, one per line.",
        ),
        click.option("--asset", metavar="NAME", help="Name of the asset to use of STAC items."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_single_scene(scenes: Sequence[str], options: dict[str, Any]) -> None:
    """Refuse arguments that are invalid without `--output-dir`."""
    if not options["output"]:
        raise click.UsageError(
            "Missing option '-o' / '--output', or '--output-dir' for many scenes."
        )
    if not scenes:
        raise click.UsageError("Missing argument 'SCENE'.")
    if len(scenes) > 1:
        raise click.UsageError(f"-o takes one scene, not {len(scenes)}: give --output-dir.")


def segment_many(
    scenes: Sequence[str],
    options: dict[str, Any],
    *,
    settings: Callable[[dict[str, Any]], Any],
    polygon_settings: Callable[[dict[str, Any]], Any],
    workers: Callable[[dict[str, Any]], AbstractContextManager[Any] | None],
) -> None:
    """Run the command for many scenes.

    Args:
        scenes: the arguments of the command.
        options: the options of the command.
        settings: makes `SegmentationSettings` from the options.
        polygon_settings: makes `PolygonSettings` from the options.
        workers: makes the workers from the options.
    """
    import geodinoseg as gds

    listed = gds.find_scenes(scenes, list_file=options["scene_list"], asset=options["asset"])
    arguments = {
        "names": _names(options),
        "polygon_settings": polygon_settings(options),
        "settings": settings(options),
        "device": options["device"],
        "allow_external": options["allow_external"],
    }
    model, folder, json_ = options["model"], options["output_dir"], options["json_"]
    if options["dry_run"]:
        from geodinoseg.batch.segment_scenes import plan_scenes

        _report_plans(plan_scenes(listed, model, folder, **arguments), json_=json_)
        return
    with progress_bar("segmenting", json=json_) as progress:
        results = gds.segment_scenes(
            listed,
            model,
            folder,
            **arguments,
            overwrite=options["overwrite"],
            resume=not options["no_resume"],
            parts=options["parts"],
            workers=workers(options),
            tell=lambda result: report_scene(result, json_=json_),
            progress=progress,
        )
    report_summary(results, json_=json_)


def _names(options: dict[str, Any]) -> Any:
    import geodinoseg as gds

    return gds.OutputNames(
        class_raster=_template(options["name_template"] or "{stem}.tif"),
        confidence=_template(options["confidence"]),
        probabilities=_template(options["probabilities"]),
        polygons=tuple(_template(path) for path in options["polygons"]),
    )


def _template(name: Path | str | None) -> Any:
    """The name as text; `OutputNames` completes short ones."""
    return None if name is None else str(name)


def _report_plans(plans: Iterator[tuple[Any, Any]], *, json_: bool) -> None:
    seconds, output_bytes, planned, failed = 0.0, 0, 0, []
    for scene, plan in plans:
        if isinstance(plan, GeodinosegError):
            report_failed_plan(scene.public_name, plan, json_=json_)
            failed.append(scene.public_name)
            continue
        report_plan_of_many(plan, json_=json_)
        planned += 1
        seconds, output_bytes = seconds + plan.seconds, output_bytes + plan.output_bytes
    report_totals(planned, seconds, output_bytes, failed=failed, json_=json_)
