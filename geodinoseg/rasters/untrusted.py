"""What may be opened as a raster unasked: plain drivers, by content and not by name, and no more.

GDAL reads 150 formats, and some of them are programs: they fetch addresses, open other files, run
expressions. A file that somebody sent is data; what reaches further needs --allow-external.
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
"""Drivers that read a file and what lies beside it under its name, and follow no reference."""

_DEEPEST_VRT = 3
_HEAD_BYTES = 1 << 16
_VRT = b"<vrtdataset"
# By these words, near the start of a file, GDAL takes it for what reads other files.
_ACTIVE = (_VRT, b"<gdaltileindexdataset", b"<mrf_meta", b"<gdal_wms", b"<wcs_gdal", b"<gdal_wmts")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HFA = b"EHFA_HEADER_TAG"
# Side files that GDAL opens as rasters of their own, with any driver.
_SIDE_SUFFIX = re.compile(r"(\.(ovr|msk|aux|rrd))+", re.IGNORECASE)
_SIDE_END = re.compile(rf"{_SIDE_SUFFIX.pattern}$", re.IGNORECASE)

# Sources found plain in this process: a mosaic of thousands is opened again by each reader.
_PLAIN_SOURCES: set[tuple[str, int, int, int]] = set()

_LARGEST_SIDE_PX = 1 << 24
_MOST_BANDS = 10_000
_LARGEST_BLOCK_BYTES = 1 << 30


def external(path: str, found: str) -> SceneError:
    """The error for a raster that reaches further than its own file."""
    return SceneError(
        f"{path}: {found}; such a file can fetch addresses or read other files. Give a plain "
        f"raster, or --allow-external if you trust it."
    )


def check_local(path: str) -> tuple[str, ...]:
    """Look at a local file and what lies beside it before GDAL does.

    The files may change between this look and GDAL's; who can write to the folder meanwhile is
    trusted.

    Returns:
        The drivers that may open it.

    Raises:
        SceneError: it, or what it is made of, reaches further than plain rasters, or cannot be
            read.
    """
    try:
        return _Look(path).at(path)
    except OSError as error:
        raise SceneError(
            f"{path}: cannot be read ({one_line(error)}); look at the disk."
        ) from error


def check_opened(path: str, dataset: rasterio.DatasetReader) -> None:
    """Look at the header of a raster before any of its pixels or overviews are touched."""
    for domain in ("OVERVIEWS", "GEOLOCATION"):
        named = METADATA_PATHS & {key.upper() for key in dataset.tags(ns=domain)}
        if named:
            raise external(path, f"its metadata name another file ({min(named)})")
    if dataset.driver == "HFA":
        _check_beside(path, dataset.files)


def check_sizes(path: str, dataset: rasterio.DatasetReader) -> None:
    """Refuse sizes that are made up, or that no memory holds, before any is taken."""
    if max(dataset.width, dataset.height) > _LARGEST_SIDE_PX:
        raise SceneError(
            f"{path}: claims {dataset.width} x {dataset.height} px, and 16.7 million along a side "
            f"are read at most; cut it with gdal_translate -srcwin, or check the file."
        )
    if dataset.count > _MOST_BANDS:
        raise SceneError(
            f"{path}: claims {dataset.count} bands, and {_MOST_BANDS:,} are read at most; take out "
            f"those of use with gdal_translate -b."
        )
    if not dataset.count:
        return
    rows, cols = dataset.block_shapes[0]
    together = dataset.count if dataset.interleaving == Interleaving.pixel else 1
    pixel_bytes = together * _itemsize(dataset.dtypes[0])
    if rows * cols * pixel_bytes > _LARGEST_BLOCK_BYTES:
        raise SceneError(
            f"{path}: is stored in blocks of {cols} x {rows} px, each of which takes more than 1 "
            f"GB to decode; export it in tiles (gdal_translate -co TILED=YES) on a large machine."
        )


class _Look:
    """One look at a raster and all that it is made of; each file once."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._seen: set[str] = set()
        self._folders: dict[str, list[str]] = {}

    def at(self, path: str, *, depth: int = 0) -> tuple[str, ...]:
        head = _head(path)
        is_vrt = _VRT in head
        self._check_side_files(path)
        if not is_vrt:
            return PLAIN_DRIVERS
        if depth >= _DEEPEST_VRT:
            raise self._refusal(path, f"is a VRT within {_DEEPEST_VRT} others")
        try:
            sources = vrt_sources(path)
        except VrtError as error:
            raise self._refusal(path, str(error)) from error
        for source in sources:
            self._check_source(source, depth)
        return ("VRT",)

    def _check_source(self, source: str, depth: int) -> None:
        """GDAL opens a source with whatever driver wants it: let that be a plain one."""
        key = os.path.realpath(source)
        if key in self._seen:
            return
        self._seen.add(key)
        if not os.path.isfile(source):
            raise SceneError(
                f"{self._root}: is made of {source}, which is no such file; copy it there."
            )
        drivers = self.at(source, depth=depth + 1)
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
            raise self._refusal(source, "is no plain raster")
        try:
            with rasterio.DatasetReader(
                source, driver=list(PLAIN_DRIVERS), sharing=False
            ) as opened:
                check_opened(self._root, opened)
                check_sizes(self._root, opened)
        except RasterioError as error:
            raise self._refusal(source, "is no plain raster") from error

    def _check_side_files(self, path: str) -> None:
        """Overviews and masks beside a file must be TIFFs or Imagine files."""
        for beside in self._side_files(path):
            head = _head(beside)
            is_plain = head.startswith((*(t.lower() for t in _TIFF), _HFA.lower()))
            if not is_plain or any(word in head for word in _ACTIVE):
                raise external(path, f"has {os.path.basename(beside)} beside it, no plain raster")

    def _refusal(self, path: str, found: str) -> SceneError:
        if path == self._root:
            return external(path, found)
        return external(self._root, f"is made of {path}, which {found}")

    def _side_files(self, path: str) -> Iterator[str]:
        folder, name = os.path.split(path)
        if folder not in self._folders:
            names = os.listdir(folder or ".")
            self._folders[folder] = [other for other in names if _SIDE_END.search(other)]
        name = name.lower()
        stems = {name, os.path.splitext(name)[0]}
        for other in self._folders[folder]:
            lower = other.lower()
            for stem in stems:
                if lower.startswith(stem) and _SIDE_SUFFIX.fullmatch(lower[len(stem) :]):
                    yield os.path.join(folder, other)
                    break


def _head(path: str) -> bytes:
    """The start of a file in lower case, as GDAL looks for words in it."""
    with Path(path).open("rb") as handle:
        return handle.read(_HEAD_BYTES).lower()


def _check_beside(path: str, files: list[str]) -> None:
    """Imagine files name the file that holds their pixels: it must lie beside them."""
    folder = os.path.realpath(os.path.dirname(path))
    stem = os.path.splitext(os.path.basename(path))[0].lower()
    for other in files:
        inside = os.path.realpath(os.path.dirname(other)) == folder
        if not inside or not os.path.basename(other).lower().startswith(stem):
            raise external(path, f"reads its pixels from {other}")


def _itemsize(name: str) -> int:
    # GDAL's complex integers are no numpy type.
    return 4 if name.startswith("complex_int") else np.dtype(name).itemsize
