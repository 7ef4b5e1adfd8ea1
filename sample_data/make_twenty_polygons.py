"""Make `banepa_twenty.geojson`: twenty polygons like those digitized by hand in ten minutes.

Fourteen roofs of `banepa_buildings.geojson`, spread over the north of the eastern quarter of
`banepa_train.tif`, and six pieces of yards and lanes between the houses. The southern half of that
quarter is left for checking, and the sample model's backbone was trained on no part of the quarter.

    python sample_data/make_twenty_polygons.py
"""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely

HERE = Path(__file__).resolve().parent
SCENE, BUILDINGS = HERE / "banepa_train.tif", HERE / "banepa_buildings.geojson"
COLS, ROWS = (2304, 3072), (0, 1536)
ROOFS = {"concrete": 8, "tin": 6}
BACKGROUND, SIDE_M, NEAR_M = 6, 7.0, 5.0
SMALLEST_ROOF_M2 = 40.0
SEED = 5


def main() -> None:
    """Choose roofs and land, and write them."""
    with rasterio.open(SCENE) as scene:
        west, south = scene.transform @ (COLS[0], ROWS[1])
        east, north = scene.transform @ (COLS[1], ROWS[0])
        crs = scene.crs
    area = shapely.box(west, south, east, north)
    buildings = geopandas.read_file(BUILDINGS).to_crs(crs)
    rng = np.random.default_rng(SEED)
    inside = buildings[buildings.within(area) & (buildings.area > SMALLEST_ROOF_M2)]
    chosen = [
        (name, polygon)
        for name, count in ROOFS.items()
        for polygon in spread(inside[inside["roof"] == name].geometry.to_numpy(), count, rng)
    ]
    chosen += [("background", square) for square in bare_land(area, buildings, rng)]
    names, polygons = zip(*chosen, strict=True)
    layer = geopandas.GeoDataFrame({"class": names}, geometry=list(polygons), crs=crs)
    layer.to_crs(4326).to_file(HERE / "banepa_twenty.geojson", COORDINATE_PRECISION=7)


def spread(
    polygons: np.ndarray[tuple[int], np.dtype[np.object_]], count: int, rng: np.random.Generator
) -> list[shapely.Polygon]:
    """The first at random, each further one as far as possible from those before."""
    middles = shapely.get_coordinates(shapely.centroid(polygons))
    taken = [int(rng.integers(len(polygons)))]
    while len(taken) < count:
        away = np.linalg.norm(middles[:, None] - middles[taken], axis=2).min(axis=1)
        taken.append(int(away.argmax()))
    return [polygons[index] for index in taken]


def bare_land(
    area: shapely.Polygon, buildings: geopandas.GeoDataFrame, rng: np.random.Generator
) -> list[shapely.Polygon]:
    """Squares close to buildings, where mistakes are made, and far from each other."""
    built = shapely.union_all(buildings.geometry)
    west, south, east, north = area.bounds
    points = rng.uniform((west, south), (east - SIDE_M, north - SIDE_M), size=(4000, 2))
    squares = shapely.box(*points.T, *(points + SIDE_M).T)
    away = shapely.distance(squares, built)
    return spread(squares[(away > 0) & (away < NEAR_M)], BACKGROUND, rng)


if __name__ == "__main__":
    main()
