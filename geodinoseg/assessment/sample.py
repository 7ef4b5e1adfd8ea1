"""From a map to a random sample of points, and from the filled-in sample to areas."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geodinoseg.accuracy import aligned, shown
from geodinoseg.assessment.area_estimates import AreaEstimates, Estimate, estimate_areas
from geodinoseg.assessment.point_file import (
    PARTS,
    PointSample,
    Stratum,
    check_point_output,
    read_points,
    write_points,
)
from geodinoseg.assessment.sampling_design import (
    EXPECTED_ACCURACY,
    FEWEST_PER_CLASS,
    MIN_PER_CLASS,
    STANDARD_ERROR,
    Allocation,
    allocate,
    sample_size,
)
from geodinoseg.assessment.strata import Strata, count_strata, draw_pixels, read_pixels
from geodinoseg.class_rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.errors import LabelError, SceneError
from geodinoseg.labels.place import pixel_space
from geodinoseg.legend import PALETTE, LegendClass
from geodinoseg.outputs import check_output
from geodinoseg.polygons.side_files import check_parts
from geodinoseg.progress import Progress, no_progress, part_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from geodinoseg.legend import Legend

FilePath = str | os.PathLike[str]
_M2_IN_HA = 10_000
_STRETCH_WARNED = 0.01
_COUNTING = 0.9
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """How a sample is drawn."""

    points: int | None = None
    """In all; None takes as many as `standard_error` needs."""
    standard_error: float = STANDARD_ERROR
    """Wanted of overall accuracy, 0 to 1."""
    expected_accuracy: float = EXPECTED_ACCURACY
    """User's accuracy as it is guessed, 0 to 1."""
    expected_by_class: Mapping[str, float] = field(default_factory=dict)
    """The same by name, of classes where it differs."""
    allocation: Allocation = "balanced"
    """How points are given to classes."""
    min_per_class: int = MIN_PER_CLASS
    """Points of a class at least, in the balanced allocation."""
    seed: int = 0
    """Of the random numbers, 0 or more; the same seed draws the same points."""

    def __post_init__(self) -> None:
        """Refuse what is no size of a sample.

        Raises:
            ValueError: a share outside 0 to 1, or a number below its least.
        """
        shares = (self.expected_accuracy, *self.expected_by_class.values())
        if not 0 < self.standard_error < 1 or not all(0 <= share <= 1 for share in shares):
            raise ValueError("standard error and expected accuracy are shares, 0 to 1.")
        if self.seed < 0 or self.min_per_class < FEWEST_PER_CLASS or (self.points or 1) < 1:
            raise ValueError("a seed is 0 or more, a class has 2 points or more, a sample 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleDesign:
    """A sample that was drawn. Made by `draw_sample`."""

    path: Path
    """The file of points."""
    strata: tuple[Stratum, ...]
    """The classes of the map and their points."""

    @property
    def points(self) -> int:
        """In all."""
        return sum(stratum.points for stratum in self.strata)

    def table(self) -> str:
        """The design as text for a terminal."""
        total = sum(stratum.area_m2 for stratum in self.strata)
        areas = hectares([stratum.area_m2 for stratum in self.strata])
        lines = [("class", "area ha", "share", "points")]
        lines += [
            (s.name, area, f"{s.area_m2 / total:.1%}", f"{s.points:,}")
            for s, area in zip(self.strata, areas, strict=True)
        ]
        return aligned(lines)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SampleAssessment:
    """What a filled-in sample says of a map. Made by `evaluate_sample`."""

    path: Path
    """The class raster."""
    points_path: str
    """The file of points."""
    classes: tuple[LegendClass, ...]
    """Of the columns of the error matrix; the first are those on the map, its strata."""
    estimates: AreaEstimates
    """The error matrix and what follows from it."""
    drawn: NDArray[np.int64]
    """(strata,) points that were drawn."""
    pixels: NDArray[np.int64]
    """(answered, 2) row and column of each answered point on the map."""
    right: NDArray[np.bool_]
    """(answered,) whether the map has its reference class there."""

    @property
    def unanswered(self) -> NDArray[np.int64]:
        """(strata,) points without a reference class, left out of the estimates."""
        return np.asarray(self.drawn - self.estimates.counts.sum(axis=1), dtype=np.int64)

    def areas_ha(self) -> list[list[str]]:
        """Areas of the classes for a person: mapped, estimated, margin and standard error."""
        areas, mapped = self.estimates.areas_m2, self.estimates.mapped_area_m2
        padded = np.full(len(self.classes), np.nan, dtype=np.float64)
        padded[: len(mapped)] = mapped
        kinds = (padded, areas.value, areas.margin, areas.standard_error)
        shown_areas = hectares(np.concatenate(kinds))
        classes = len(self.classes)
        return [shown_areas[start : start + classes] for start in range(0, 4 * classes, classes)]

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
            accuracies = (_with_margin(e, index) for e in (estimates.users, estimates.producers))
            area = f"{areas[index]} ± {margins[index]}"
            lines.append((entry.name, *accuracies, mapped[index], area, points))
        overall = f"overall accuracy {_with_margin(estimates.overall, ())} (95% intervals)"
        return f"{aligned(lines)}\n{overall}"


_DEFAULTS = SampleOptions()


def draw_sample(
    class_raster: FilePath | ClassRaster,
    output: FilePath,
    *,
    options: SampleOptions = _DEFAULTS,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> SampleDesign:
    """Draw a stratified random sample of a map's pixels; strata are its classes.

    Each pixel of a class has the same chance; in degrees, one in proportion to its area. Points
    lie at the centres of pixels, in random order, with an empty column `reference` to fill in.

    Args:
        class_raster: the map.
        output: a `.gpkg`.
        options: how many points, and how they are shared out.
        overwrite: whether a file that is there may be replaced.
        progress: told how far the work is.

    Raises:
        SceneError: the map cannot be read, has no place, or cannot give as many points.
        OutputError: the file cannot be written there.
    """
    raster = _opened(class_raster)
    target = check_output(output, overwrite=overwrite, suffixes=(".gpkg",), inputs=[raster.path])
    check_point_output(target)
    if not overwrite:
        check_parts(target, PARTS)
    expected = _expected_accuracy(raster, options)
    strata = count_strata(raster, progress=part_of(progress, 0, _COUNTING))
    present = np.flatnonzero(strata.pixels)
    if not len(present):
        raise SceneError(f"{raster.path}: holds no class, every pixel is nodata; nothing to draw.")
    weights = strata.areas_m2[present] / strata.areas_m2.sum()
    points = np.zeros(len(strata.pixels), dtype=np.int64)
    try:
        points[present] = allocate(
            _wanted_points(options, weights, expected[present], strata.pixels[present]),
            weights=weights,
            pixels=strata.pixels[present],
            allocation=options.allocation,
            min_per_class=options.min_per_class,
        )
    except SceneError as error:
        raise SceneError(f"{raster.path}: {error}") from error
    drawn = draw_pixels(
        strata, points, seed=options.seed, progress=part_of(progress, _COUNTING, 1.0)
    )
    described = tuple(_stratum(strata, points, int(channel)) for channel in present)
    class_ids = np.repeat(raster.legend.class_ids, points)
    # Shuffled, so that the order does not tell the class.
    order = np.random.default_rng([options.seed, len(class_ids)]).permutation(len(class_ids))
    write_points(
        target,
        _centres(raster, np.concatenate(drawn)[order]),
        class_ids[order],
        crs=raster.geobox.crs,
        strata=described,
    )
    return SampleDesign(path=target, strata=described)


def evaluate_sample(
    class_raster: FilePath | ClassRaster,
    points: FilePath,
    *,
    further_classes: Sequence[str] = (),
) -> SampleAssessment:
    """Estimate accuracy and areas from a sample that a person filled in.

    Points without an answer are left out, with a warning: the others of their class stand for
    them. What was filled in is a class of the map's legend, by name or id, or one of the further
    classes.

    Args:
        class_raster: the map that the sample was drawn from.
        points: the file that `draw_sample` wrote.
        further_classes: names of classes that are there on the ground and not in the legend.

    Raises:
        SceneError: the map cannot be read.
        LabelError: the file is no such sample, another map's, or hardly answered, or an answer is
            no class.
    """
    raster = _opened(class_raster)
    path = os.fspath(points)
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
    return SampleAssessment(
        path=raster.path,
        points_path=path,
        classes=classes,
        estimates=estimate_areas(counts, [stratum.area_m2 for stratum in sample.strata]),
        drawn=drawn,
        pixels=pixels[answered],
        right=columns[answered] == rows,
    )


def hectares(areas_m2: Any) -> list[str]:
    """Areas for a person, hectares: four digits of the largest, the same decimals for all."""
    areas = np.asarray(areas_m2, dtype=np.float64) / _M2_IN_HA
    largest = float(np.max(np.abs(areas[np.isfinite(areas)]), initial=0.0))
    digits = math.floor(math.log10(largest)) + 1 if largest else 1
    decimals = min(max(4 - digits, 0), 6)
    return [f"{area:,.{decimals}f}" if math.isfinite(area) else "-" for area in areas.tolist()]


def _with_margin(estimate: Estimate, index: Any) -> str:
    value, margin = float(estimate.value[index]), float(estimate.margin[index])
    return f"{shown(value)} ± {shown(margin)}" if math.isfinite(value) else "-"


def _opened(class_raster: FilePath | ClassRaster) -> ClassRaster:
    raster = (
        class_raster if isinstance(class_raster, ClassRaster) else open_class_raster(class_raster)
    )
    if not raster.geobox.is_georeferenced:
        raise SceneError(
            f"{raster.path}: does not say where it lies, so points and areas of it cannot; give it "
            f"a georeference, for instance with gdal_translate -a_srs -a_ullr."
        )
    if raster.geobox.crs is None:
        _log.warning("%s: has no CRS; its coordinates are taken for metres.", raster.path)
    stretch = raster.geobox.areal_scale
    if abs(stretch - 1) > _STRETCH_WARNED:
        _log.warning(
            "%s: areas are in units of the map, %.2f times those on the ground; for true areas, "
            "warp the raster to an equal-area or local CRS first.", raster.path, stretch,
        )  # fmt: skip
    return raster


def _expected_accuracy(raster: ClassRaster, options: SampleOptions) -> NDArray[np.float64]:
    """(classes,) of the legend."""
    given = options.expected_by_class
    unknown = [name for name in given if name not in raster.legend.names]
    if unknown:
        raise SceneError(
            f"{raster.path}: has no class {unknown[0]!r} to expect an accuracy of; its classes "
            f"are {', '.join(raster.legend.names)}."
        )
    values = [given.get(name, options.expected_accuracy) for name in raster.legend.names]
    return np.array(values, dtype=np.float64)


def _wanted_points(
    options: SampleOptions,
    weights: NDArray[np.float64],
    expected: NDArray[np.float64],
    pixels: NDArray[np.int64],
) -> int:
    if options.points is not None:
        return options.points
    least = options.min_per_class if options.allocation == "balanced" else FEWEST_PER_CLASS
    needed = sample_size(weights, expected, options.standard_error)
    return int(np.clip(needed, np.minimum(least, pixels).sum(), pixels.sum()))


def _stratum(strata: Strata, points: NDArray[np.int64], channel: int) -> Stratum:
    entry = strata.raster.legend.classes[channel]
    return Stratum(
        class_id=entry.class_id,
        name=entry.name,
        pixels=int(strata.pixels[channel]),
        area_m2=float(strata.areas_m2[channel]),
        points=int(points[channel]),
    )


def _centres(raster: ClassRaster, pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(points, 2) x and y of the centres of pixels, given as rows and columns."""
    rows, cols = pixels.T + 0.5
    affine = raster.geobox.transform
    x = affine.a * cols + affine.b * rows + affine.c
    y = affine.d * cols + affine.e * rows + affine.f
    return np.column_stack([x, y])


def _columns(
    path: str, legend: Legend, strata: Sequence[Stratum], further: Sequence[str]
) -> tuple[LegendClass, ...]:
    """The strata, the other classes of the legend, and the further ones."""
    by_id = legend.by_id()
    for stratum in strata:
        if stratum.class_id not in by_id or by_id[stratum.class_id].name != stratum.name:
            raise LabelError(
                f"{path}: was drawn from a map with the class {stratum.class_id} {stratum.name}, "
                f"which this one has not; give the map that the sample was drawn from."
            )
    sampled = [stratum.class_id for stratum in strata]
    known = [by_id[class_id] for class_id in sampled]
    known += [entry for entry in legend if entry.class_id not in sampled]
    first = max(by_id) + 1
    new = [name for name in dict.fromkeys(further) if name not in legend.names]
    return tuple(known) + tuple(
        LegendClass(class_id=first + index, name=name, color=PALETTE[-1 - index % len(PALETTE)])
        for index, name in enumerate(new)
    )


def _pixels_of(path: str, sample: PointSample, raster: ClassRaster) -> NDArray[np.int64]:
    """(points, 2) row and column of each point.

    Raises:
        LabelError: one lies outside the map.
    """
    space = pixel_space(path, sample.crs, raster.geobox)
    positions = space.to_pixels(sample.coordinates)
    limits = (raster.width, raster.height)
    outside = ~((positions >= 0) & (positions < limits)).all(axis=1)  # also of what is no number
    if outside.any():
        raise LabelError(
            f"{path}: {int(outside.sum())} points lie outside {raster.path}, such as point "
            f"{sample.point_ids[np.argmax(outside)]}; give the map that the sample was drawn from."
        )
    return np.floor(positions[:, ::-1]).astype(np.int64)


def _check_map_classes(
    path: str, sample: PointSample, pixels: NDArray[np.int64], raster: ClassRaster
) -> None:
    channels = read_pixels(raster, [(row, col) for row, col in pixels.tolist()])
    drawn = [sample.map_class_ids[number] for number in sample.point_ids.tolist()]
    ids = np.append(raster.legend.class_ids, -1)[channels]
    other = np.flatnonzero(ids != drawn)
    if len(other):
        names = {entry.class_id: entry.name for entry in raster.legend} | {-1: "no class"}
        first = int(other[0])
        raise LabelError(
            f"{path}: at {len(other)} points the map has another class than the one they were "
            f"drawn from (point {sample.point_ids[first]}: {names[int(ids[first])]} instead of "
            f"{names[drawn[first]]}); give the map that the sample was drawn from, with the "
            f"points where they were."
        )


def _answers(path: str, sample: PointSample, classes: Sequence[LegendClass]) -> NDArray[np.int64]:
    """(points,) column of each answer, -1 where there is none.

    Raises:
        LabelError: an answer is no class, or there is none at all.
    """
    by_name = {entry.name: column for column, entry in enumerate(classes)}
    by_id = {str(entry.class_id): column for column, entry in enumerate(classes)}
    # A class that is called 2 is meant before the one whose id is 2.
    columns = by_id | {name.casefold(): column for name, column in by_name.items()} | by_name
    strange = Counter(
        answer
        for answer in sample.references
        if answer and answer not in columns and answer.casefold() not in columns
    )
    if strange:
        listed = ", ".join(f"{answer!r} ({count})" for answer, count in strange.most_common(8))
        raise LabelError(
            f"{path}: {len(strange)} values of reference are no class: {listed}; classes are "
            f"{', '.join(by_name)}. Correct them, or say --further-class where the ground has a "
            f"class that the map lacks."
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
                f"{path}: class {stratum.name} has {count} answered points of {stratum.points}, "
                f"and nothing can be said with fewer than {FEWEST_PER_CLASS}; fill in more of "
                f"them."
            )
    open_points = int((drawn - answered).sum())
    if open_points:
        _log.warning(
            "%s: %d of %d points have no reference class; they are left out, and the answered "
            "points of their map class stand for them.", path, open_points, int(drawn.sum()),
        )  # fmt: skip
