"""What writing a class raster costs, by compression: the figures in `geodinoseg/cog.py`.

    python tests/benchmarks/class_raster_compression.py

Prints CPU milliseconds per million pixels and bytes per pixel, for the working file by codec and
for the COG by deflate level, on a map of 8 classes in patches; then the whole writer, and what of
it is the check that reads everything back. CPU time, since the wall clock depends on the cores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from geodinoseg.geobox import GeoBox
from geodinoseg.legend import Legend
from geodinoseg.rasters import cog
from geodinoseg.rasters.map_rows import ClassRows
from geodinoseg.rasters.map_writer import class_raster_writer
from geodinoseg.rasters.source import GDAL_SETTINGS
from geodinoseg.windows import windows_over

HEIGHT, WIDTH, CLASSES, ROWS = 6000, 8000, 8, 384
GEOBOX = GeoBox(
    crs=CRS.from_epsg(32645),
    transform=Affine(0.1, 0, 300_000, 0, -0.1, 3_000_000),
    width=WIDTH,
    height=HEIGHT,
)
CODECS = {
    "none": {"compress": "NONE"},
    "ZSTD 1": {"compress": "ZSTD", "zstd_level": 1},
    "deflate 1": {"compress": "DEFLATE", "zlevel": 1},
    "LZW": {"compress": "LZW"},
}


def main() -> None:
    """Print the table."""
    class_ids = patches()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.tif"
        for name, options in CODECS.items():
            show(f"working file, {name}", lambda o=options: write_working(path, class_ids, o), path)
        write_working(path, class_ids, CODECS["ZSTD 1"])
        copy = Path(folder) / "cog.tif"
        for level in (1, 3, 5, 6, 9):
            show(f"COG, level {level}", lambda n=level: write_cog(path, copy, n), copy)
        show("all of the writer", lambda: write_map(path, class_ids), path)
        with (
            mock.patch.object(cog, "_check_pixels"),
            mock.patch.object(cog, "_check_overviews"),
        ):
            show("without reading back", lambda: write_map(path, class_ids), path)


def patches() -> NDArray[np.uint8]:
    """A map whose neighbours differ at 8% of the pixels, rough at the edges, nodata in a corner."""
    rng = np.random.default_rng(0)
    rows = np.arange(HEIGHT)[:, None] + rng.integers(-2, 3, (HEIGHT, WIDTH))
    cols = np.arange(WIDTH) + rng.integers(-2, 3, (HEIGHT, WIDTH))
    coarse = rng.integers(0, CLASSES, (HEIGHT // 60 + 2, WIDTH // 60 + 2), dtype=np.uint8)
    class_ids = coarse[rows.clip(0) // 60, cols.clip(0) // 60]
    class_ids[:700, :900] = 255
    return class_ids


def show(label: str, work: Callable[[], None], path: Path) -> None:
    """The better of two runs."""
    spent = []
    for _ in range(2):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    pixels = HEIGHT * WIDTH
    size = path.stat().st_size / pixels
    print(f"{label:24} {min(spent) / pixels * 1e9:6.1f} ms/Mpx  {size:.3f} bytes/px", flush=True)


def write_working(path: Path, class_ids: NDArray[np.uint8], options: dict[str, object]) -> None:
    """Block rows into a tiled GeoTIFF, as the writer does it."""
    with (
        rasterio.Env(**GDAL_SETTINGS),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=WIDTH,
            height=HEIGHT,
            count=1,
            dtype="uint8",
            nodata=255,
            crs=GEOBOX.crs,
            transform=GEOBOX.transform,
            tiled=True,
            blockxsize=cog.BLOCK_PX,
            blockysize=cog.BLOCK_PX,
            num_threads="ALL_CPUS",
            **options,
        ) as dataset,
    ):
        for window in windows_over(height=HEIGHT, width=WIDTH, rows=cog.BLOCK_PX, cols=WIDTH):
            dataset.write(class_ids[window.slices], 1, window=window.ranges)


def write_cog(source: Path, path: Path, level: int) -> None:
    """The conversion, overviews included."""
    with rasterio.Env(**GDAL_SETTINGS):
        rasterio.shutil.copy(source, path, **{**cog.COG_OPTIONS, "level": level})


def write_map(path: Path, class_ids: NDArray[np.uint8]) -> None:
    """Everything, in rows as a model gives them."""
    legend = Legend.of_names({i: f"class {i}" for i in range(CLASSES)})
    with class_raster_writer(path, GEOBOX, legend) as writer:
        for window in windows_over(height=HEIGHT, width=WIDTH, rows=ROWS, cols=WIDTH):
            writer.write(ClassRows(window=window, class_ids=class_ids[window.slices]))


if __name__ == "__main__":
    main()
