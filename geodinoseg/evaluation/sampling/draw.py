"""A stratified random sample of a map's pixels: how many points, and which.

After Olofsson et al. (2014), Remote Sensing of Environment 148, section 5.1; sample sizes after
Cochran (1977), Sampling Techniques, eq. 5.25.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.evaluation.accuracy import format_table
from geodinoseg.evaluation.sampling.points import Stratum, check_point_output, write_points
from geodinoseg.evaluation.sampling.strata import (
    Strata,
    count_strata,
    draw_pixels,
    hectares,
    open_with_areas,
)
from geodinoseg.files.atomic import PathLike
from geodinoseg.progress import Progress, log_step, no_progress, part_of
from geodinoseg.rasters.class_raster import ClassRaster
from geodinoseg.redaction import redact_path

Allocation = Literal["balanced", "proportional", "equal"]
"""How points are allocated to classes; see `allocate`."""
FEWEST_PER_CLASS = 2
"""Points below which a class has no variance."""
_COUNTING = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """How a sample is drawn."""

    points: int | None = None
    """In total; None = as many as `standard_error` needs."""
    standard_error: float = 0.02
    """Target standard error of overall accuracy, 0 to 1."""
    expected_accuracy: float = 0.8
    """User's accuracy expected of all classes, 0 to 1."""
    expected_by_class: Mapping[str, float] = field(default_factory=dict)
    """The same by class name, where it differs."""
    allocation: Allocation = "balanced"
    """How points are allocated to classes."""
    min_per_class: int = 50
    """Fewest points of a class in the balanced allocation; the paper advises 50 to 100."""
    seed: int = 0
    """Of the random numbers, 0 or more; the same seed draws the same points."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a fraction is outside 0 to 1, or a number below its minimum.
        """
        fractions = (self.expected_accuracy, *self.expected_by_class.values())
        if not 0 < self.standard_error < 1 or not all(0 <= value <= 1 for value in fractions):
            raise ValueError("standard error and expected accuracy must be fractions, 0 to 1.")
        if self.seed < 0 or self.min_per_class < FEWEST_PER_CLASS or (self.points or 1) < 1:
            raise ValueError("give a seed of 0 or more, 2 points per class or more, and 1 in all.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleDesign:
    """A sample that was drawn. Made by `draw_sample`."""

    path: Path
    """The file of points."""
    strata: tuple[Stratum, ...]
    """The classes of the map and their points."""

    @property
    def points(self) -> int:
        """In total."""
        return sum(stratum.points for stratum in self.strata)

    def to_json(self) -> dict[str, Any]:
        """Plain values: total number of points, and pixels, area and points of each class."""
        return {"points": self.points, "strata": [asdict(stratum) for stratum in self.strata]}

    def table(self) -> str:
        """The design as text for a terminal."""
        total = sum(stratum.area_m2 for stratum in self.strata)
        areas = hectares([stratum.area_m2 for stratum in self.strata])
        lines = [("class", "area ha", "fraction", "points")]
        lines += [
            (s.name, area, f"{s.area_m2 / total:.1%}", f"{s.points:,}")
            for s, area in zip(self.strata, areas, strict=True)
        ]
        return format_table(lines)


_log = logging.getLogger(__name__)
_DEFAULTS = SampleOptions()


def draw_sample(
    class_raster: PathLike | ClassRaster,
    output: PathLike,
    *,
    options: SampleOptions = _DEFAULTS,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> SampleDesign:
    """Draw a stratified random sample of a map's pixels; strata are its classes.

    Each pixel of a class has the same chance; in degrees, one in proportion to its area. Points
    are the centres of pixels, in random order, with an empty column `reference` to fill in.

    Args:
        class_raster: the map.
        output: a `.gpkg`.
        options: the number of points and their allocation.
        overwrite: whether an existing file may be replaced.
        progress: called with the fraction done.

    Raises:
        SceneError: the map cannot be read, is not georeferenced, or has too few pixels.
        OutputError: the file cannot be written there.

    Example:
        >>> import geodinoseg as gds
        >>> design = gds.draw_sample("landcover.tif", "points.gpkg")
        >>> design.points > 0
        True
    """
    raster = open_with_areas(class_raster)
    target = check_point_output(output, raster, overwrite=overwrite)
    expected = _expected_accuracy(raster, options)
    log_step(_log, "counting the pixels of each class of %s.", redact_path(raster.path))
    strata = count_strata(raster, progress=part_of(progress, 0, _COUNTING))
    points = _points_by_class(strata, expected, options)
    log_step(_log, "drawing %d points into %s.", int(points.sum()), target)
    drawing = part_of(progress, _COUNTING, 1.0)
    pixels = np.concatenate(draw_pixels(strata, points, seed=options.seed, progress=drawing))
    class_ids = np.repeat(raster.legend.class_ids, points)
    # Shuffled, so that the order does not tell the class.
    order = np.random.default_rng([options.seed, len(class_ids)]).permutation(len(class_ids))
    design = SampleDesign(path=target, strata=_described(strata, points))
    write_points(
        target,
        _centres(raster, pixels[order]),
        class_ids[order],
        crs=raster.geobox.crs,
        strata=design.strata,
    )
    return design


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


def _points_by_class(
    strata: Strata, expected: NDArray[np.float64], options: SampleOptions
) -> NDArray[np.int64]:
    """(classes,) of the legend; 0 for classes that the map does not show."""
    path = strata.raster.path
    present = np.flatnonzero(strata.pixels)
    if not len(present):
        raise SceneError(f"{path}: holds no class, every pixel is nodata; nothing to draw.")
    weights = strata.areas_m2[present] / strata.areas_m2.sum()
    pixels = strata.pixels[present]
    points = np.zeros(len(strata.pixels), dtype=np.int64)
    try:
        points[present] = allocate(
            _wanted_points(options, weights, expected[present], pixels),
            weights=weights,
            pixels=pixels,
            allocation=options.allocation,
            min_per_class=options.min_per_class,
        )
    except SceneError as error:
        raise SceneError(f"{path}: {error}") from error
    return points


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


def sample_size(
    weights: NDArray[np.float64], expected_accuracy: NDArray[np.float64], standard_error: float
) -> int:
    """Points for a standard error of overall accuracy: (sum_i W_i S_i / S(O))^2, rounded up.

    S_i = sqrt(U_i (1 - U_i)); maps have so many pixels that the finite population correction is
    left out.

    Args:
        weights: (classes,) W_i, fraction of the map's area.
        expected_accuracy: (classes,) U_i, expected user's accuracy, 0 to 1.
        standard_error: S(O), above 0.
    """
    spread = np.sqrt(expected_accuracy * (1 - expected_accuracy))
    return math.ceil(float((weights * spread).sum() / standard_error) ** 2)


def allocate(
    points: int,
    *,
    weights: NDArray[np.float64],
    pixels: NDArray[np.int64],
    allocation: Allocation,
    min_per_class: int,
) -> NDArray[np.int64]:
    """Allocate points to classes.

    `proportional`: by area, at least 2. `equal`: the same number each. `balanced`, between the
    two as the paper advises: rare classes get `min_per_class`, and the rest goes to the others by
    area. A class gets no more points than it has pixels; others then get more.

    Args:
        points: in total.
        weights: (classes,) fraction of the map's area.
        pixels: (classes,) pixels of each class, at least 1.
        allocation: the rule.
        min_per_class: of `balanced`.

    Returns:
        (classes,) points; their sum is `points`.
    """
    least = np.minimum(min_per_class if allocation == "balanced" else FEWEST_PER_CLASS, pixels)
    if points < least.sum():
        raise SceneError(
            f"{points} points are too few for {len(pixels)} classes with at least {least.max()} "
            f"each; give --points {least.sum()} or more, or lower --min-per-class."
        )
    if points > pixels.sum():
        raise SceneError(f"{points} points are more than the {pixels.sum()} pixels of the map.")
    shares = np.ones(len(weights)) if allocation == "equal" else weights
    return _rounded(_filled(points, shares, least, pixels), points, pixels)


def _filled(points: int, shares: Any, least: Any, most: Any) -> NDArray[np.float64]:
    """Shares times the one factor by which, clipped to least and most, they sum to the points."""
    low, high = 0.0, float((most / shares).max()) + 1
    for _ in range(200):
        factor = (low + high) / 2
        if np.clip(factor * shares, least, most).sum() < points:
            low = factor
        else:
            high = factor
    return np.asarray(np.clip(high * shares, least, most), dtype=np.float64)


def _rounded(
    wanted: NDArray[np.float64], points: int, most: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Integers that sum to the points: rounded down, then up where the remainder is largest."""
    # The search ends slightly off whole numbers.
    whole: NDArray[np.int64] = np.floor(wanted + 1e-6).astype(np.int64)
    order = np.argsort(-np.where(whole < most, wanted - whole, -np.inf), kind="stable")
    whole[order[: points - int(whole.sum())]] += 1
    return whole


def _described(strata: Strata, points: NDArray[np.int64]) -> tuple[Stratum, ...]:
    """The classes that the map shows."""
    return tuple(
        Stratum(
            class_id=entry.class_id,
            name=entry.name,
            pixels=int(strata.pixels[index]),
            area_m2=float(strata.areas_m2[index]),
            points=int(points[index]),
        )
        for index, entry in enumerate(strata.raster.legend)
        if strata.pixels[index]
    )


def _centres(raster: ClassRaster, pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(points, 2) x and y of the centres of pixels, given as rows and columns."""
    rows, cols = pixels.T + 0.5
    affine = raster.geobox.transform
    x = affine.a * cols + affine.b * rows + affine.c
    y = affine.d * cols + affine.e * rows + affine.f
    return np.column_stack([x, y])
