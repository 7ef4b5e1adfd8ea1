"""A scene to segment: what its header says, and how its pixels are read. Opens nothing by itself.

Which pixels hold data is decided here, once, for training and segmentation alike.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

from geodinoseg.errors import SceneError
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox
from geodinoseg.rasters.dataset import RasterReader, geobox_of, open_dataset, open_reader
from geodinoseg.rasters.source import CACHE_BYTES, RasterSource
from geodinoseg.windows import Window

Validity = Literal["nodata", "mask", "alpha"]

_CACHE_OF_ROWS_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A raster, the bands to read, and how its missing pixels are known.

    A plain value: it holds no handle and can be sent to another process. Made by `open_scene`.
    """

    source: RasterSource
    """The raster, and whether it is trusted."""
    geobox: GeoBox
    """Place and size."""
    bands: tuple[int, ...]
    """Bands to read, numbered from 1, in the order in which a model takes them."""
    dtype: np.dtype[Any]
    """Type of the pixels as read: the common type of the chosen bands."""
    nodata: tuple[float | None, ...]
    """Nodata value of each chosen band; None where it has none."""
    scales: tuple[float, ...]
    """Of each chosen band: value * scale + offset is what was measured; 1 where none is told."""
    offsets: tuple[float, ...]
    """Of each chosen band; 0 where none is told. Pixels are read as they are stored."""
    validity: tuple[Validity, ...]
    """What marks missing pixels, all of it counts; empty where every pixel holds data. In bands
    of floating point NaN and infinity are missing in any case."""
    alpha_band: int | None
    """Band that holds the transparency; None where there is none."""
    block_shape: tuple[int, int]
    """Rows and columns of a block as the file is stored."""

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
        """A handle of one's own, for one thread and many reads.

        Raises:
            SceneError: the file cannot be opened any more.
        """
        with open_reader(self.source, cache_bytes=self.cache_bytes) as raster:
            yield SceneReader(self, raster)

    @property
    def cache_bytes(self) -> int | None:
        """Room for two blocks where these are giant, as in a file that is a single strip.

        A block that does not fit GDAL's cache would be decoded anew for every few rows of it.
        Strips of one row, on the other hand, are so many and small that the allocator takes half as
        much again as the cache holds of them, for nothing: each is asked for once.
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
    """An open scene. Belongs to the thread that opened it."""

    def __init__(self, scene: Scene, raster: RasterReader) -> None:
        self._scene = scene
        self._raster = raster

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels of a window, and which of them hold data.

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
        valid = _within_nodata(pixels, scene.nodata)
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
    """Look at a raster's header and say how it will be read.

    Args:
        scene: a file or GDAL path, an open rasterio dataset, or a Scene, which is returned with
            other bands where these are given.
        bands: bands to read, from 1; all but alpha where not given.
        nodata: nodata value, in place of the one in the file.
        allow_external: whether it may be of any kind that GDAL knows, and reach where it likes: a
            VRT with pixel functions, raw bands or addresses, a web service. Only for files that
            are trusted; other local files are opened by drivers that read plain rasters.

    Returns:
        The scene.

    Raises:
        SceneError: the file is missing, no raster, without the bands, or its pixels are not
            measured values (complex numbers, a colour palette).

    Example:
        >>> import geodinoseg as gds
        >>> scene = gds.open_scene("ortho.tif", nodata=0)
        >>> scene.width, scene.height, scene.bands
        (300, 260, (1, 2, 3))
    """
    if isinstance(scene, Scene) and _is_read_so(scene, bands, nodata):
        return scene
    trusted = allow_external or (isinstance(scene, Scene) and scene.source.trusted)
    source = RasterSource(scene_path(scene), trusted)
    with open_dataset(source) as dataset:
        return _describe(source, dataset, bands, nodata)


def _is_read_so(scene: Scene, bands: Sequence[int] | None, nodata: float | None) -> bool:
    same_nodata = nodata is None or all(value == nodata for value in scene.nodata)
    return same_nodata and (bands is None or tuple(bands) == scene.bands)


def scene_path(scene: PathLike | rasterio.DatasetReader | Scene) -> str:
    """The path of whatever `open_scene` takes.

    Raises:
        SceneError: it has none: an array, or a warped view in memory.
    """
    if isinstance(scene, Scene):
        return scene.path
    if isinstance(scene, rasterio.DatasetReader):
        return str(scene.name)
    if isinstance(scene, str | os.PathLike):
        return os.fspath(scene)
    raise SceneError(
        f"a {type(scene).__name__} is not a scene: give a path, or a dataset that rasterio.open "
        f"made; a warped view can be saved as a VRT."
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
            f"{path}: no pixel of type {dtype} can be {nodata:g}; give another --nodata."
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
    if not bands:
        raise SceneError(f"{path}: has no band of measured values to read.")
    missing = [band for band in bands if not 1 <= band <= dataset.count]
    if missing:
        raise SceneError(
            f"{path}: has {dataset.count} band{'s' if dataset.count > 1 else ''}, and band "
            f"{missing[0]} was asked for; bands are numbered from 1, choose them with --bands."
        )
    return tuple(int(band) for band in bands)


def _pixel_dtype(
    path: str, dataset: rasterio.DatasetReader, bands: tuple[int, ...]
) -> np.dtype[Any]:
    names = {dataset.dtypes[band - 1] for band in bands}
    if any("complex" in name for name in names):
        raise SceneError(
            f"{path}: holds complex numbers; compute amplitude or intensity first, for instance "
            f"with gdal_calc or SNAP, and segment that."
        )
    if ColorInterp.palette in {dataset.colorinterp[band - 1] for band in bands}:
        raise SceneError(
            f"{path}: holds numbers of a colour palette, not measured values; expand it first: "
            f"gdal_translate -expand rgb."
        )
    return np.result_type(*(np.dtype(name) for name in names))


def _usable_nodata(value: float | None, dtype: np.dtype[Any]) -> float | None:
    """A nodata value that a pixel of this type can have; NaN and infinity are found unasked."""
    if value is None or not np.isfinite(value):
        return None
    if dtype.kind != "f" and (
        value != int(value) or not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    ):
        return None
    return float(value)


def _has_stored_mask(flags: list[MaskFlags]) -> bool:
    """Whether a mask band lies in or beside the file, rather than one derived from the pixels."""
    derived = {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha}
    return not derived & set(flags)


def _within_nodata(pixels: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """Which pixels are not nodata, NaN or infinite.

    In bands of whole numbers a pixel is missing where every band that has a nodata value has it:
    with nodata 0 a pixel that is black in red alone is data. In floating point one missing band
    is enough: -9999 or NaN is never a measured value.
    """
    valid = np.ones(pixels.shape[1:], dtype=np.bool_)
    if pixels.dtype.kind == "f":
        for band, value in zip(pixels, nodata, strict=True):
            valid &= np.isfinite(band)
            if value is not None:
                valid &= band != band.dtype.type(value)
        return valid
    told = [(band, value) for band, value in zip(pixels, nodata, strict=True) if value is not None]
    if told:
        valid[:] = False
        for band, value in told:
            valid |= band != band.dtype.type(value)
    return valid
