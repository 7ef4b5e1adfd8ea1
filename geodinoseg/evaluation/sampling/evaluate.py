"""Accuracy and areas from a sample that was filled in."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import LabelError
from geodinoseg.evaluation.accuracy import format_measure, format_table
from geodinoseg.evaluation.sampling.areas import AreaEstimates, Estimate, estimate_areas
from geodinoseg.evaluation.sampling.draw import FEWEST_PER_CLASS
from geodinoseg.evaluation.sampling.points import PointSample, Stratum, read_points
from geodinoseg.evaluation.sampling.strata import hectares, open_with_areas, read_pixels
from geodinoseg.files.arguments import path_text
from geodinoseg.files.atomic import PathLike
from geodinoseg.labels.pixel_space import PixelSpace
from geodinoseg.legend import Legend, LegendClass
from geodinoseg.legend.colors import default_colors
from geodinoseg.progress import log_step
from geodinoseg.rasters.class_raster import ClassRaster

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SampleEvaluation:
    """Estimates from a sample that was filled in. Made by `evaluate_sample`."""

    raster: ClassRaster
    """The map."""
    points_path: str
    """The file of points."""
    classes: tuple[LegendClass, ...]
    """Columns of the error matrix; the first ones are those on the map, its strata."""
    estimates: AreaEstimates
    """The error matrix and the estimates from it."""
    drawn: NDArray[np.int64]
    """(strata,) points that were drawn."""
    pixels: NDArray[np.int64]
    """(answered, 2) row and column of each answered point on the map."""
    right: NDArray[np.bool_]
    """(answered,) True = the map has the reference class there."""

    @property
    def path(self) -> Path | str:
        """The class raster; a string if it is a URL."""
        return self.raster.path

    @property
    def unanswered(self) -> NDArray[np.int64]:
        """(strata,) points without a reference class, left out of the estimates."""
        return np.asarray(self.drawn - self.estimates.counts.sum(axis=1), dtype=np.int64)

    def areas_ha(self) -> list[list[str]]:
        """Areas of the classes as text: mapped, estimated, margin and standard error."""
        areas, mapped = self.estimates.areas_m2, self.estimates.mapped_area_m2
        padded = np.full(len(self.classes), np.nan, dtype=np.float64)
        padded[: len(mapped)] = mapped
        kinds = (padded, areas.value, areas.margin, areas.standard_error)
        texts, classes = hectares(np.concatenate(kinds)), len(self.classes)
        return [texts[start : start + classes] for start in range(0, 4 * classes, classes)]

    def table(self) -> str:
        """The estimates as text for a terminal."""
        estimates = self.estimates
        lines: list[tuple[str, ...]] = [
            ("class", "user's", "producer's", "mapped ha", "estimated ha", "points")
        ]
        mapped, areas, margins, _ = self.areas_ha()
        for index, entry in enumerate(self.classes):
            on_map = index < len(self.drawn)
            points = f"{estimates.counts[index].sum():,}" if on_map else "-"
            accuracies = (with_margin(e, index) for e in (estimates.users, estimates.producers))
            area = f"{areas[index]} ± {margins[index]}"
            lines.append((entry.name, *accuracies, mapped[index], area, points))
        overall = f"overall accuracy {with_margin(estimates.overall, ())} (95% intervals)"
        return f"{format_table(lines)}\n{overall}"


def evaluate_sample(
    class_raster: PathLike | ClassRaster,
    points: PathLike,
    *,
    further_classes: Sequence[str] = (),
) -> SampleEvaluation:
    """Estimate accuracy and areas from a sample that was filled in.

    Points without an answer are left out, with a warning: the other points of their class stand
    for them. An answer is a class of the map's legend, by name or id, or one of the further
    classes.

    Args:
        class_raster: the map that the sample was drawn from.
        points: the file that `draw_sample` wrote.
        further_classes: names of classes that occur on the ground but not in the legend.

    Raises:
        SceneError: the map cannot be read.
        LabelError: the file is not a sample, is of another map or has too few answers, or an
            answer is not a class.
    """
    raster = open_with_areas(class_raster)
    path = path_text(
        points,
        "points",
        "the path of the .gpkg that draw_sample wrote",
        error=LabelError,
        way_out="give the filled-in file itself, which also holds the classes of the map",
    )
    log_step(_log, "evaluating the sample %s.", path)
    sample = read_points(path)
    classes = _columns(path, raster.legend, sample.strata, further_classes)
    pixels = _pixels_of(path, sample, raster)
    _check_map_classes(path, sample, pixels, raster)
    columns = _answers(path, sample, classes)
    answered = np.flatnonzero(columns >= 0)
    row_of = {stratum.class_id: row for row, stratum in enumerate(sample.strata)}
    rows = np.array([row_of[sample.map_class_ids[i]] for i in sample.point_ids[answered].tolist()])
    counts = np.zeros((len(sample.strata), len(classes)), dtype=np.int64)
    np.add.at(counts, (rows.astype(np.intp), columns[answered]), 1)
    drawn = np.array([stratum.points for stratum in sample.strata], dtype=np.int64)
    _check_answered(path, sample.strata, drawn, counts.sum(axis=1))
    return SampleEvaluation(
        raster=raster,
        points_path=path,
        classes=classes,
        estimates=estimate_areas(counts, [stratum.area_m2 for stratum in sample.strata]),
        drawn=drawn,
        pixels=pixels[answered],
        right=columns[answered] == rows,
    )


def with_margin(estimate: Estimate, index: Any) -> str:
    """An estimate as text, with half its 95% interval; a dash where there is none."""
    value, margin = float(estimate.value[index]), float(estimate.margin[index])
    return f"{format_measure(value)} ± {format_measure(margin)}" if math.isfinite(value) else "-"


def _columns(
    path: str, legend: Legend, strata: Sequence[Stratum], further: Sequence[str]
) -> tuple[LegendClass, ...]:
    """The strata, the other classes of the legend, and the further ones."""
    by_id = legend.by_id()
    for stratum in strata:
        if stratum.class_id not in by_id or by_id[stratum.class_id].name != stratum.name:
            raise LabelError(
                f"{path}: was drawn from a map with the class {stratum.class_id} {stratum.name}, "
                f"which this map does not have; give the map that the sample was drawn from."
            )
    sampled = [stratum.class_id for stratum in strata]
    known = [by_id[class_id] for class_id in sampled]
    known += [entry for entry in legend if entry.class_id not in sampled]
    first = max(by_id) + 1
    for name in further:
        if name in legend.names:
            _log.warning("%s: --further-class %s has no effect: the map has it.", path, name)
    new = [name for name in dict.fromkeys(further) if name not in legend.names]
    colors = default_colors(new, taken=[entry.color for entry in legend])
    return tuple(known) + tuple(
        LegendClass(class_id=first + index, name=name, color=color)
        for index, (name, color) in enumerate(zip(new, colors, strict=True))
    )


def _pixels_of(path: str, sample: PointSample, raster: ClassRaster) -> NDArray[np.int64]:
    """(points, 2) row and column of each point; refuses points outside the map."""
    space = PixelSpace.for_labels(path, sample.crs, raster.geobox)
    positions = space.to_pixels(sample.coordinates)
    limits = (raster.width, raster.height)
    outside = ~((positions >= 0) & (positions < limits)).all(axis=1)  # NaN included
    if outside.any():
        raise LabelError(
            f"{path}: {int(outside.sum())} of the points lie outside {raster.path}, such as point "
            f"{sample.point_ids[np.argmax(outside)]}; give the map that the sample was drawn from."
        )
    return np.floor(positions[:, ::-1]).astype(np.int64)


def _check_map_classes(
    path: str, sample: PointSample, pixels: NDArray[np.int64], raster: ClassRaster
) -> None:
    indices = read_pixels(raster, [(row, col) for row, col in pixels.tolist()])
    drawn = [sample.map_class_ids[number] for number in sample.point_ids.tolist()]
    ids = np.append(raster.legend.class_ids, -1)[indices]
    other = np.flatnonzero(ids != drawn)
    if len(other):
        names = {entry.class_id: entry.name for entry in raster.legend} | {-1: "no class"}
        first = int(other[0])
        raise LabelError(
            f"{path}: at {len(other)} points the map has another class than the one they were "
            f"drawn from (point {sample.point_ids[first]}: {names[int(ids[first])]} instead of "
            f"{names[drawn[first]]}); give the map that the sample was drawn from, and do not move "
            f"the points."
        )


def _answers(path: str, sample: PointSample, classes: Sequence[LegendClass]) -> NDArray[np.int64]:
    """(points,) column of each answer, -1 where there is none; refuses answers of no class."""
    by_name = {entry.name: column for column, entry in enumerate(classes)}
    by_id = {str(entry.class_id): column for column, entry in enumerate(classes)}
    # A class named 2 takes precedence over the class with id 2.
    columns = by_id | {name.casefold(): column for name, column in by_name.items()} | by_name
    strange = Counter(
        answer
        for answer in sample.references
        if answer and answer not in columns and answer.casefold() not in columns
    )
    if strange:
        listed = ", ".join(f"{answer!r} ({count})" for answer, count in strange.most_common(8))
        raise LabelError(
            f"{path}: reference holds values that are not classes: {listed}; classes are "
            f"{', '.join(by_name)}. Correct them, or name a class that the map lacks with "
            f"--further-class."
        )
    if not any(sample.references):
        raise LabelError(
            f"{path}: no point has a reference class yet; open it in QGIS and fill in the column "
            f"reference, then evaluate again."
        )
    found = [
        columns.get(answer, columns.get(answer.casefold(), -1)) for answer in sample.references
    ]
    return np.array([-1 if not a else c for a, c in zip(sample.references, found, strict=True)])


def _check_answered(
    path: str, strata: Sequence[Stratum], drawn: NDArray[np.int64], answered: NDArray[np.int64]
) -> None:
    for stratum, count in zip(strata, answered.tolist(), strict=True):
        if count < min(FEWEST_PER_CLASS, stratum.pixels):
            raise LabelError(
                f"{path}: class {stratum.name} has {count} answered of its {stratum.points} "
                f"points, and at least {FEWEST_PER_CLASS} are needed; fill in more of them."
            )
    open_points = int((drawn - answered).sum())
    if open_points:
        _log.warning(
            "%s: %d of %d points have no reference class; they are left out, and the answered "
            "points of their map class stand for them.",
            path,
            open_points,
            int(drawn.sum()),
        )
