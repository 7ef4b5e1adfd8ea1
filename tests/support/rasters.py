"""Rasters for tests: any size, type, transform, and any way to say that pixels are missing."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from geodinoseg.legend import Legend

ROTATED = Affine.translation(4e5, 5e6) @ Affine.rotation(17) @ Affine.scale(0.7, -0.5)
SOUTH_UP = Affine(0.5, 0, 4e5, 0, 0.5, 5e6)
NORTH_UP = Affine(0.5, 0, 4e5, 0, -0.5, 5e6)


def write_raster(
    path: Path,
    pixels: np.ndarray,
    *,
    transform: Affine | None = ROTATED,
    crs: str | None = "EPSG:32633",
    nodata: float | None = None,
    mask: np.ndarray | None = None,
    alpha: np.ndarray | None = None,
    **profile: object,
) -> Path:
    """A GeoTIFF of pixels (bands, height, width); mask and alpha are (height, width)."""
    bands = pixels if alpha is None else np.concatenate([pixels, alpha[None].astype(pixels.dtype)])
    options = {
        "driver": "GTiff",
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
        "crs": crs,
        "transform": transform,
        "nodata": nodata,
    } | profile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", **options) as dataset,
        ):
            if alpha is not None:  # before the pixels: the tag is not rewritten
                dataset.colorinterp = [*dataset.colorinterp[:-1], rasterio.enums.ColorInterp.alpha]
            dataset.write(bands)
            if mask is not None:
                dataset.write_mask(mask.astype(np.uint8) * 255)
    return path


def parts_folder(output: Path) -> Path:
    """Where the parts of an output lie."""
    return output.with_name(f"{output.name}.parts")


def read_raster(path: Path, band: int = 1) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            return dataset.read(band)


class FixedModel:
    """A TileModel without a network; subclasses say what they answer."""

    bands = (1,)
    device = torch.device("cpu")
    tile_multiple = 1

    def __init__(self, classes: int = 4, tile_px: int = 32) -> None:
        self.legend = Legend.of_names({i: f"class {i}" for i in range(classes)})
        self.tile_px = tile_px
        self.tiles_seen = 0

    def probabilities(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        assert pixels.shape[1] == len(self.bands)
        assert valid.dtype == torch.bool
        assert valid.flatten(1).any(dim=1).all(), "a tile without data must not reach the model"
        self.tiles_seen += len(pixels)
        return self.answer(pixels, valid)

    def answer(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class IdentityModel(FixedModel):
    """Says of each pixel the class that its value names."""

    def answer(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        classes = len(self.legend)
        channels = pixels[:, 0].to(torch.float32).nan_to_num().clamp(0, classes - 1).long()
        return torch.nn.functional.one_hot(channels, classes).movedim(-1, 1).float()


class ConstantModel(FixedModel):
    """Says the same of every pixel."""

    def __init__(self, probabilities: tuple[float, ...], tile_px: int = 32) -> None:
        super().__init__(len(probabilities), tile_px)
        self._probabilities = torch.tensor(probabilities)

    def answer(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        shape = (len(pixels), len(self.legend), *pixels.shape[-2:])
        return self._probabilities[:, None, None].expand(shape)


class SmoothModel(FixedModel):
    """Soft probabilities that depend on the place in the tile: blending has something to do."""

    def answer(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        side = pixels.shape[-1]
        ramp = torch.linspace(0, 1, side)
        place = ramp[:, None] * 0.5 + ramp[None, :] * 0.25
        grey = pixels[:, :1].to(torch.float32).nan_to_num() / 64
        channels = torch.arange(len(self.legend), dtype=torch.float32)[:, None, None]
        return torch.softmax(-((grey + place - channels) ** 2), dim=1)
