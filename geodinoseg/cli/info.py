"""The command `info`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.bar import progress_bar
from geodinoseg.cli.command import Command
from geodinoseg.cli.events import report_done
from geodinoseg.cli.options import allow_external_option, json_option
from geodinoseg.cli.process import echo
from geodinoseg.cli.reports import report_facts
from geodinoseg.errors import SceneError
from geodinoseg.geobox import GeoBox
from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.band_units import BandUnits
from geodinoseg.model.config import read_model_config
from geodinoseg.model.parameters import NO_BACKBONE, head_name
from geodinoseg.progress import Progress, log_step, no_progress
from geodinoseg.rasters.class_raster import ClassRaster, describe_class_raster
from geodinoseg.rasters.legend_sources import listed
from geodinoseg.rasters.raster_kind import RasterKind, kind_of
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.rasters.seams import Seams
from geodinoseg.rasters.source import RasterSource
from geodinoseg.redaction import redact_path

_log = logging.getLogger(__name__)
_MEASURES = ("precision", "recall", "f1", "iou")


@click.command(cls=Command)
@click.argument("path", metavar="SCENE|MODEL|CLASS_RASTER")
@allow_external_option
@json_option
def info(path: str, *, allow_external: bool, json_: bool) -> None:
    """Describe a scene, a model folder or a class raster.

    Sizes are in pixels, resolutions in metres per pixel on the ground.

    \b
    Examples:
      geodinoseg info ortho.tif
      geodinoseg info farmland.model
      geodinoseg info landcover.tif --json
    """  # noqa: D301 (click's own mark: keep these lines)
    log_step(_log, "reading %s.", redact_path(path))
    with nullcontext(no_progress) if json_ else progress_bar("counting") as progress:
        facts = describe(
            Path(path) if Path(path).is_dir() else path,
            allow_external=allow_external,
            progress=progress,
        )
    if json_:
        report_done(json_, [], [], result=facts)
        return
    report_facts(_shown(facts))
    for line in area_lines(facts):
        echo(line)
    if facts.get("scores"):
        for line in _score_lines(facts["scores"], [entry["name"] for entry in facts["classes"]]):
            echo(line)
    if facts.get("training"):
        echo("training")
        report_facts(facts["training"], indent=2)


def _score_lines(scores: dict[str, Any], classes: Sequence[str], name: str = "") -> Iterator[str]:
    """Scores of a model as tables, one line per class, followed by nested scores."""
    if "iou" in scores:
        width = max(map(len, [*classes, "class"]))
        yield f"scores{scores.get('on', name) and ' on '}{scores.get('on', name)}"
        yield f"  {'class':{width}}  {'  '.join(f'{measure:>9}' for measure in _MEASURES)}"
        for index, entry in enumerate(classes):
            cells = (_score(scores[measure][index]) for measure in _MEASURES)
            yield f"  {entry:{width}}  {'  '.join(cells)}"
        yield (
            f"  mean IoU {scores['mean_iou']:.3f}, overall accuracy "
            f"{scores['overall_accuracy']:.3f}, {scores['pixels']:,} px"
        )
    for part, found in scores.items():
        if isinstance(found, dict):
            yield from _score_lines(found, classes, ", ".join(filter(None, (name, part))))


def _score(value: float | None) -> str:
    return f"{'none' if value is None else f'{value:.3f}':>9}"


def area_lines(facts: Mapping[str, Any]) -> list[str]:
    """The areas of the classes of a class raster as a table, by its facts; empty if unknown."""
    if not facts.get("areas"):
        return []
    from geodinoseg.evaluation.class_areas import ClassArea, areas_table

    table = areas_table([ClassArea(**area) for area in facts["areas"]])
    return ["areas", *(f"  {line}" for line in table.splitlines())]


def describe(
    path: str | Path, *, allow_external: bool = False, progress: Progress = no_progress
) -> dict[str, Any]:
    """Facts about a scene, a class raster or a model folder, as JSON values by name."""
    if Path(path).is_dir():
        return _describe_model(Path(path))
    source = RasterSource.of(path, trusted=allow_external)
    found = kind_of(source)
    if found.kind == "class raster":
        raster = describe_class_raster(source)
        return _describe_class_raster(raster) | {"areas": _areas(raster, progress)}
    return _describe_scene(open_scene(path, allow_external=allow_external), found)


def _areas(raster: ClassRaster, progress: Progress) -> list[dict[str, Any]] | None:
    """The area of each class; None if the raster is on a server, or cannot be read in full."""
    if raster.source.is_remote:
        return None
    from geodinoseg.evaluation.class_areas import measure_areas

    try:
        return [dataclasses.asdict(area) for area in measure_areas(raster, progress=progress)]
    except SceneError as error:
        _log.warning("%s Areas are unknown.", error)
        return None


def _describe_scene(scene: Scene, found: RasterKind) -> dict[str, Any]:
    return {
        "kind": "scene",
        "possible_class_ids": list(found.values) if found.kind == "either" else None,
        "path": redact_path(scene.path),
        **_place(scene.geobox),
        "bands": list(scene.bands),
        "band_names": _band_names(scene),
        "dtype": str(scene.dtype),
        "nodata": list(scene.nodata),
        **_units(BandUnits.of(scene.scales, scene.offsets)),
        "validity": list(scene.validity),
        "block_px": list(scene.block_shape),
    }


def _describe_class_raster(raster: ClassRaster) -> dict[str, Any]:
    return {
        "kind": "class_raster",
        "path": redact_path(raster.path),
        **_place(raster.geobox),
        "dtype": str(raster.dtype),
        "nodata": raster.nodata,
        "classes": raster.legend.to_json(),
        "has_names": raster.is_named,
        "confidence": str(raster.confidence_path) if raster.confidence_path else None,
        "model": raster.tags.get("GEODINOSEG_MODEL"),
        "scene": raster.tags.get("GEODINOSEG_SCENE"),
        "seams": None if raster.seams is None else raster.seams.to_json(),
    }


def _describe_model(folder: Path) -> dict[str, Any]:
    config = read_model_config(folder)
    return {
        "kind": "model",
        "path": str(folder),
        "classes": config["legend"],
        "bands": config["bands"],
        "band_names": config.get("band_names") or None,
        "dtype": config["statistics"]["dtype"],
        **_units(BandStatistics.from_json(config["statistics"]).units),
        "tile_px": config["tile_px"],
        "pixel_size_m": config["pixel_size_m"],
        "head": head_name(config["network"]),
        "backbone": config["backbone"],
        "scores": config["scores"],
        "training": config["training"],
    }


def _band_names(scene: Scene) -> list[str] | None:
    names = [scene.names[band - 1] for band in scene.bands]
    return names if any(names) else None


def _shown_names(facts: dict[str, Any]) -> dict[str, Any]:
    names = facts["band_names"]
    return {} if names is None else {"described as": [name or "none" for name in names]}


def _units(units: BandUnits | None) -> dict[str, Any]:
    """Scale and offset of the bands; None if they have none."""
    if units is None or not units.has_tags:
        return {"scales": None, "offsets": None}
    return {"scales": list(units.scales), "offsets": list(units.offsets)}


def _shown_units(facts: dict[str, Any]) -> dict[str, Any]:
    return {} if facts["scales"] is None else {"scale": facts["scales"], "offset": facts["offsets"]}


def _place(geobox: GeoBox) -> dict[str, Any]:
    return {
        "width_px": geobox.width,
        "height_px": geobox.height,
        "crs": geobox.crs.to_string() if geobox.crs else None,
        "transform": list(geobox.transform)[:6],
        "pixel_size_m": geobox.pixel_size_m,
    }


def _shown(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts under the names shown as text."""
    show = {"scene": _shown_scene, "class_raster": _shown_class_raster, "model": _shown_model}
    return show[facts["kind"]](facts)


