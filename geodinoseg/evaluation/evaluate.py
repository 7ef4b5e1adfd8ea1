"""Accuracy of a class raster against polygons or a label raster, pixel by pixel."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geodinoseg.errors import LabelError, SceneError
from geodinoseg.evaluation.accuracy import Accuracy, format_measure, format_table
from geodinoseg.evaluation.agreement import Agreement
from geodinoseg.evaluation.boundaries import (
    DEFAULT_TOLERANCE_PX,
    BoundaryAgreement,
    Tolerance,
    reach_of,
)
from geodinoseg.evaluation.calibration import Reliability
from geodinoseg.evaluation.compare import RegionEvaluation, check_class_count, compare
from geodinoseg.evaluation.regions import Region, read_regions
from geodinoseg.evaluation.training_labels import warn_of_training_labels
from geodinoseg.files.arguments import listed, options_of, path_text
from geodinoseg.files.atomic import PathLike
from geodinoseg.labels.open import open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.paths import (
    Areas,
    GivenLabels,
    areas_file,
    check_is_there,
    label_files,
    recorded_name,
)
from geodinoseg.legend import Legend
from geodinoseg.progress import Progress, log_step, no_progress
from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster, open_confidence
from geodinoseg.redaction import redact_path


@dataclass(frozen=True, slots=True, kw_only=True)
class MapEvaluation:
    """Accuracy of a map against labels. Made by `evaluate_map`."""

    raster: ClassRaster
    """The map."""
    labels: str
    """The labels it was compared with."""
    tolerance: Tolerance
    """Of the boundaries."""
    whole: RegionEvaluation
    """Of all labelled pixels."""
    regions: tuple[RegionEvaluation, ...]
    """Of the labelled pixels in each region."""
    agreement: Agreement
    """Where the map is correct, as a picture."""

    @property
    def path(self) -> Path | str:
        """The class raster; a string if it is a URL."""
        return self.raster.path

    @property
    def legend(self) -> Legend:
        """Names and order of the classes in all measures."""
        return self.raster.legend

    @property
    def accuracy(self) -> Accuracy:
        """Confusion matrix and measures of all labelled pixels."""
        return self.whole.accuracy

    @property
    def boundary(self) -> BoundaryAgreement:
        """Of the borders between classes, in all labelled pixels."""
        return self.whole.boundary

    @property
    def reliability(self) -> Reliability | None:
        """Of the map's confidence in all labelled pixels; None without a confidence raster."""
        return self.whole.reliability

    def table(self) -> str:
        """The measures as text for a terminal."""
        boundary = format_measure(self.boundary.mean_f_score)
        lines = [
            self.accuracy.table(self.legend, boundary_f_score=self.boundary.f_score),
            f"mean boundary F-score {boundary} within {self.tolerance}",
        ]
        if self.reliability is not None:
            lines.append(f"expected calibration error {format_measure(self.reliability.ece)}")
        if self.regions:
            lines += ["", format_table([_REGION_HEAD, *map(_region_line, self.regions)])]
        return "\n".join(lines)


_REGION_HEAD = ("region", "overall", "mean IoU", "boundary F", "pixels")


