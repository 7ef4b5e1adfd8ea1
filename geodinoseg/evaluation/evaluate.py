"""How right a map is: a class raster against polygons or a label raster, pixel by pixel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geodinoseg.errors import LabelError
from geodinoseg.evaluation.boundaries import DEFAULT_TOLERANCE_PX, Tolerance, reach_of
from geodinoseg.evaluation.channels import check_class_count
from geodinoseg.evaluation.compare import compare
from geodinoseg.evaluation.map_assessment import MapAssessment
from geodinoseg.evaluation.regions import read_regions
from geodinoseg.labels.open import LabelsPath, Unlabelled, open_labels
from geodinoseg.progress import Progress, no_progress
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster

FilePath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What is seldom asked for of an evaluation."""

    regions: FilePath | None = None
    """Vector file of regions that are measured each for itself."""
    region_field: str | None = None
    """Its column with their names; None finds region, name or id."""
    confidence: FilePath | None = None
    """Confidence raster; None takes the one that the class raster names, where there is one."""
    boundary_tolerance_px: float = DEFAULT_TOLERANCE_PX
    """How far from each other two borders may lie and still be one, pixels."""
    boundary_tolerance_m: float | None = None
    """The same in metres on the ground; where given it counts instead."""
    allow_external: bool = False
    """Whether map, labels, extent and regions may be of any kind that GDAL knows; see
    `open_scene`."""

    @property
    def tolerance(self) -> Tolerance:
        """The tolerance of boundaries in the unit in which it was given."""
        if self.boundary_tolerance_m is not None:
            return Tolerance(distance=self.boundary_tolerance_m, unit="m")
        return Tolerance(distance=self.boundary_tolerance_px, unit="px")


_DEFAULTS = EvaluationOptions()


def evaluate_map(
    class_raster: FilePath | ClassRaster,
    labels: LabelsPath | Sequence[LabelsPath],
    *,
    class_field: str | None = None,
    unlabelled: Unlabelled = "ignore",
    ignore_classes: tuple[str, ...] = (),
    extent: LabelsPath | None = None,
    options: EvaluationOptions = _DEFAULTS,
    progress: Progress = no_progress,
) -> MapAssessment:
    """Compare every labelled pixel of a map with its label.

    Pixels without a label, and nodata of the map, do not count. For scores that hold, the labels
    must not have been used in training, nor lie beside those that were.

    Args:
        class_raster: the map.
        labels: polygons or a label raster, or several `NAME=FILE`; classes are matched to the
            map's by name or id.
        class_field: as in `open_labels`, and so are the others.
        unlabelled: what pixels without a label are.
        ignore_classes: classes of the labels to leave out.
        extent: polygons within which labelling is complete.
        options: regions, confidence, tolerance of boundaries.
        progress: told the share of the map compared.

    Raises:
        SceneError: the map or its confidence cannot be read.
        LabelError: the labels or regions do not fit the map, or no labelled pixel lies on it.
    """
    raster = (
        class_raster
        if isinstance(class_raster, ClassRaster)
        else open_class_raster(class_raster, allow_external=options.allow_external)
    )
    check_class_count(raster)
    if options.confidence is not None:
        raster = replace(raster, confidence_path=Path(options.confidence))
    source = open_labels(
        labels,
        raster.geobox,
        class_field=class_field,
        unlabelled=unlabelled,
        ignore_classes=ignore_classes,
        legend=raster.legend,
        extent=extent,
        allow_external=options.allow_external,
    )
    regions = (
        ()
        if options.regions is None
        else read_regions(
            os.fspath(options.regions),
            raster.geobox,
            field=options.region_field,
            allow_external=options.allow_external,
        )
    )
    found = compare(
        raster,
        source,
        reach=reach_of(options.tolerance, raster.geobox),
        regions=regions,
        progress=progress,
    )
    if not found.whole.accuracy.pixels:
        raise LabelError(
            f"{source.path}: no labelled pixel lies where {raster.path} holds a class; give labels "
            f"of the same place."
        )
    return MapAssessment(
        path=raster.path,
        labels=source.path,
        legend=raster.legend,
        tolerance=options.tolerance,
        whole=found.whole,
        regions=found.regions,
        agreement=found.agreement,
        allow_external=raster.allow_external,
    )