def _shown_scene(facts: dict[str, Any]) -> dict[str, Any]:
    ids = facts["possible_class_ids"]
    classes = {
        "could also be": f"a class raster without names: its band holds few integers "
        f"({listed(ids or ())}); commands that take a class raster accept it"
    }
    return {
        "kind": "scene",
        **(classes if ids else {}),
        "path": facts["path"],
        **_shown_place(facts),
        "bands": facts["bands"],
        **_shown_names(facts),
        "dtype": facts["dtype"],
        "nodata": facts["nodata"],
        **_shown_units(facts),
        "missing pixels are marked by": facts["validity"] or "nothing, all pixels are valid",
        "block rows x columns": facts["block_px"],
    }


def _shown_class_raster(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "class raster",
        "path": facts["path"],
        **_shown_place(facts),
        "dtype": facts["dtype"],
        "nodata": facts["nodata"],
        "classes": _shown_classes(facts),
        **({} if facts["has_names"] else {"names": "none found; give them with --legend"}),
        "confidence": facts["confidence"],
        "made with": facts["model"],
        "made from": facts["scene"],
        **_shown_seams(facts["seams"]),
    }


def _shown_seams(seams: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if seams is None else {"tiles": str(Seams.of_json(seams))}


def _shown_model(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "model",
        "path": facts["path"],
        "classes": _shown_classes(facts),
        "bands": facts["bands"],
        **_shown_names(facts),
        "dtype": facts["dtype"],
        **_shown_units(facts),
        "tile, px": facts["tile_px"],
        "ground resolution, m": facts["pixel_size_m"],
        "head": facts["head"],
        "backbone": _shown_backbone(facts["backbone"]),
    }


def _shown_backbone(reference: Mapping[str, Any] | None) -> Mapping[str, Any] | str:
    if reference is None:
        return "in the model folder"
    return NO_BACKBONE if reference["name"] == NO_BACKBONE else reference


def _shown_place(facts: dict[str, Any]) -> dict[str, Any]:
    size = facts["pixel_size_m"]
    return {
        "columns x rows": [facts["width_px"], facts["height_px"]],
        "crs": facts["crs"] or "none",
        "transform": facts["transform"],
        "ground resolution, m": round(size, 4) if size else "unknown",
    }


def _shown_classes(facts: dict[str, Any]) -> dict[str, str]:
    return {str(c["class_id"]): f"{c['name']} ({c['color']})" for c in facts["classes"]}
