"""Writes cloud-optimized GeoTIFFs row by row, in bounded memory.

Owns the working file, the conversion and the check of what was written. The meaning of the pixels
and the path at which a finished file appears are up to the caller.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geodinoseg.errors import OutputError, one_line
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox, dataset_geobox, same_georeferencing
from geodinoseg.rasters.map_rows import BLOCK_PX, BlockRows, block_checksums
from geodinoseg.rasters.source import CACHE_BYTES, GDAL_SETTINGS
from geodinoseg.windows import Window, windows_over

# CPU ms per million pixels of a map of 8 classes, and bytes per pixel, measured by
# tests/benchmarks/class_raster_compression.py. Working file: none 0.9 and 1.05, ZSTD 1.4 and
# 0.05, deflate 3.5 and 0.05, LZW 5.6 and 0.06.
_WORKING_OPTIONS = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": BLOCK_PX,
    "blockysize": BLOCK_PX,
    "bigtiff": "IF_SAFER",
    "compress": "ZSTD",
    "zstd_level": 1,
    "interleave": "PIXEL",
    "num_threads": "ALL_CPUS",
}
# COG with overviews, by deflate level: 1 takes 9.6 ms for 0.085 bytes, 5 takes 11.4 for
# 0.069, 6 (GDAL's own) 16.3 for 0.061, 9 takes 142 for 0.057.
COG_OPTIONS = {
    "driver": "COG",
    "blocksize": BLOCK_PX,
    "compress": "DEFLATE",
    "level": 5,
    "predictor": "NO",
    "overview_resampling": "NEAREST",
    "bigtiff": "IF_SAFER",
    "num_threads": "ALL_CPUS",
}
_READ_BACK_BYTES = 32 << 20
_LARGEST_CACHE_BYTES = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CogLayout:
    """Everything a file holds besides its pixels."""

    geobox: GeoBox
    """Georeferencing and size."""
    dtype: np.dtype[Any]
    """Dtype of all bands."""
    nodata: int
    """Nodata value of all bands."""
    band_names: tuple[str, ...]
    """Description of each band; determines the number of bands."""
    tags: Mapping[str, str]
    """GDAL metadata of the file."""
    colors: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    """Red, green and blue, 0 to 255, of the values of a single uint8 band; empty for none."""
    scale: float = 1.0
    """Factor from pixel values to the quantity."""
    unit: str = ""
    """Unit of the quantity."""


@contextmanager
def cog_writer(
    path: Path,
    layout: CogLayout,
    *,
    target: Path,
    final_tags: Callable[[], Mapping[str, str]] = dict,
) -> Iterator[BlockRows]:
    """Yield rows to write to; on success the complete COG is at the path.

    The working file is in a temporary folder beside the path. OutputError if GDAL cannot write, if
    pixels are missing at the end, or if the file does not read back as written.

    Args:
        path: the COG to create, in a private folder.
        layout: what the file holds besides its pixels.
        target: the path named in errors.
        final_tags: called when all pixels are written; gives further tags.
    """
    box = layout.geobox
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        working = Path(folder) / path.name
        with _report_write_errors(target):
            dataset = _new_working_file(working, layout)
        with dataset:
            rows = BlockRows(
                partial(_write_pixels, dataset, target),
                height=box.height,
                width=box.width,
                bands=len(layout.band_names),
                dtype=layout.dtype,
            )
            yield rows
            _check_complete(rows, target)
            with _report_write_errors(target):
                dataset.update_tags(**final_tags())
                dataset.close()
        with _report_write_errors(target):
            _convert(working, path, _conversion_cache(layout))
    with _report_write_errors(target):
        with reopen(path) as written:
            _check_header(written, layout, target)
            _check_pixels(written, rows.checksums, target)
            levels = len(written.overviews(1))
        _check_overviews(path, levels)


def _new_working_file(path: Path, layout: CogLayout) -> rasterio.io.DatasetWriter:
    box = layout.geobox
    with rasterio.Env(**GDAL_SETTINGS), warnings.catch_warnings():
        # Rasters without georeferencing are supported.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(
            path,
            "w",
            width=box.width,
            height=box.height,
            count=len(layout.band_names),
            dtype=layout.dtype,
            nodata=layout.nodata,
            crs=box.crs,
            transform=box.transform if box.is_georeferenced else None,
            **_WORKING_OPTIONS,
        )
    if box.control is not None and box.control.points:
        dataset.gcps = (box.control.gcps, box.control.crs or CRS())
    if box.control is not None and box.control.rpcs is not None:
        dataset.rpcs = box.control.rpcs
    _describe(dataset, layout)
    return dataset


def _describe(dataset: rasterio.io.DatasetWriter, layout: CogLayout) -> None:
    dataset.update_tags(**layout.tags)
    for band, name in enumerate(layout.band_names, start=1):
        dataset.set_band_description(band, name)
    if layout.scale != 1.0 or layout.unit:
        dataset.scales = [layout.scale] * len(layout.band_names)
        dataset.units = [layout.unit] * len(layout.band_names)
    if layout.colors:
        colors = {value: (*rgb, 255) for value, rgb in layout.colors.items()}
        dataset.write_colormap(1, colors | {layout.nodata: (0, 0, 0, 0)})


def _write_pixels(
    dataset: rasterio.io.DatasetWriter, target: Path, window: Window, pixels: NDArray[Any]
) -> None:
    with _report_write_errors(target):
        dataset.write(pixels, window=window.ranges)


def _check_complete(rows: BlockRows, target: Path) -> None:
    if rows.missing_blocks:
        raise OutputError(
            f"{target}: not written: {rows.missing_blocks} blocks of {BLOCK_PX} px received no "
            f"pixels; run it again."
        )


def _conversion_cache(layout: CogLayout) -> int:
    """Bytes of GDAL's block cache for ten blocks of all bands.

    A COG stores the bands of a block together. If the cache holds few such blocks, GDAL decodes
    each block once per band, and the time grows with the square of the number of bands.
    """
    block_bytes = BLOCK_PX**2 * len(layout.band_names) * layout.dtype.itemsize
    return max(CACHE_BYTES, min(10 * block_bytes, _LARGEST_CACHE_BYTES))


def _convert(working: Path, path: Path, cache_bytes: int) -> None:
    try:
        with rasterio.Env(**(GDAL_SETTINGS | {"GDAL_CACHEMAX": cache_bytes})):
            rasterio.shutil.copy(working, path, **COG_OPTIONS)
    except Exception as error:
        # This call alone raises GDAL's own errors, which have no public class in rasterio.
        raise OSError(one_line(error)) from error


def _check_header(dataset: rasterio.io.DatasetReader, layout: CogLayout, target: Path) -> None:
    box = layout.geobox
    expected = (box.height, box.width, layout.nodata, (layout.dtype.name,) * len(layout.band_names))
    found = (dataset.height, dataset.width, dataset.nodata, dataset.dtypes)
    reread = dataset_geobox(dataset)
    if found != expected:
        raise OutputError(f"{target}: not written: GDAL wrote {found} instead of {expected}.")
    if not same_georeferencing(reread, box):
        raise OutputError(
            f"{target}: not written: its georeferencing reads back as {reread.crs} "
            f"{tuple(reread.transform)[:6]}; warp the scene to a common CRS first."
        )


def check_georeferencing(geobox: GeoBox, path: PathLike) -> None:
    """Raise OutputError if a GeoTIFF of one pixel cannot hold the georeferencing of a scene."""
    small = replace(geobox, width=1, height=1)
    layout = CogLayout(
        geobox=small, dtype=np.dtype(np.uint8), nodata=255, band_names=("class",), tags={}
    )
    try:
        reread = _stored_geobox(layout)
    except (OSError, RasterioError) as error:
        raise OutputError(
            f"{path}: whether a GeoTIFF can store its georeferencing cannot be tested, as no "
            f"temporary file can be written ({one_line(_first_cause(error))}); free some space in "
            f"the folder for temporary files, or set TMPDIR."
        ) from error
    if not same_georeferencing(reread, small):
        raise OutputError(
            f"{path}: its coordinate system or transform cannot be stored in a GeoTIFF, so the "
            f"map would be misplaced; warp the scene to a common CRS first."
        )


def _stored_geobox(layout: CogLayout) -> GeoBox:
    """The georeferencing of a small COG with a layout, as read back."""
    with tempfile.TemporaryDirectory(prefix="geodinoseg-") as folder:
        working, file = Path(folder, "working.tif"), Path(folder, "probe.tif")
        _new_working_file(working, layout).close()
        _convert(working, file, CACHE_BYTES)
        with reopen(file) as dataset:
            return dataset_geobox(dataset)


def _check_pixels(
    dataset: rasterio.io.DatasetReader, checksums: Mapping[tuple[int, int], int], target: Path
) -> None:
    """Read every block, and compare the checksums with those written.

    On a full disk GDAL's threads can lose a block silently: rasterio raises nothing, and the block
    reads as nodata. Takes 1.4 of the 13.3 CPU ms that a million pixels cost in all.
    """
    for window, pixels in _block_rows(dataset):
        if not block_checksums(window, pixels).items() <= checksums.items():
            raise OutputError(
                f"{target}: could not be written: rows {window.row_off} to "
                f"{window.row_end - 1} do not read back as written; {_free_space(target)}"
            )


def _check_overviews(path: Path, levels: int) -> None:
    """Read every block of the overviews; an error of GDAL goes up."""
    for level in range(levels):
        with reopen(path, overview_level=level) as overview:
            for _ in _block_rows(overview):
                pass


def _block_rows(dataset: rasterio.io.DatasetReader) -> Iterator[tuple[Window, NDArray[Any]]]:
    """Windows of one block row, of at most 32 MiB, and their pixels (bands, height, width)."""
    block_bytes = BLOCK_PX**2 * sum(np.dtype(name).itemsize for name in dataset.dtypes)
    for window in windows_over(
        height=dataset.height,
        width=dataset.width,
        rows=BLOCK_PX,
        cols=max(_READ_BACK_BYTES // block_bytes, 1) * BLOCK_PX,
    ):
        yield window, dataset.read(window=window.ranges)


@contextmanager
def reopen(path: Path, **options: int) -> Iterator[rasterio.io.DatasetReader]:
    """Open a finished raster of ours, as `rasterio.open` with further options."""
    with rasterio.Env(**GDAL_SETTINGS), warnings.catch_warnings():
        # Rasters without georeferencing are supported.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, sharing=False, num_threads="ALL_CPUS", **options) as dataset:
            yield dataset


@contextmanager
def _report_write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RasterioError) as error:
        fault = one_line(_first_cause(error))
        raise OutputError(
            f"{target}: could not be written: {fault}; {_free_space(target)}"
        ) from error


def _first_cause(error: BaseException) -> BaseException:
    """The cause of rasterio's "Write failed. See previous exception for details."."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _free_space(target: Path) -> str:
    free = shutil.disk_usage(target.parent).free
    return f"{free / 1e9:.1f} GB are free in {target.parent.resolve()}."
