"""A scene that GDAL resampled beforehand gives nearly the map of the scene as it is."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.warp import Resampling, reproject
from rasters import read_raster, write_raster
from scipy.ndimage import gaussian_filter
from trainings import write_backbone

from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.training.settings import TrainingSettings
from geodinoseg.training.train import train_model

pytestmark = pytest.mark.slow  # it trains a model that tells textures apart

FINE_M = 0.25
"""Pixels in which land is drawn; the model is trained at four of them, 1 m."""
NORTH_UP = Affine(FINE_M, 0, 4e5, 0, -FINE_M, 5e6)


def land(height_m, width_m, *, seed):
    """Classes and pixels of land that differs in nothing but how coarse its texture is."""
    rng = np.random.default_rng(seed)
    shape = (round(height_m / FINE_M), round(width_m / FINE_M))

    def noise(length_m):
        drawn = gaussian_filter(rng.normal(size=shape), length_m / FINE_M)
        return drawn / drawn.std()

    channels = (noise(25) > 0).astype(np.uint8)
    grey = 120 + 45 * np.where(channels, noise(4), noise(0.6))
    pixels = np.stack([grey, grey + 5, grey - 5]).clip(1, 255).astype(np.float32)
    return channels, pixels


def resampled(pixels, source, target, shape, how):
    """GDAL's own resampling: (bands, height, width) uint8."""
    found = np.zeros((len(pixels), *shape), dtype=np.float32)
    reproject(
        pixels,
        found,
        src_transform=source,
        dst_transform=target,
        src_crs="EPSG:32633",
        dst_crs="EPSG:32633",
        resampling=how,
    )
    return found.round().clip(0, 255).astype(np.uint8)


def taken_at(pixels, size_m):
    """The scene that a sensor of another resolution takes, and its transform."""
    factor = size_m / FINE_M
    shape = (int(pixels.shape[1] / factor), int(pixels.shape[2] / factor))
    transform = NORTH_UP @ Affine.scale(factor)
    return resampled(pixels, NORTH_UP, transform, shape, Resampling.average), transform


@pytest.fixture(scope="module", params=["linear", "fused"])
def texture_model(request, tmp_path_factory):
    """A model of 1 m that tells textures apart, and so is wrong at any other scale."""
    folder = tmp_path_factory.mktemp("texture")
    channels, pixels = land(300, 320, seed=0)
    scene, transform = taken_at(pixels, 1.0)
    labels = channels[2::4, 2::4] + 1
    return train_model(
        write_raster(folder / "scene.tif", scene, transform=transform),
        write_raster(folder / "labels.tif", labels[None], transform=transform),
        folder / "texture.model",
        network={
            "backbone": write_backbone(folder / "backbone"),
            "quantize": False,
            f"{request.param}_head": True,
        },
        settings=TrainingSettings(
            stage="full",
            epochs=1,
            steps_per_epoch=75,
            batch_size=4,
            crop_px=56,
            learning_rate=3e-3,
            backbone_learning_rate=1e-3,
        ),
        device="cpu",
    )


@pytest.mark.parametrize(
    ("size_m", "tile", "tile_at_1_m", "how"),
    [
        (0.25, (224, 80), (56, 20), Resampling.average),
        (0.5, (112, 42), (56, 21), Resampling.average),
        (2.0, (28, 10), (56, 20), Resampling.bilinear),
    ],
)
def test_resampled_beforehand_or_on_the_way_the_map_is_nearly_the_same(
    size_m, tile, tile_at_1_m, how, texture_model, tmp_path
):
    channels, pixels = land(160, 182, seed=5)
    scene, transform = taken_at(pixels, size_m)
    at_1_m = NORTH_UP @ Affine.scale(4)
    before = resampled(scene.astype(np.float32), transform, at_1_m, (160, 182), how)

    def mapped(name, pixels, transform, **choices):
        """A map, on the grid of 1 m."""
        raster = write_raster(tmp_path / f"{name}.tif", pixels, transform=transform)
        out = tmp_path / f"{name}_map.tif"
        segment_scene(raster, texture_model, out, settings=SegmentationSettings(**choices))
        classes = read_raster(out).astype(np.float32)[None]
        return resampled(classes, transform, at_1_m, (160, 182), Resampling.nearest)[0]

    tile_px, overlap_px = tile
    beforehand = mapped("before", before, at_1_m, tile_px=tile_at_1_m[0], overlap_px=tile_at_1_m[1])
    on_the_way = mapped("as_it_is", scene, transform, tile_px=tile_px, overlap_px=overlap_px)
    taken_for_1_m = mapped("unaware", scene, transform, resolution_m=1.0)
    assert (beforehand == channels[2::4, 2::4] + 1).mean() > 0.75, "the model knows something"
    assert (on_the_way == beforehand).mean() > 0.97
    if "fused_head" not in texture_model.network.settings:
        assert (taken_for_1_m == beforehand).mean() < 0.88, "and it would be wrong without"
