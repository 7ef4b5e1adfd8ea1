"""Make `lataseno_s2.tif` and `lataseno_classes.tif` from the files that geo2ml publishes.

Example, with `s2_lataseno_ex.tif` and `clc_2018_lataseno.tif` in one folder:

    python sample_data/make_lataseno_sample.py FOLDER

The scene's pixels stay as they are and are only compressed. The 48 codes of the Finnish CORINE map
are grouped into four classes, on that map's own grid, cut to the scene and a margin.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.warp import transform_bounds
from rasterio.windows import Window as RioWindow, from_bounds

from geodinoseg.geobox import GeoBox
from geodinoseg.legend import Legend
from geodinoseg.rasters.map_rows import ClassRows
from geodinoseg.rasters.map_writer import class_raster_writer
from geodinoseg.windows import Window

HERE = Path(__file__).resolve().parent
SCENE, CLASSES = HERE / "lataseno_s2.tif", HERE / "lataseno_classes.tif"
GROUPS = {
    "forest": (23, 30, "#228833"),
    "open land": (31, 40, "#ccbb44"),
    "wetland": (41, 46, "#aa3377"),
    "water": (47, 49, "#4477aa"),
}
"""First and last code of each class in the 20 m CORINE map of 2018 of SYKE, and a colour.

23 to 30 are broad-leaved, coniferous and mixed forest; 31 to 40 grassland, heath, land with few
trees, sand and rock; 41 to 46 marshes, bogs and peat production; 47 to 49 rivers, lakes, the sea.
"""
MARGIN_M = 200
NO_CLASS = 255


def main() -> None:
    """Write both files beside this script."""
    parser = argparse.ArgumentParser(description="Make the nine-band sample from geo2ml's files.")
    parser.add_argument("folder", type=Path, help="holds the two files as geo2ml publishes them")
    folder = parser.parse_args().folder
    compress(folder / "s2_lataseno_ex.tif", SCENE)
    group(folder / "clc_2018_lataseno.tif", SCENE, CLASSES)


def compress(source: Path, target: Path) -> None:
    """Write the same pixels, compressed."""
    with rasterio.open(source) as scene:
        profile: dict[str, Any] = scene.profile
        profile |= {
            "compress": "deflate",
            "zlevel": 9,
            "predictor": 2,
            "interleave": "band",
            "tiled": True,
            "blockxsize": 256,
            "blockysize": 256,
        }
        with rasterio.open(target, "w", **profile) as copy:
            copy.write(scene.read())


def group(source: Path, scene_path: Path, target: Path) -> None:
    """Write the four classes around the scene as a class raster with names and colours."""
    with rasterio.open(source) as corine, rasterio.open(scene_path) as scene:
        bounds = transform_bounds(scene.crs, corine.crs, *scene.bounds)
        margins = (-MARGIN_M, -MARGIN_M, MARGIN_M, MARGIN_M)
        window = whole(
            from_bounds(
                *(edge + margin for edge, margin in zip(bounds, margins, strict=True)),
                corine.transform,
            )
        )
        codes = corine.read(1, window=window)
        place = GeoBox(
            crs=corine.crs,
            transform=corine.window_transform(window),
            height=window.height,
            width=window.width,
        )
    class_ids = np.full(codes.shape, NO_CLASS, dtype=np.uint8)
    for class_id, (first, last, _) in enumerate(GROUPS.values(), start=1):
        class_ids[(codes >= first) & (codes <= last)] = class_id
    legend = Legend.of_names(
        dict(enumerate(GROUPS, start=1)),
        {class_id: color for class_id, (_, _, color) in enumerate(GROUPS.values(), start=1)},
    )
    everything = Window(col_off=0, row_off=0, width=window.width, height=window.height)
    with class_raster_writer(target, place, legend) as writer:
        writer.write(ClassRows(window=everything, class_ids=class_ids))


def whole(window: RioWindow) -> RioWindow:
    """The smallest window of whole pixels around another."""
    col, row = math.floor(window.col_off), math.floor(window.row_off)
    return RioWindow(
        col,
        row,
        math.ceil(window.col_off + window.width) - col,
        math.ceil(window.row_off + window.height) - row,
    )


if __name__ == "__main__":
    main()
