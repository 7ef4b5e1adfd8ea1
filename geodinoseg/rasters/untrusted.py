"""Checks of untrusted rasters: only plain formats, recognized by content, are opened.

GDAL reads 150 formats, and some of them act like programs: they access the network, open other
files or evaluate expressions. Files that do so need --allow-external.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError

from geodinoseg.errors import SceneError, one_line
from geodinoseg.rasters.untrusted_vrt import METADATA_PATHS, VrtError, vrt_sources

PLAIN_DRIVERS = (
    "GTiff",
    "PNG",
    "JPEG",
    "JP2OpenJPEG",
    "BMP",
    "HFA",
    "ENVI",
    "EHdr",
    "AAIGrid",
    "SRTMHGT",
    "DTED",
)
"""Drivers that read a file and its sidecars, and follow no references to other files."""

_DEEPEST_VRT = 3
_HEAD_BYTES = 1 << 16
_VRT = b"<vrtdataset"
# By these words near the start, GDAL recognizes formats that read other files.
_ACTIVE = (_VRT, b"<gdaltileindexdataset", b"<mrf_meta", b"<gdal_wms", b"<wcs_gdal", b"<gdal_wmts")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HFA = b"EHFA_HEADER_TAG"
# Drivers that read any file of which a `.hdr` beside it says how.
_RAW_DRIVERS = ("ENVI", "EHdr")
# The first bytes of formats that are read by other drivers, in lower case: GeoPackage, HDF5, HDF4,
# NetCDF, PCIDSK, NITF, GRIB, ISIS, PDF, zip and gzip.
_OTHER_FORMATS = (
    *(b"sqlite format 3\0", b"\x89hdf\r\n", b"\x0e\x03\x13\x01", b"cdf\x01", b"cdf\x02"),
    *(b"cdf\x05", b"pcidsk", b"nitf0", b"grib", b"object = isiscube", b"%pdf-", b"pk\x03\x04"),
    b"\x1f\x8b\x08",
)
# Sidecars that GDAL opens as separate rasters, with any driver.
_SIDECAR_SUFFIX = re.compile(r"(\.(ovr|msk|aux|rrd))+", re.IGNORECASE)
_SIDECAR_END = re.compile(rf"{_SIDECAR_SUFFIX.pattern}$", re.IGNORECASE)

# Sources already checked in this process: each reader opens a mosaic of thousands again.
_PLAIN_SOURCES: set[tuple[str, int, int, int]] = set()

_LARGEST_SIDE_PX = 1 << 24
_MOST_BANDS = 10_000
_LARGEST_BLOCK_BYTES = 1 << 30


def external(path: str, found: str) -> SceneError:
    """The error for a raster that refers to other files or addresses."""
    return SceneError(
        f"{path}: {found}; such a file can access network addresses or read other files. Give a "
        f"plain raster, or --allow-external if you trust it."
    )


def check_local(path: str) -> tuple[str, ...]:
    """Check a local file, its sidecars and sources before GDAL opens it; returns its drivers.

    The files may change between the check and GDAL's access: anyone who can write to the folder
    is trusted.
    """
    try:
        return _Inspection(path).drivers_of(path)
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({one_line(error)}); check the disk.") from error


def check_opened(path: str, dataset: rasterio.DatasetReader, *, trusted: bool = False) -> None:
    """Check the header of a raster before any of its pixels or overviews are read.

    A trusted raster may refer to other files, but must have plausible sizes, too.
    """
    if not trusted:
        _check_references(path, dataset)
    _check_sizes(path, dataset)


def _check_references(path: str, dataset: rasterio.DatasetReader) -> None:
    for domain in ("OVERVIEWS", "GEOLOCATION"):
        named = METADATA_PATHS & {key.upper() for key in dataset.tags(ns=domain)}
        if named:
            raise external(path, f"its metadata refers to another file ({min(named)})")
    if dataset.driver == "HFA":
        _check_imagine(path, dataset.files)
    if dataset.driver in _RAW_DRIVERS and os.path.isfile(dataset.name):
        _check_raw(path, dataset.name)


def _check_raw(path: str, name: str) -> None:
    """Refuse a file of another format for which a `.hdr` of another file is taken.

    With the drivers of plain rasters alone, `x.hdr` of `x.bil` would make raw pixels of `x.gpkg`.
    """
    if _head(name).startswith(_OTHER_FORMATS):
        raise external(path, "is not a plain raster, although a .hdr beside it describes one")


def _check_sizes(path: str, dataset: rasterio.DatasetReader) -> None:
    """Refuse implausible sizes, and blocks too large for memory, before any is allocated."""
    if max(dataset.width, dataset.height) > _LARGEST_SIDE_PX:
        raise SceneError(
            f"{path}: claims {dataset.width} x {dataset.height} px, but at most 16.7 million along "
            f"a side are supported; crop it with gdal_translate -srcwin, or check the file."
        )
    if dataset.count > _MOST_BANDS:
        raise SceneError(
            f"{path}: claims {dataset.count} bands, but at most {_MOST_BANDS:,} are supported; "
            f"extract the bands to use with gdal_translate -b."
        )
    if not dataset.count:
        return
    rows, cols = dataset.block_shapes[0]
    together = dataset.count if dataset.interleaving == Interleaving.pixel else 1
    pixel_bytes = together * _itemsize(dataset.dtypes[0])
    if rows * cols * pixel_bytes > _LARGEST_BLOCK_BYTES:
        raise SceneError(
            f"{path}: has blocks of {cols} x {rows} px, each of which takes more than 1 GB to "
            f"decode; export it with tiles (gdal_translate -co TILED=YES) on a larger machine."
        )


class _Inspection:
    """Checks a raster and all of its sources, each file once."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._seen: set[str] = set()
        self._folders: dict[str, list[str]] = {}

    def drivers_of(self, path: str, *, depth: int = 0) -> tuple[str, ...]:
        head = _head(path)
        is_vrt = _VRT in head
        self._check_sidecars(path)
        if not is_vrt:
            return PLAIN_DRIVERS
        if depth >= _DEEPEST_VRT:
            raise self._refusal(path, f"is a VRT nested in {_DEEPEST_VRT} others")
        try:
            sources = vrt_sources(path)
        except VrtError as error:
            raise self._refusal(path, str(error)) from error
        for source in sources:
            self._check_source(source, depth)
        return ("VRT",)

    def _check_source(self, source: str, depth: int) -> None:
        """Check a source of a VRT, since GDAL opens it with any driver."""
        key = os.path.realpath(source)
        if key in self._seen:
            return
        self._seen.add(key)
        if not os.path.isfile(source):
            raise SceneError(
                f"{self._root}: refers to {source}, which does not exist; copy it there."
            )
        drivers = self.drivers_of(source, depth=depth + 1)
        if drivers == PLAIN_DRIVERS:
            self._check_plain(source)

    def _check_plain(self, source: str) -> None:
        state = os.stat(source)
        key = (os.path.realpath(source), state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in _PLAIN_SOURCES:
            self._open_once(source)
            _PLAIN_SOURCES.add(key)

    def _open_once(self, source: str) -> None:
        head = _head(source)
        if any(word in head for word in _ACTIVE) or head.lstrip()[:1] in {b"<", b"{", b"["}:
            raise self._refusal(source, "is not a plain raster")
        try:
            with rasterio.DatasetReader(
                source, driver=list(PLAIN_DRIVERS), sharing=False
            ) as opened:
                check_opened(self._root, opened)
        except RasterioError as error:
            raise self._refusal(source, "is not a plain raster") from error

    def _check_sidecars(self, path: str) -> None:
        """Overviews and masks beside a file must be TIFF or Imagine files."""
        for sidecar in self._sidecars(path):
            head = _head(sidecar)
            is_plain = head.startswith((*(t.lower() for t in _TIFF), _HFA.lower()))
            if not is_plain or any(word in head for word in _ACTIVE):
                name = os.path.basename(sidecar)
                raise external(path, f"has the sidecar {name}, which is not a plain raster")

    def _refusal(self, path: str, found: str) -> SceneError:
        if path == self._root:
            return external(path, found)
        return external(self._root, f"refers to {path}, which {found}")

    def _sidecars(self, path: str) -> Iterator[str]:
        folder, name = os.path.split(path)
        if folder not in self._folders:
            names = os.listdir(folder or ".")
            self._folders[folder] = [other for other in names if _SIDECAR_END.search(other)]
        name = name.lower()
        stems = {name, os.path.splitext(name)[0]}
        for other in self._folders[folder]:
            lower = other.lower()
            for stem in stems:
                if lower.startswith(stem) and _SIDECAR_SUFFIX.fullmatch(lower[len(stem) :]):
                    yield os.path.join(folder, other)
                    break


def _head(path: str) -> bytes:
    """The start of a file in lower case, where GDAL looks for keywords."""
    with Path(path).open("rb") as handle:
        return handle.read(_HEAD_BYTES).lower()


def _check_imagine(path: str, files: list[str]) -> None:
    """An Imagine file names the file of its pixels, which must be in the same folder."""
    folder = os.path.realpath(os.path.dirname(path))
    stem = os.path.splitext(os.path.basename(path))[0].lower()
    for other in files:
        inside = os.path.realpath(os.path.dirname(other)) == folder
        if not inside or not os.path.basename(other).lower().startswith(stem):
            raise external(path, f"reads its pixels from {other}")


def _itemsize(name: str) -> int:
    # GDAL's complex integers are not a numpy type.
    return 4 if name.startswith("complex_int") else np.dtype(name).itemsize
