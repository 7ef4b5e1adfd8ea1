"""Polygon files on a rotated grid of odd size."""

from __future__ import annotations

import geopandas
import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from geodinoseg.geobox import GeoBox

UTM = CRS.from_epsg(32645)


HEIGHT, WIDTH = 83, 131


BOX = GeoBox(
    crs=UTM,
    transform=Affine.translation(350_000, 3_056_000) @ Affine.rotation(25) @ Affine.scale(2, -2),
    width=WIDTH,
    height=HEIGHT,
)


def ground(cells, box=BOX):
    return shapely.transform(
        np.asarray(cells, dtype=object), lambda xy: np.column_stack(box.transform @ tuple(xy.T))
    )


def write(path, cells, *, crs=None, **columns):
    columns = columns or {"note": ["x"] * len(cells)}
    frame = geopandas.GeoDataFrame(columns, geometry=list(ground(cells)), crs=UTM)
    (frame if crs is None else frame.to_crs(crs)).to_file(path)
    return path


def square(col, row, side=10.0):
    return shapely.box(col, row, col + side, row + side)
