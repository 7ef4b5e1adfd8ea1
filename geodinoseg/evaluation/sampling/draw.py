"""From a map to a stratified random sample of its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import SceneError
from geodinoseg.evaluation.accuracy import aligned
from geodinoseg.evaluation.sampling.points import PARTS, Stratum, check_point_output, write_points
from geodinoseg.evaluation.sampling.sampling_design import (
    EXPECTED_ACCURACY,
    FEWEST_PER_CLASS,
    MIN_PER_CLASS,
    STANDARD_ERROR,
    Allocation,
    allocate,
    sample_size,
)
from geodinoseg.evaluation.sampling.strata import (
    FilePath,
    Strata,
    count_strata,
    draw_pixels,
    hectares,
    open_with_areas,
)
from geodinoseg.files.atomic import check_output
from geodinoseg.polygons.writer import check_sidecars
from geodinoseg.progress import Progress, no_progress, part_of
from geodinoseg.rasters.class_raster import ClassRaster

_COUNTING = 0.9


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
    raster = open_with_areas(class_raster)
    target = check_output(output, overwrite=overwrite, suffixes=(".gpkg",), inputs=[raster.path])
    check_point_output(target)
    if not overwrite:
        check_sidecars(target, PARTS)
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
