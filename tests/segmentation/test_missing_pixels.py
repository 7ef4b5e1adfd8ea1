"""Alpha: it marks missing pixels unless its band is named, and what is left out is logged."""

from __future__ import annotations

import logging
import math
import re

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal
from rasters import IdentityModel, read_raster, write_raster

from geodinoseg.errors import SceneError
from geodinoseg.rasters.scene import open_scene
from geodinoseg.segmentation.missing_pixels import report_missing_pixels
from geodinoseg.segmentation.segment import plan_segmentation, segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings


class FourBandModel(IdentityModel):
    """The class of a pixel is the value of its first band."""

    bands = (1, 2, 3, 4)


@pytest.fixture
def transparent(tmp_path):
    """A scene (60, 80) of classes 0 to 3 whose left 20 columns are transparent."""
    rng = np.random.default_rng(0)
    alpha = np.full((60, 80), 255, np.uint8)
    alpha[:, :20] = 0
    pixels = rng.integers(0, 4, (3, 60, 80)).astype(np.uint8)
    return write_raster(tmp_path / "rgba.tif", pixels, alpha=alpha), pixels, alpha


def test_alpha_is_never_a_band_of_the_model_unless_it_is_named(transparent, tmp_path):
    path, pixels, _ = transparent
    for run in (plan_segmentation, segment_scene):
        with pytest.raises(SceneError, match=r"band 4 is alpha.*give --bands 1,2,3,4"):
            run(path, FourBandModel(), tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()
    named = SegmentationSettings(bands=(1, 2, 3, 4))
    segment_scene(path, FourBandModel(), tmp_path / "named.tif", settings=named)
    assert_array_equal(read_raster(tmp_path / "named.tif"), pixels[0])
    scene = open_scene(path, bands=(1, 2, 3, 4))
    segment_scene(scene, FourBandModel(), tmp_path / "opened.tif")
    assert_array_equal(read_raster(tmp_path / "opened.tif"), pixels[0])


def test_alpha_that_is_left_out_masks_and_is_logged(transparent, tmp_path, caplog):
    path, pixels, alpha = transparent
    with caplog.at_level(logging.INFO, "geodinoseg"):
        segment_scene(path, IdentityModel(), tmp_path / "map.tif")
    assert_array_equal(read_raster(tmp_path / "map.tif"), np.where(alpha, pixels[0], 255))
    lines = [r for r in caplog.records if "is alpha: " in r.getMessage()]
    assert [line.levelname for line in lines] == ["INFO"]
    assert "band 4 is alpha: it marks missing pixels and is left out" in lines[0].getMessage()
    assert "alpha in band 4" in str(plan_segmentation(path, IdentityModel(), tmp_path / "m.tif"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_band_marked_as_alpha_that_varies_is_warned_of(dtype, tmp_path, caplog):
    rng = np.random.default_rng(0)
    largest = 1 if dtype is np.float32 else np.iinfo(dtype).max
    infrared = rng.normal(0.5, 0.1, (200, 150)).clip(0, 1) * largest
    pixels = (rng.random((3, 200, 150)) * largest).astype(dtype)
    path = write_raster(tmp_path / "s.tif", pixels, alpha=infrared)
    report_missing_pixels([open_scene(path)], bands_chosen=False)
    assert "varies like a measured band" in caplog.text
    assert "--bands" in caplog.text
    caplog.clear()
    report_missing_pixels([open_scene(path, bands=(4, 1, 2))], bands_chosen=True)
    feathered = np.full((200, 150), largest, dtype)
    feathered[:, :20], feathered[:, 20:23] = 0, largest / 2
    path = write_raster(tmp_path / "f.tif", pixels, alpha=feathered)
    report_missing_pixels([open_scene(path)], bands_chosen=False)
    assert not caplog.records


class ThreeBandModel(IdentityModel):
    bands = (1, 2, 3)


@pytest.mark.parametrize(
    ("fourth", "model", "words"),
    [
        ("mask", ThreeBandModel(), "holds only 0 and 255, like alpha.* where it is 0 count as"),
        ("mask", FourBandModel(), "holds only 0 and 255, like alpha.* is read as a measured band"),
        ("opaque", FourBandModel(), "holds only 255, like alpha.* is read as a measured band"),
        ("opaque", ThreeBandModel(), None),
        ("infrared", ThreeBandModel(), None),
        ("infrared", FourBandModel(), None),
    ],
)
def test_a_last_band_that_looks_like_alpha_is_warned_of(fourth, model, words, tmp_path, caplog):
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 4, (4, 200, 150)).astype(np.uint8)
    if fourth != "infrared":
        pixels[3] = 255
    if fourth == "mask":
        pixels[3, :, :20] = 0
    scene = write_raster(tmp_path / "s.tif", pixels, photometric="MINISBLACK")
    segment_scene(scene, model, tmp_path / "map.tif")
    found = [r.getMessage() for r in caplog.records if "like alpha" in r.getMessage()]
    assert len(found) == (words is not None)
    if words:
        assert re.search(f"s.tif: band 4 {words}", found[0])
        assert "-colorinterp_4 alpha" in found[0]
        assert "--bands 1,2,3" in found[0]
    caplog.clear()
    choices = SegmentationSettings(bands=model.bands)
    segment_scene(scene, model, tmp_path / "named.tif", settings=choices)
    assert "like alpha" not in caplog.text


@pytest.mark.parametrize(("nodata", "warned"), [(math.nan, True), (math.inf, True), (0, False)])
def test_a_nodata_value_that_integers_cannot_have_is_warned_of(nodata, warned, tmp_path, caplog):
    path = write_raster(tmp_path / "s.tif", np.ones((3, 40, 30), np.uint8), nodata=1)
    report_missing_pixels([open_scene(path, nodata=nodata)], bands_chosen=False)
    assert ("marks no missing pixels, and that of the file counts no more" in caplog.text) is warned
    caplog.clear()
    floats = write_raster(tmp_path / "f.tif", np.ones((3, 40, 30), np.float32), nodata=1)
    report_missing_pixels([open_scene(floats, nodata=nodata)], bands_chosen=False)
    assert not caplog.text


def test_a_nodata_value_of_the_caller_survives_another_choice_of_bands(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4, (3, 40, 30)).astype(np.uint8)
    path = write_raster(tmp_path / "s.tif", pixels, nodata=9)
    scene = open_scene(path, bands=(1, 2, 3), nodata=2)
    assert open_scene(scene, bands=(2,)).nodata == (2,)
    segment_scene(scene, IdentityModel(), tmp_path / "map.tif")
    expected = np.where(pixels[0] == 2, 255, pixels[0])
    assert_array_equal(read_raster(tmp_path / "map.tif"), expected)


def test_a_vrt_that_lost_the_nodata_value_of_its_sources_is_warned_of(tmp_path, caplog):
    pixels = np.full((1, 60, 80), 7, np.uint8)
    for name in "abc":
        transform = rasterio.Affine(1, 0, 80 * "abc".index(name), 0, -1, 0)
        nodata = 7 if name == "b" else None
        write_raster(tmp_path / f"{name}.tif", pixels, transform=transform, nodata=nodata)
    sources = "".join(
        f"<SimpleSource><SourceFilename relativeToVRT='1'>{name}.tif</SourceFilename>"
        f"<SourceBand>1</SourceBand><SrcRect xOff='0' yOff='0' xSize='80' ySize='60'/>"
        f"<DstRect xOff='{80 * index}' yOff='0' xSize='80' ySize='60'/></SimpleSource>"
        for index, name in enumerate("abc")
    )
    for nodata in ("", "<NoDataValue>7</NoDataValue>"):
        (tmp_path / "mosaic.vrt").write_text(
            f"<VRTDataset rasterXSize='240' rasterYSize='60'>"
            f"<GeoTransform>0,1,0,0,0,-1</GeoTransform>"
            f"<VRTRasterBand dataType='Byte' band='1'>{nodata}{sources}</VRTRasterBand></VRTDataset>"
        )
        caplog.clear()
        report_missing_pixels([open_scene(tmp_path / "mosaic.vrt")], bands_chosen=False)
        assert ("b.tif marks missing pixels with nodata 7" in caplog.text) == (not nodata)
    (tmp_path / "mosaic.vrt").write_text((tmp_path / "mosaic.vrt").read_text().replace(nodata, ""))
    segment_scene(tmp_path / "mosaic.vrt", IdentityModel(9), tmp_path / "map.tif")
    assert "b.tif marks missing pixels" in caplog.text