def _region_line(region: RegionEvaluation) -> tuple[str, ...]:
    accuracy = region.accuracy
    values = (accuracy.overall, accuracy.mean_iou, region.boundary.mean_f_score)
    return (region.name, *map(format_measure, values), f"{accuracy.pixels:,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """Further options of `evaluate_map`."""

    regions: Areas | None = None
    """Vector file, or GeoDataFrame, of regions that are also evaluated separately."""
    region_field: str | None = None
    """Column with the regions' names; None = region, name or id."""
    confidence: PathLike | None = None
    """Confidence raster; None = the one that the class raster names, if any."""
    boundary_tolerance_px: float = DEFAULT_TOLERANCE_PX
    """Distance within which two borders match, pixels."""
    boundary_tolerance_m: float | None = None
    """The same in metres on the ground; takes precedence where given."""

    @property
    def tolerance(self) -> Tolerance:
        """The boundary tolerance in the unit in which it was given."""
        if self.boundary_tolerance_m is not None:
            return Tolerance(distance=self.boundary_tolerance_m, unit="m")
        return Tolerance(distance=self.boundary_tolerance_px, unit="px")


_log = logging.getLogger(__name__)
_DEFAULTS = EvaluationOptions()


def evaluate_map(
    class_raster: PathLike | ClassRaster,
    labels: GivenLabels | Sequence[GivenLabels],
    *,
    label_options: LabelOptions | None = None,
    options: EvaluationOptions = _DEFAULTS,
    progress: Progress = no_progress,
) -> MapEvaluation:
    """Compare every labelled pixel of a map with its label.

    Pixels without a label and nodata of the map are not counted. For valid scores, the labels must
    not have been used in training, nor lie beside those that were.

    Args:
        class_raster: the map.
        labels: polygons or a label raster, or several `NAME=FILE`, as for `train_model`; classes
            are matched to the map's by name or id.
        label_options: how labels and regions are read; a legend file in them does not count.
        options: regions, confidence, tolerance of boundaries.
        progress: called with the fraction of the map compared.

    Raises:
        SceneError: the map or its confidence cannot be read.
        LabelError: the labels or regions do not fit the map, or no labelled pixel lies on it.

    Example:
        >>> import geodinoseg as gds
        >>> found = gds.evaluate_map("landcover.tif", "check.gpkg")
        >>> 0 <= found.whole.accuracy.mean_iou <= 1
        True
    """
    label_options = options_of(label_options, LabelOptions, "label_options")
    if label_options.extent is not None and label_options.unlabelled == "background":
        _log.warning("--unlabelled background has no effect: --extent says where it is background.")
    _check_areas(label_options, options)
    raster = _open_map(class_raster, options)
    files = label_files(listed(labels))
    source = open_labels(files, raster.geobox, options=label_options, legend=raster.legend)
    warn_of_training_labels(raster, source.path, ", ".join(map(recorded_name, files)))
    log_step(_log, "comparing %s with %s.", redact_path(raster.path), source.path)
    found = compare(
        raster,
        source,
        regions=_open_regions(raster, options, trusted=label_options.allow_external),
        reach=reach_of(options.tolerance, raster.geobox),
        progress=progress,
    )
    if not found.whole.accuracy.pixels:
        raise LabelError(
            f"{source.path}: no labelled pixel lies where {raster.path} holds a class; give labels "
            f"of the same area."
        )
    return MapEvaluation(
        raster=raster,
        labels=source.path,
        tolerance=options.tolerance,
        whole=found.whole,
        regions=found.regions,
        agreement=found.agreement,
    )


def _check_areas(label_options: LabelOptions, options: EvaluationOptions) -> None:
    """Refuse a missing extent or file of regions before the labels are read."""
    for path in (label_options.extent, options.regions):
        if isinstance(path, str | os.PathLike):
            check_is_there(os.fspath(path))


def _open_map(class_raster: PathLike | ClassRaster, options: EvaluationOptions) -> ClassRaster:
    raster = (
        class_raster if isinstance(class_raster, ClassRaster) else open_class_raster(class_raster)
    )
    check_class_count(raster)
    if options.confidence is None:
        return raster
    confidence = path_text(options.confidence, "confidence", error=SceneError)
    raster = replace(raster, confidence_path=Path(confidence))
    with open_confidence(raster):  # fails if it cannot be used, since it was requested
        return raster


def _open_regions(
    raster: ClassRaster, options: EvaluationOptions, *, trusted: bool
) -> tuple[Region, ...]:
    if options.regions is None:
        return ()
    return read_regions(
        areas_file(options.regions, "regions"),
        raster.geobox,
        field=options.region_field,
        allow_external=trusted,
    )
