"""Small class rasters to draw samples from, and points filled in as a GIS does."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import geopandas
import numpy as np
from rasters import write_raster

from geodinoseg.legend import Legend
from geodinoseg.qgis.geopackage import read_note

NAMES = {1: "water", 4: "wood", 9: "field <&>", 30: "rock"}


def write_map(path, pixels, names=NAMES, **options):
    """A class raster of ours, as far as its header goes; nodata is 255."""
    write_raster(path, pixels[None].astype(np.uint8), nodata=255, **options)
    import rasterio

    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(GEODINOSEG_LEGEND=json.dumps(Legend.of_names(names).to_json()))
    return path


def patches(height=700, width=1_300, seed=4):
    """A map of three of the four classes, one of them rare, with nodata in a corner."""
    rng = np.random.default_rng(seed)
    pixels = rng.choice([1, 4], (height // 20 + 1, width // 20 + 1)).repeat(20, 0).repeat(20, 1)
    pixels = pixels[:height, :width].copy()
    pixels[-9:, -11:] = 9
    pixels[:50, :70] = 255
    return pixels


def read_layer(path):
    return geopandas.read_file(path, layer=path.stem)


def fill(path, answers):
    """Write the reference of points, by number, as a GIS does: through GDAL's own table."""
    frame = read_layer(path)
    with closing(sqlite3.connect(path)) as database, database:
        triggers = database.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?",
            (path.stem,),
        ).fetchall()
        for name, _ in triggers:
            database.execute(f'DROP TRIGGER "{name}"')
        database.executemany(
            f'UPDATE "{path.stem}" SET reference = ? WHERE point_id = ?',
            [(answers.get(number), number) for number in frame["point_id"].tolist()],
        )
        for _, sql in triggers:
            database.execute(sql)


def map_classes(path):
    return dict(read_note(path)["points"])
