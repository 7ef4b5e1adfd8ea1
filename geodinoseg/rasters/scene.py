"""Scenes: their header, and how their pixels are read.

Which pixels hold data is decided here, once, for both training and segmentation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

from geodinoseg.errors import SceneError
from geodinoseg.files.arguments import path_text
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox
from geodinoseg.rasters.dataset import RasterReader, geobox_of, open_dataset, open_reader
from geodinoseg.rasters.source import CACHE_BYTES, RasterSource
from geodinoseg.windows import Window

Validity = Literal["nodata", "mask", "alpha"]

_MOST_LISTED = 4
_LONGEST_NAME = 200
_CACHE_OF_ROWS_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A raster, the bands to read, and what marks its missing pixels.

    A value without a file handle that can be sent to another process, made by `open_scene`.
    """

    source: RasterSource
    """The raster, and whether it is trusted."""
    geobox: GeoBox
    """Georeferencing and size."""
    bands: tuple[int, ...]
    """Bands to read, numbered from 1, in the order of the model's input."""
    dtype: np.dtype[Any]
    """Dtype of the pixels as read: the common dtype of the chosen bands."""
    nodata: tuple[float | None, ...]
    """Nodata value of each chosen band; None for a band without one."""
    scales: tuple[float, ...]
    """Scale of each chosen band, 1 without a tag; value * scale + offset is the measured value."""
    offsets: tuple[float, ...]
    """Offset of each chosen band, 0 without a tag. Pixels are read as stored."""
    validity: tuple[Validity, ...]
    """What marks missing pixels, in combination; empty if every pixel holds data. In bands of
    floating point NaN and infinity are always missing."""
    alpha_band: int | None
    """Alpha band; None if there is none."""
    block_shape: tuple[int, int]
    """Rows and columns of a block of the file."""
    file_dtypes: tuple[str, ...]
    """Dtype of each band of the file, also of those that are not read."""
    names: tuple[str, ...] = ()
    """Description of each band of the file, empty for one without."""
    nodata_override: float | None = None
    """Nodata value given instead of the one in the file."""

    @property
    def path(self) -> str:
        """A file, or any path that GDAL reads (`/vsizip/...`, `/vsicurl/...`, a VRT)."""
        return self.source.path

    @property
    def height(self) -> int:
        """Rows."""
        return self.geobox.height

    @property
    def width(self) -> int:
        """Columns."""
        return self.geobox.width

    @contextmanager
    def reader(self) -> Iterator[SceneReader]:
        """Open the file for many reads by one thread.

        Raises:
            SceneError: the file can no longer be opened.
        """
        with open_reader(self.source, cache_bytes=self.cache_bytes) as raster:
            yield SceneReader(self, raster)

    @property
    def cache_bytes(self) -> int | None:
        """Size of GDAL's block cache: two blocks if these are very large; None for the default.

        A block that does not fit the cache would be decoded again for every few rows of it.
        Strips of one row get a smaller cache: each is read only once, and the allocator takes half
        as much again as the cache holds of blocks so small.
        """
        rows, cols = self.block_shape
        block_bytes = rows * cols * len(self.bands) * self.dtype.itemsize
        if rows == 1:
            return max(2 * block_bytes, _CACHE_OF_ROWS_BYTES)
        return 2 * block_bytes if 2 * block_bytes > CACHE_BYTES else None

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read one window; see `SceneReader.read`."""
        with self.reader() as reader:
            return reader.read(window)


class SceneReader:
    """An open scene; used only by the thread that opened it."""

    def __init__(self, scene: Scene, raster: RasterReader) -> None:
        self._scene = scene
        self._raster = raster

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read the pixels of a window, and which of them hold data.

        Args:
            window: inside the scene.

        Returns:
            pixels: (bands, height, width) in the scene's dtype.
            valid: (height, width) bool, True where the scene holds data.

        Raises:
            SceneError: a block cannot be read.
        """
        return self._raster.read_with(window, lambda dataset: self._read(dataset, window))

    def _read(
        self, dataset: rasterio.DatasetReader, window: Window
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        scene = self._scene
        pixels = dataset.read(list(scene.bands), window=window.ranges, out_dtype=scene.dtype)
        valid = _valid_pixels(pixels, scene.nodata)
        if "alpha" in scene.validity:
            valid &= dataset.read(scene.alpha_band, window=window.ranges) > 0
        if "mask" in scene.validity:
            masks = dataset.read_masks(list(scene.bands), window=window.ranges)
            valid &= (masks > 0).all(axis=0)
        return pixels, valid


def open_scene(
    scene: PathLike | rasterio.DatasetReader | Scene,
    *,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    allow_external: bool = False,
) -> Scene:
    """Read the header of a raster and decide how its pixels are read.

    Args:
        scene: a file or GDAL path, an open rasterio dataset, or a Scene, which is returned with
            the given bands and nodata value.
        bands: bands to read, numbered from 1; by default all except alpha. An alpha band named
            here is read as a measured band, and marks no missing pixels.
        nodata: nodata value, instead of the one in the file.
        allow_external: whether all formats of GDAL are allowed, including those that access other
            files or the network: a VRT with pixel functions, raw bands or addresses, a web
            service. Only for trusted files; others are opened by drivers for plain rasters.

    Returns:
        The scene.

    Raises:
        SceneError: the file is missing or not a raster, lacks the bands, or its pixels are not
            measurements (complex numbers, a colour palette).

    Example:
        >>> import geodinoseg as gds
        >>> scene = gds.open_scene("ortho.tif", nodata=0)
        >>> scene.width, scene.height, scene.bands
        (300, 260, (1, 2, 3))
    """
    if isinstance(scene, Scene) and _has_selection(scene, bands, nodata):
        return scene
    trusted = allow_external or (isinstance(scene, Scene) and scene.source.trusted)
    if nodata is None and isinstance(scene, Scene):
        nodata = scene.nodata_override
    source = RasterSource(scene_path(scene), trusted)
    with open_dataset(source) as dataset:
        return _describe(source, dataset, bands, nodata)


def _has_selection(scene: Scene, bands: Sequence[int] | None, nodata: float | None) -> bool:
    same_nodata = nodata is None or all(value == nodata for value in scene.nodata)
    return same_nodata and (bands is None or tuple(bands) == scene.bands)


def scene_path(scene: PathLike | rasterio.DatasetReader | Scene) -> str:
    """The path of a scene in any form that `open_scene` accepts."""
    if isinstance(scene, Scene):
        return scene.path
    if isinstance(scene, rasterio.DatasetReader):
        return str(scene.name)
    return path_text(
        scene, "scene", "a path, an open rasterio dataset or a Scene", error=SceneError
    )


def _describe(
    source: RasterSource,
    dataset: rasterio.DatasetReader,
    bands: Sequence[int] | None,
    nodata: float | None,
) -> Scene:
    path, alpha_band = source.path, _alpha_band(dataset)
    chosen = _chosen_bands(path, dataset, bands, alpha_band)
    dtype = _pixel_dtype(path, dataset, chosen)
    if nodata is not None and math.isfinite(nodata) and _usable_nodata(nodata, dtype) is None:
        raise SceneError(
            f"{path}: pixels of type {dtype} cannot be {nodata:g}; give another --nodata."
        )
    nodatas = tuple(
        _usable_nodata(dataset.nodatavals[band - 1] if nodata is None else nodata, dtype)
        for band in chosen
    )
    validity: list[Validity] = []
    if any(value is not None for value in nodatas):
        validity.append("nodata")
    if alpha_band is not None and alpha_band not in chosen:
        validity.append("alpha")
    if any(_has_stored_mask(dataset.mask_flag_enums[band - 1]) for band in chosen):
        validity.append("mask")
    return Scene(
        source=source,
        geobox=geobox_of(path, dataset),
        bands=chosen,
        dtype=dtype,
        nodata=nodatas,
        scales=tuple(float(dataset.scales[band - 1]) for band in chosen),
        offsets=tuple(float(dataset.offsets[band - 1]) for band in chosen),
        validity=tuple(validity),
        alpha_band=alpha_band,
        block_shape=dataset.block_shapes[chosen[0] - 1],
        file_dtypes=tuple(dataset.dtypes),
        names=tuple((name or "").strip()[:_LONGEST_NAME] for name in dataset.descriptions),
        nodata_override=nodata,
    )


def _alpha_band(dataset: rasterio.DatasetReader) -> int | None:
    for band, meaning in zip(dataset.indexes, dataset.colorinterp, strict=True):
        if meaning == ColorInterp.alpha:
            return int(band)
    return None


def _chosen_bands(
    path: str,
    dataset: rasterio.DatasetReader,
    bands: Sequence[int] | None,
    alpha_band: int | None,
) -> tuple[int, ...]:
    if bands is None:
        bands = [band for band in dataset.indexes if band != alpha_band]
    if not bands and dataset.subdatasets:
        names = ", ".join(dataset.subdatasets[:_MOST_LISTED])
        raise SceneError(
            f"{path}: holds {len(dataset.subdatasets)} rasters and no band of its own ({names}); "
            f"copy one with gdal_translate, or join several as bands with gdalbuildvrt -separate."
        )
    if not bands:
        raise SceneError(f"{path}: has no band to read besides alpha; give another raster.")
    missing = [band for band in bands if not 1 <= band <= dataset.count]
    if missing:
        raise SceneError(
            f"{path}: has {dataset.count} band{'s' if dataset.count > 1 else ''}, but band "
            f"{missing[0]} was requested; bands are numbered from 1, choose them with --bands."
        )
    return tuple(int(band) for band in bands)


def _pixel_dtype(
    path: str, dataset: rasterio.DatasetReader, bands: tuple[int, ...]
) -> np.dtype[Any]:
    names = {dataset.dtypes[band - 1] for band in bands}
    if any("complex" in name for name in names):
        raise SceneError(
            f"{path}: holds complex numbers; compute amplitude or intensity first, for instance "
            f"with gdal_calc or SNAP, and use that."
        )
    if ColorInterp.palette in {dataset.colorinterp[band - 1] for band in bands}:
        raise SceneError(
            f"{path}: holds indices of a colour palette, not measurements; expand it first: "
            f"gdal_translate -expand rgb."
        )
    return np.result_type(*(np.dtype(name) for name in names))


def _usable_nodata(value: float | None, dtype: np.dtype[Any]) -> float | None:
    """The nodata value if a pixel can have it; NaN and infinity are missing in any case."""
    if value is None or not np.isfinite(value):
        return None
    if dtype.kind != "f" and (
        value != int(value) or not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    ):
        return None
    return float(value)


def _has_stored_mask(flags: list[MaskFlags]) -> bool:
    """Whether a mask band is stored in or beside the file, rather than derived from the pixels."""
    derived = {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha}
    return not derived & set(flags)


def _valid_pixels(pixels: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """The pixels that are not nodata, NaN or infinite, (height, width) bool.

    In integer bands a pixel is missing if all bands have their nodata value: with nodata 0, a
    pixel that is 0 in red alone is data. In floating point one missing band is enough: -9999 or
    NaN is never a measurement. But 0 may be one, so nodata 0 counts as in integer bands.
    """
    valid = np.ones(pixels.shape[1:], dtype=np.bool_)
    is_float = pixels.dtype.kind == "f"
    possible = []
    for band, value in zip(pixels, nodata, strict=True):
        if is_float:
            valid &= np.isfinite(band)
        if value is not None and is_float and value != 0:
            valid &= band != band.dtype.type(value)
        elif value is not None:
            possible.append((band, value))
    if possible:
        valid &= np.any([band != band.dtype.type(value) for band, value in possible], axis=0)
    return valid
