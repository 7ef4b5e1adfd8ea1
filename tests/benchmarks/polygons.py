"""What polygons cost, beside rasterio.features.shapes and GeoDataFrame.to_file.

    python tests/benchmarks/polygons.py [--size 10000] [--large 30000]

Makes a class raster of 8 classes (blobs with frayed borders, and specks: some 150,000 polygons at
10,000 x 10,000 px), then prints seconds and peak memory of each way and their ratios. Each
measurement has a process of its own, so that peaks do not mix; a process's imports count for both
ways. CPU seconds stand beside the wall clock, which depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

CLASSES, SPACING_PX, SPECK_SHARE, FRAY = 8, 100, 0.0014, 0.002
ROWS = 500
WAYS = {
    "shapes": "rasterio.features.shapes, the generator alone",
    "tracer": "geodinoseg, the tracer alone",
    "stream": "geodinoseg, all but the writer",
    "writer": "geodinoseg, the writer alone",
    "naive": "shapes, shape(), GeoDataFrame, to_file",
    "write": "geodinoseg, raster to GeoPackage",
    "simplify": "  the same with --simplify 1",
    "minimum": "  the same with --min-area 2.5",
    "both": "  the same with both",
}


def main() -> None:
    """Make the rasters, measure each way in a process of its own, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=10_000, help="side of the raster, px")
    parser.add_argument("--large", type=int, default=0, help="side of a larger one, for memory")
    parser.add_argument("--way", choices=["make", *WAYS], help=argparse.SUPPRESS)
    parser.add_argument("--raster", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way == "make":
        make_raster(arguments.raster, arguments.size)
    elif arguments.way:
        print(json.dumps(measure(arguments.way, arguments.raster)))
    else:
        compare(arguments.size, arguments.large)


def compare(size: int, large: int) -> None:
    """Measure and print everything."""
    with tempfile.TemporaryDirectory() as folder:
        raster = Path(folder) / "map.tif"
        in_own_process("make", raster, size)
        results = {way: json.loads(in_own_process(way, raster)) for way in WAYS}
        show(results, size)
        if large:
            raster = Path(folder) / "large.tif"
            in_own_process("make", raster, large)
            show_growth(results["write"], json.loads(in_own_process("write", raster)), large)


def show(results: dict[str, dict[str, float]], size: int) -> None:
    """Print the table and the ratios."""
    print(
        f"\n{size} x {size} px, {results['write']['polygons']:,} polygons, {os.cpu_count()} cores"
    )
    print(f"{'':52}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}")
    for way, text in WAYS.items():
        one = results[way]
        print(f"{text:52}{one['wall_s']:8.2f}{one['cpu_s']:8.2f}{one['peak_mb']:9.0f}")
    for text, ours, theirs, figure in (
        ("tracer / generator, wall", "tracer", "shapes", "wall_s"),
        ("tracer / generator, CPU", "tracer", "shapes", "cpu_s"),
        ("raster to GeoPackage, wall", "write", "naive", "wall_s"),
        ("raster to GeoPackage, CPU", "write", "naive", "cpu_s"),
        ("raster to GeoPackage, peak memory", "write", "naive", "peak_mb"),
    ):
        ratio = results[ours][figure] / results[theirs][figure]
        print(f"{text:40} 1/{1 / ratio:.1f}")


def show_growth(small: dict[str, float], large: dict[str, float], size: int) -> None:
    """Print what the larger raster took."""
    print(f"\n{size} x {size} px, {large['polygons']:,} polygons")
    print(
        f"wall {large['wall_s']:.1f} s, CPU {large['cpu_s']:.1f} s, peak {large['peak_mb']:.0f} MB"
    )
    print(f"peak memory, of the smaller one's: {large['peak_mb'] / small['peak_mb']:.2f}")


def in_own_process(way: str, raster: Path, size: int = 0) -> str:
    """Run one way in a new interpreter; its last line. This one stays small: peaks are inherited."""
    command = [sys.executable, __file__, "--way", way, "--raster", os.fspath(raster)]
    command += ["--size", str(size)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return printed.strip().rpartition("\n")[2]


def measure(way: str, raster: Path) -> dict[str, float]:
    """Seconds, peak memory and number of polygons of one way in this process."""
    run = prepare(way, raster)
    wall, cpu = time.perf_counter(), time.process_time()
    polygons = run()
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "polygons": polygons,
    }


def prepare(way: str, raster: Path) -> Callable[[], int]:
    """What is to be timed; imports, and inputs that a way alone does not read, are made before."""
    if way in {"shapes", "naive"}:
        return prepare_peer(way, raster)
    from geodinoseg.polygons.coverage.join import CoverageJoin
    from geodinoseg.polygons.coverage.tracer import trace_band
    from geodinoseg.polygons.polygonize import write_polygons
    from geodinoseg.polygons.stream import PolygonOptions, PolygonStream
    from geodinoseg.polygons.writer import PolygonLayer, write_batches
    from geodinoseg.rasters.class_raster import open_class_raster

    source = open_class_raster(raster)
    crs, output = source.geobox.crs, raster.with_name(f"{raster.stem}_{way}.gpkg")
    stream = PolygonStream.of(source, min_area_m2=0, simplify_px=0, options=PolygonOptions())

    def untold(fraction: float, message: str) -> None:
        pass

    if way == "tracer":
        bands = list(bands_in_memory(stream))
        join = CoverageJoin(measures=1)
        return lambda: sum(len(join.add(trace_band(band))) for band in bands)
    if way == "stream":
        return lambda: sum(map(len, stream.batches(untold)))
    if way == "writer":
        batches = list(stream.batches(untold))
        layer = PolygonLayer(
            crs=crs, legend=source.legend, schema=stream.table.schema, geometry_type="Polygon"
        )
        return lambda: features_in(write_batches(iter(batches), output, layer=layer))
    options = {
        "write": {},
        "simplify": {"simplify_px": 1.0},
        "minimum": {"min_area_m2": 2.5},
        "both": {"simplify_px": 1.0, "min_area_m2": 2.5},
    }
    return lambda: features_in(write_polygons(raster, output, **options[way]))


def prepare_peer(way: str, raster: Path) -> Callable[[], int]:
    """The way of the peers: everything in memory, an object for each polygon."""
    import geopandas
    import rasterio.features
    from shapely.geometry import shape

    def pixels() -> tuple:
        with rasterio.open(raster) as dataset:
            return dataset.read(1), dataset.transform

    def shapes(class_ids: np.ndarray, transform: rasterio.Affine) -> list:
        return list(rasterio.features.shapes(class_ids, mask=class_ids != 255, transform=transform))

    def to_file() -> int:
        found = shapes(*pixels())
        frame = geopandas.GeoDataFrame(
            {"class_id": [int(value) for _, value in found]},
            geometry=[shape(geometry) for geometry, _ in found],
            crs="EPSG:32645",
        )
        frame.to_file(raster.with_name(f"{raster.stem}_naive.gpkg"))
        return len(frame)

    if way == "naive":
        return to_file
    in_memory = pixels()
    return lambda: len(shapes(*in_memory))


def bands_in_memory(stream) -> Iterator:
    """The bands that the tracer is given, read beforehand."""
    from geodinoseg.polygons.bands import cut_bands, open_rasters, read_rows, regroup_rows

    raster = stream.raster
    with open_rasters(raster) as rasters:
        chunks = regroup_rows(
            read_rows(raster, rasters.classes, chunk_rows=stream.chunk_rows),
            chunk_rows=stream.chunk_rows,
            height=raster.height,
        )
        yield from cut_bands(
            raster,
            chunks,
            outside=stream.outside,
            weights=stream.table.weights,
            confidence=rasters.confidence,
        )


def features_in(path: Path) -> int:
    import pyogrio

    return pyogrio.read_info(path, layer=path.stem)["features"]


def make_raster(path: Path, size: int) -> None:
    """A class raster of ours, tags and all, written row by row."""
    import rasterio
    from affine import Affine

    from geodinoseg.legend import Legend
    from geodinoseg.rasters.class_raster import LEGEND_TAG

    legend = Legend.of_names({i: f"class {i}" for i in range(CLASSES)})
    profile = {
        "driver": "GTiff",
        "width": size,
        "height": size,
        "count": 1,
        "dtype": "uint8",
        "nodata": 255,
        "crs": "EPSG:32645",
        "compress": "deflate",
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "transform": Affine(0.5, 0, 300_000, 0, -0.5, 3_000_000),
    }
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.update_tags(**{LEGEND_TAG: json.dumps(legend.to_json())})
        for row, class_ids in class_rows(size):
            dataset.write(class_ids, 1, window=((row, row + len(class_ids)), (0, size)))


def class_rows(size: int) -> Iterator[tuple[int, np.ndarray]]:
    """The class of the highest of 8 smooth random fields, with noise where two are close."""
    rng = np.random.default_rng(0)
    coarse = rng.random((CLASSES, size // SPACING_PX + 2, size // SPACING_PX + 2), np.float32)
    cols, col_share = places(0, size)
    for row in range(0, size, ROWS):
        rows, row_share = places(row, min(ROWS, size - row))
        best = np.full((len(rows), size), -1, dtype=np.float32)
        class_ids = np.zeros(best.shape, dtype=np.uint8)
        for class_id, field in enumerate(coarse):
            wide = field[:, cols] * (1 - col_share) + field[:, cols + 1] * col_share
            height = wide[rows] * (1 - row_share[:, None]) + wide[rows + 1] * row_share[:, None]
            height += rng.random(height.shape, dtype=np.float32) * np.float32(FRAY)
            higher = height > best
            best[higher], class_ids[higher] = height[higher], class_id
        speck = rng.random(class_ids.shape, dtype=np.float32) < SPECK_SHARE
        class_ids[speck] = rng.integers(0, CLASSES, int(speck.sum()), dtype=np.uint8)
        yield row, class_ids


def places(start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The coarse point before each pixel, and how far the pixel is from it."""
    place = (np.arange(start, start + length) + 0.5) / SPACING_PX
    return place.astype(int), (place % 1).astype(np.float32)


if __name__ == "__main__":
    main()
