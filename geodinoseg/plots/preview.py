"""Scenes and maps of any size as small pictures: colours at reduced resolution."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NodataShadowWarning
from rasterio.vrt import WarpedVRT

from geodinoseg.errors import SceneError, TransformationError
from geodinoseg.files.atomic import PathLike
from geodinoseg.geobox import GeoBox, same_grid
from geodinoseg.legend import Legend
from geodinoseg.rasters.class_raster import ClassRaster
from geodinoseg.rasters.dataset import open_reader
from geodinoseg.rasters.scene import Scene, open_scene, scene_path
from geodinoseg.transformations import find_transformation
from geodinoseg.windows import Window

# Of pixel values, drawn black and white. A few very bright or dark pixels would otherwise leave
# the rest grey.
_STRETCH_PERCENTILES = (2.0, 98.0)
_WHITE = 255
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def decimated(geobox: GeoBox, *, longest_px: int) -> GeoBox:
    """The same area in larger pixels: at most `longest_px` along the longer side."""
    factor = max(1.0, max(geobox.width, geobox.height) / longest_px)
    width = max(1, round(geobox.width / factor))
    height = max(1, round(geobox.height / factor))
    pixel = Affine.scale(geobox.width / width, geobox.height / height)
    return type(geobox)(
        crs=geobox.crs, transform=geobox.transform @ pixel, width=width, height=height
    )


def scene_colors(
    source: PathLike | Scene, raster: ClassRaster, small: GeoBox, *, bands: Sequence[int] | None
) -> NDArray[np.uint8]:
    """The colours of a scene in the area of a class raster.

    Args:
        source: the scene, as `open_scene` takes it.
        raster: the class raster.
        small: its area in the pixels to read.
        bands: one band, or red, green and blue; None = the bands with these colour
            interpretations, else the first three, else the first.

    Returns:
        (height, width, 3) uint8, white where the scene has no data. Bytes are shown unchanged,
        other types stretched between their 2nd and 98th percentile, each band separately.
    """
    path = scene_path(source)
    if bands and len(bands) not in {1, len(_RGB)}:
        raise SceneError(
            f"{path}: {len(bands)} bands cannot be drawn; give one, or red, green and blue."
        )
    scene = open_scene(source, bands=bands)
    with open_reader(scene.source) as reader:
        drawn = list(bands) if bands else _color_bands(reader.dataset, scene.bands)

        def read(dataset: rasterio.DatasetReader) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            with _on_grid_of(raster, scene, dataset, small) as view:
                return _read_small(view, drawn, small)

        pixels, valid = reader.read_with(_whole(scene.geobox), read)
    if not valid.any() and not same_grid(scene.geobox, raster.geobox):
        raise SceneError(
            f"{path}: has no data in the area of {raster.path}; give the scene that the map was "
            f"made from."
        )
    colors = np.full((small.height, small.width, 3), _WHITE, dtype=np.uint8)
    # One band fills all three channels, in grey.
    colors[valid] = np.stack([stretched(band[valid]) for band in pixels], axis=-1)
    return colors


def class_colors(
    class_ids: NDArray[Any], legend: Legend, *, nodata: int | None
) -> NDArray[np.uint8]:
    """(height, width, 4) uint8 RGBA of class ids; transparent where an id is not in the legend."""
    by_id = sorted(legend, key=lambda entry: entry.class_id)
    known = np.array([entry.class_id for entry in by_id], dtype=np.int64)
    table = np.array([(*entry.rgb, 255) for entry in by_id], dtype=np.uint8)
    position = np.searchsorted(known, class_ids).clip(max=len(known) - 1)
    colors: NDArray[np.uint8] = table[position]
    colors[known[position] != class_ids] = 0
    if nodata is not None:
        colors[class_ids == nodata] = 0
    return colors


def stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values of one band, (pixels,), as bytes: unchanged, or from the 2nd to 98th percentile."""
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8)
    low, high = np.percentile(values.astype(np.float64), _STRETCH_PERCENTILES)
    spread = (values.astype(np.float64) - low) / ((high - low) or 1.0)
    stretched: NDArray[np.uint8] = (spread.clip(0, 1) * 255).round().astype(np.uint8)
    return stretched


def _color_bands(dataset: rasterio.DatasetReader, bands: Sequence[int]) -> list[int]:
    named = dict(zip(dataset.colorinterp, dataset.indexes, strict=True))
    if all(color in named for color in _RGB):
        return [named[color] for color in _RGB]
    return list(bands[:3] if len(bands) >= len(_RGB) else bands[:1])


@contextmanager
def _on_grid_of(
    raster: ClassRaster, scene: Scene, dataset: rasterio.DatasetReader, small: GeoBox
) -> Iterator[rasterio.DatasetReader]:
    """The dataset itself if it has the raster's grid, else a view of it on the small grid."""
    if same_grid(scene.geobox, raster.geobox):
        yield dataset
        return
    if scene.geobox.crs is None or raster.geobox.crs is None:
        raise SceneError(
            f"{scene.path}: has another grid than {raster.path}, and without a CRS in both they "
            f"cannot be aligned; give the scene that the map was made from."
        )
    try:
        find_transformation(scene.geobox.crs, raster.geobox.crs)
    except TransformationError as error:
        raise SceneError(
            f"{scene.path}: {error}, that of {raster.path}; give the scene that the map was made "
            f"from."
        ) from error
    with WarpedVRT(
        dataset,
        crs=small.crs,
        transform=small.transform,
        width=small.width,
        height=small.height,
        resampling=Resampling.bilinear,
        add_alpha=scene.alpha_band is None,
    ) as view:
        yield view


def _read_small(
    source: rasterio.DatasetReader, bands: list[int], small: GeoBox
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels (bands, height, width) as the mean of what they cover, and which are valid."""
    shape = (small.height, small.width)
    with warnings.catch_warnings():
        # The file has nodata and alpha; either will do for a picture.
        warnings.simplefilter("ignore", NodataShadowWarning)
        pixels = source.read(bands, out_shape=(len(bands), *shape), resampling=Resampling.average)
        valid = source.dataset_mask(out_shape=shape) > 0
    return pixels, valid & np.isfinite(pixels).all(axis=0)


def _whole(geobox: GeoBox) -> Window:
    return Window(col_off=0, row_off=0, width=geobox.width, height=geobox.height)
