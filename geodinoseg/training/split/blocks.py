"""Blocks of scenes, each trained on or held out as a whole: their location and their labels.

A block is a square of a scene. A last one that is narrower than a crop is part of its neighbour,
so that a crop over any pixel of a block fits into the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geodinoseg.errors import TransformationError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.labels import Labels
from geodinoseg.labels.meridian import turned_into, unwrapped
from geodinoseg.labels.polygon_source import PolygonSource
from geodinoseg.rasters.scene import Scene
from geodinoseg.transformations import find_transformation, full_turn, parsed_crs

_NO_LAND = 1e-4
"""Fraction of the smaller block: neighbours share a border, and rounding makes it an area."""
_EDGE_POINTS = 8
"""Points on each side of a footprint that is transformed into another CRS."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The blocks of all scenes of a training, numbered consecutively."""

    scenes: tuple[Scene, ...]
    labels: tuple[Labels, ...]
    """Of each scene."""
    scene: NDArray[np.int64]
    """(blocks,), index of the scene that each lies in."""
    bounds: NDArray[np.int64]
    """(blocks, 4) pixels of its scene: first column, first row, end column, end row."""
    counts: NDArray[np.int64]
    """(blocks, classes) labelled pixels."""
    at: tuple[NDArray[np.int64], ...]
    """For each scene (square rows, square columns), the block that each square belongs to."""

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """(blocks,)."""
        return np.asarray(self.counts.any(axis=1))

    @cached_property
    def shared_land(self) -> NDArray[np.int64]:
        """(pairs, 2): a labelled block, and a block of another scene that shows some of its land.

        Empty where no scene is georeferenced. Georeferenced scenes without a CRS are assumed to
        share one coordinate system.
        """
        if len(self.scenes) == 1:
            return np.zeros((0, 2), dtype=np.int64)
        labelled = np.flatnonzero(self.is_labelled)
        pairs = [np.zeros((0, 2), dtype=np.int64)]
        for plane in set(self.planes.tolist()) - {-1}:
            here = np.flatnonzero(self.planes[self.scene] == plane)
            wanted = labelled[self.planes[self.scene[labelled]] == plane]
            tree = shapely.STRtree(self.footprints[here])
            first, second = tree.query(self.footprints[wanted], predicate="intersects")
            pairs.append(np.column_stack([wanted[first], here[second]]))
        found = np.concatenate(pairs)
        found = found[self.scene[found[:, 0]] != self.scene[found[:, 1]]]
        first, second = self.footprints[found.T]
        common = shapely.area(shapely.intersection(first, second))
        least = _NO_LAND * np.minimum(shapely.area(first), shapely.area(second))
        return np.asarray(found[common > least], dtype=np.int64)

    @cached_property
    def footprints(self) -> NDArray[Any]:
        """(blocks,) polygons on the ground, in the CRS of the first scene of the same plane."""
        footprints = _boxes(self.bounds)
        for index, scene in enumerate(self.scenes):
            here = self.scene == index
            first = self.scenes[int(np.argmax(self.planes == self.planes[index]))].geobox
            ground = _on_ground(footprints[here], scene.geobox, first.crs)
            footprints[here] = _in_one_turn(ground, first)
        return footprints

    @cached_property
    def polygon_areas(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Pixels that each label polygon covers in each block: polygon, block, area.

        Polygons are numbered consecutively over all scenes, without those to ignore. Labels from
        a raster have no polygons and no entry.
        """
        parts, first = [], 0
        for index, labels in enumerate(self.labels):
            polygons = _polygons_of(labels)
            here = np.flatnonzero((self.scene == index) & self.is_labelled)
            boxes = _boxes(self.bounds[here])
            box, polygon = shapely.STRtree(polygons).query(boxes, predicate="intersects")
            area = shapely.area(shapely.intersection(boxes[box], polygons[polygon]))
            covers = area > 0
            parts.append((first + polygon[covers], here[box[covers]], area[covers]))
            first += len(polygons)
        polygon, block, area = (np.concatenate(values) for values in zip(*parts, strict=True))
        return polygon, block, area

    def cut_fraction(self, folds: NDArray[np.int64]) -> float:
        """Fraction of the labelled area in polygons that lie in several of the (blocks,) folds."""
        polygon, block, area = self.polygon_areas
        used = folds[block] > -2
        polygon, fold, area = polygon[used], folds[block[used]], area[used]
        if not len(polygon):
            return 0.0
        low = np.full(polygon.max() + 1, np.iinfo(np.int64).max, dtype=np.int64)
        high = np.full(polygon.max() + 1, np.iinfo(np.int64).min, dtype=np.int64)
        np.minimum.at(low, polygon, fold)
        np.maximum.at(high, polygon, fold)
        return float(area[(low != high)[polygon]].sum() / area.sum())

    @cached_property
    def planes(self) -> NDArray[np.int64]:
        """(scenes,) number of a plane; only scenes of the same plane may show the same land.

        -1 is not georeferenced, 0 is georeferenced without a CRS, and each number from 1 on is a
        set of CRSs between which a transformation exists.
        """
        firsts: list[CRS] = []

        def plane(geobox: GeoBox) -> int:
            if geobox.crs is None:
                return 0 if geobox.is_georeferenced else -1
            for number, first in enumerate(firsts, start=1):
                if geobox.crs == first or _is_related(geobox.crs, first):
                    return number
            firsts.append(geobox.crs)
            return len(firsts)

        return np.array([plane(scene.geobox) for scene in self.scenes], dtype=np.int64)


def find_blocks(
    scenes: Sequence[Scene],
    labels: Sequence[Labels],
    counts: Sequence[NDArray[np.int64]],
    *,
    blocks_px: Sequence[int],
    crops_px: Sequence[int],
) -> Blocks:
    """Join the squares of scenes to blocks; a last one narrower than a crop to its neighbour.

    counts are (square rows, square columns, classes) labelled pixels of each scene.
    """
    at, bounds, sums = [], [], []
    first = 0
    for scene, pixels, block_px, crop_px in zip(scenes, counts, blocks_px, crops_px, strict=True):
        narrowest = min(crop_px, block_px)
        rows = _ends(scene.height, block_px, narrowest)
        cols = _ends(scene.width, block_px, narrowest)
        row = np.minimum(np.arange(pixels.shape[0]), len(rows) - 2)
        col = np.minimum(np.arange(pixels.shape[1]), len(cols) - 2)
        block = row[:, None] * (len(cols) - 1) + col
        total = np.zeros(((len(rows) - 1) * (len(cols) - 1), pixels.shape[2]), dtype=np.int64)
        np.add.at(total, block.ravel(), pixels.reshape(-1, pixels.shape[2]))
        top, left = (axis.ravel() for axis in np.meshgrid(rows[:-1], cols[:-1], indexing="ij"))
        low, right = (axis.ravel() for axis in np.meshgrid(rows[1:], cols[1:], indexing="ij"))
        at.append(first + block)
        bounds.append(np.column_stack([left, top, right, low]))
        sums.append(total)
        first += len(total)
    return Blocks(
        scenes=tuple(scenes),
        labels=tuple(labels),
        scene=np.repeat(np.arange(len(sums), dtype=np.int64), [len(total) for total in sums]),
        bounds=np.concatenate(bounds),
        counts=np.concatenate(sums),
        at=tuple(at),
    )


def _ends(length_px: int, block_px: int, narrowest: int) -> NDArray[np.int64]:
    """Where blocks begin along an axis, and where the last ends."""
    starts = np.arange(0, length_px, block_px, dtype=np.int64)
    if len(starts) > 1 and length_px - starts[-1] < narrowest:
        starts = starts[:-1]
    return np.append(starts, length_px)


def _boxes(bounds: NDArray[np.int64]) -> NDArray[Any]:
    return np.asarray(shapely.box(*bounds.T.astype(np.float64)), dtype=object)


def _on_ground(boxes: NDArray[Any], geobox: GeoBox, crs: object) -> NDArray[Any]:
    """Footprints of boxes of pixels; empty where they cannot be transformed into the CRS."""

    def to_map(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = geobox.transform @ tuple(points.T)
        if geobox.crs is not None and geobox.crs != crs:
            x, y = find_transformation(geobox.crs, crs).transform(x, y)
        return np.column_stack([x, y])

    if geobox.crs is not None and geobox.crs != crs:
        side = np.sqrt(shapely.area(boxes))
        boxes = shapely.segmentize(boxes, side / _EDGE_POINTS)
    ground = shapely.transform(boxes, to_map)
    lost = ~np.isfinite(shapely.area(ground))
    ground[lost] = shapely.Polygon()
    return np.asarray(ground, dtype=object)


def _in_one_turn(ground: NDArray[Any], first: GeoBox) -> NDArray[Any]:
    """Shift footprints in degrees to within half a turn of the first scene's centre."""
    turn = full_turn(parsed_crs(first.crs))
    if turn is None:
        return ground
    center, _ = first.transform @ (first.width / 2, first.height / 2)
    around = center - turn / 2, center + turn / 2
    return turned_into(unwrapped(ground, turn, turn / 4), around, turn)


def _is_related(crs: CRS, other: CRS) -> bool:
    """Whether a transformation between two CRSs exists."""
    try:
        find_transformation(crs, other)
    except TransformationError:
        return False
    return True


def _polygons_of(labels: Labels) -> NDArray[Any]:
    """Polygons of labels in pixels of their scene, without those to ignore; none of a raster."""
    source = labels.source
    if not isinstance(source, PolygonSource):
        return np.zeros(0, dtype=object)
    return np.asarray(source.polygons[source.class_indices != IGNORE])
