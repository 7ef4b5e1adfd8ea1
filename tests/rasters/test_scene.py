"""Scenes: which pixels hold data, against rasterio; what is refused, and how."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.vrt import WarpedVRT
from rasters import NORTH_UP, ROTATED, SOUTH_UP, write_raster

from geodinoseg.errors import SceneError
from geodinoseg.rasters.scene import open_scene
from geodinoseg.windows import Window

HEIGHT, WIDTH = 37, 53
EVERYTHING = Window(col_off=0, row_off=0, width=WIDTH, height=HEIGHT)
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


def pixels_of(dtype: str, bands: int = 3) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.integers(1, 100, (bands, HEIGHT, WIDTH)).astype(dtype)


def corner() -> np.ndarray:
    """True but for a corner that is not square."""
    mask = np.ones((HEIGHT, WIDTH), dtype=bool)
    mask[:11, :23] = False
    return mask


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
def test_pixels_and_place_are_those_of_the_file(tmp_path, dtype, transform):
    pixels = pixels_of(dtype)
    scene = open_scene(write_raster(tmp_path / "s.tif", pixels, transform=transform))
    read, valid = scene.read(EVERYTHING)
    assert_array_equal(read, pixels)
    assert read.dtype == scene.dtype == np.dtype(dtype)
    assert valid.all()
    assert scene.geobox.transform == transform
    assert scene.geobox.crs == rasterio.crs.CRS.from_epsg(32633)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nodata_is_missing_where_every_band_has_it(tmp_path, dtype):
    pixels = pixels_of(dtype)
    pixels[:, ~corner()] = 0
    pixels[0, 20, 20] = 0  # black in red alone
    scene = open_scene(write_raster(tmp_path / "s.tif", pixels, nodata=0))
    _, valid = scene.read(EVERYTHING)
    # 0 may be measured, in floating point too: an index of exactly 0, a dark band.
    assert_array_equal(valid, corner())
    assert scene.validity == ("nodata",)


def test_minus_9999_in_one_band_of_floating_point_is_missing(tmp_path):
    pixels = pixels_of("float32")
    pixels[:, ~corner()] = -9999
    pixels[0, 20, 20] = -9999
    _, valid = open_scene(write_raster(tmp_path / "s.tif", pixels, nodata=-9999)).read(EVERYTHING)
    expected = corner()
    expected[20, 20] = False
    assert_array_equal(valid, expected)


def test_a_pixel_is_valid_where_gdal_says_so_for_whole_numbers(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 3, (3, HEIGHT, WIDTH)).astype(np.uint8)
    path = write_raster(tmp_path / "s.tif", pixels, nodata=0)
    _, valid = open_scene(path).read(EVERYTHING)
    with rasterio.open(path) as dataset:
        assert_array_equal(valid, dataset.dataset_mask() > 0)


def test_a_stored_mask_counts(tmp_path):
    scene = open_scene(write_raster(tmp_path / "s.tif", pixels_of("uint8"), mask=corner()))
    _, valid = scene.read(EVERYTHING)
    assert_array_equal(valid, corner())
    assert scene.validity == ("mask",)


def test_alpha_is_no_band_but_says_what_is_missing(tmp_path):
    alpha = np.where(corner(), 255, 0).astype(np.uint8)
    scene = open_scene(write_raster(tmp_path / "s.tif", pixels_of("uint8"), alpha=alpha))
    _, valid = scene.read(EVERYTHING)
    assert scene.bands == (1, 2, 3)
    assert_array_equal(valid, corner())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("nodata", [None, np.nan, -9999.0])
def test_what_is_no_number_is_missing(tmp_path, value, nodata):
    pixels = pixels_of("float32")
    pixels[1, ~corner()] = value
    _, valid = open_scene(write_raster(tmp_path / "s.tif", pixels, nodata=nodata)).read(EVERYTHING)
    assert_array_equal(valid, corner())


def test_bands_come_in_the_order_asked_for(tmp_path):
    pixels = pixels_of("uint16", bands=5)
    scene = open_scene(write_raster(tmp_path / "s.tif", pixels), bands=(5, 1, 3))
    read, _ = scene.read(Window(col_off=4, row_off=9, width=7, height=2))
    assert_array_equal(read, pixels[[4, 0, 2], 9:11, 4:11])


def test_nodata_can_be_said_by_the_user(tmp_path):
    pixels = pixels_of("uint8")
    pixels[:, ~corner()] = 0
    _, valid = open_scene(write_raster(tmp_path / "s.tif", pixels), nodata=0).read(EVERYTHING)
    assert_array_equal(valid, corner())


def test_a_nodata_value_that_the_type_cannot_hold_is_none(tmp_path):
    path = tmp_path / "s.vrt"
    write_raster(tmp_path / "s.tif", pixels_of("uint8", bands=1))
    path.write_text(
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">'
        '<VRTRasterBand dataType="Byte" band="1"><NoDataValue>-9999</NoDataValue>'
        '<SimpleSource><SourceFilename relativeToVRT="1">s.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    _, valid = open_scene(path).read(EVERYTHING)
    assert valid.all()


def test_a_vrt_and_a_file_in_a_zip_are_scenes(tmp_path):
    import zipfile

    pixels = pixels_of("int16")
    path = write_raster(tmp_path / "s.tif", pixels)
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(path, "inner/s.tif")
    read, _ = open_scene(f"/vsizip/{tmp_path}/s.zip/inner/s.tif").read(EVERYTHING)
    assert_array_equal(read, pixels)


def test_a_scene_crosses_a_process_and_an_open_dataset_is_one(tmp_path):
    pixels = pixels_of("uint8")
    path = write_raster(tmp_path / "s.tif", pixels)
    with rasterio.open(path) as dataset:
        scene = open_scene(dataset)
    read, _ = pickle.loads(pickle.dumps(scene)).read(EVERYTHING)
    assert_array_equal(read, pixels)


def test_what_is_no_scene_is_refused_in_one_line(tmp_path):
    def refuse(path, text, **options):
        with pytest.raises(SceneError, match=text) as caught:
            open_scene(path, **options)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refuse(tmp_path / "absent.tif", "no such file")
    (tmp_path / "empty.tif").touch()
    refuse(tmp_path / "empty.tif", "empty")
    (tmp_path / "text.tif").write_text("no raster")
    refuse(tmp_path / "text.tif", "not a readable raster")
    refuse(tmp_path, "is a folder")
    fine = write_raster(tmp_path / "fine.tif", pixels_of("uint8"))
    refuse(fine, "band 4 was requested", bands=(1, 4))
    whole = fine.read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[:60])
    refuse(tmp_path / "cut.tif", "not a readable raster")
    complexes = np.ones((1, HEIGHT, WIDTH), dtype=np.complex64)
    refuse(write_raster(tmp_path / "c.tif", complexes), "complex")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_of_several_rasters_names_them(tmp_path):
    path = write_raster(tmp_path / "s.tif", pixels_of("uint8"))
    rasterio.shutil.copy(path, tmp_path / "s.nc", driver="netCDF")
    with pytest.raises(SceneError, match=r"s\.nc: holds \d rasters .*netcdf:.*Band1, .*-separate"):
        open_scene(tmp_path / "s.nc", allow_external=True)


@pytest.mark.parametrize("nodata", [np.inf, -np.inf, np.nan])
def test_a_value_that_is_no_number_marks_nothing_among_whole_ones(tmp_path, nodata):
    path = write_raster(tmp_path / "s.tif", pixels_of("uint8"))
    _, valid = open_scene(path, nodata=nodata).read(EVERYTHING)
    assert valid.all()


@pytest.mark.parametrize(
    "transform",
    [Affine(0, 0, 4e5, 0, 0, 5e6), Affine(1, 1, 0, 1, 1, 0), Affine(np.nan, 0, 0, 0, -1, 0)],
)
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", None])
def test_a_transform_that_gives_pixels_no_area_is_refused(tmp_path, transform, crs):
    path = write_raster(tmp_path / "s.tif", pixels_of("uint8"), transform=transform, crs=crs)
    with pytest.raises(SceneError, match=r"s\.tif: its geotransform .* gdal_edit"):
        open_scene(path)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_png_that_ends_early_is_refused_not_black(tmp_path, keep):
    pixels = np.random.default_rng(5).integers(0, 255, (3, HEIGHT, WIDTH)).astype(np.uint8)
    path = write_raster(tmp_path / "s.png", pixels, driver="PNG", crs=None, transform=None)
    whole = path.read_bytes()
    assert_array_equal(open_scene(path).read(EVERYTHING)[0], pixels)
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(SceneError, match=r"s\.png: rows .* cannot be read"):
        open_scene(path).read(EVERYTHING)


def test_what_has_no_path_is_refused(tmp_path):
    path = write_raster(tmp_path / "s.tif", pixels_of("uint8"))
    with rasterio.open(path) as dataset, WarpedVRT(dataset, crs="EPSG:3857") as view:
        for source in (view, dataset.read(), None):
            with pytest.raises(
                SceneError, match=r"^scene: expected a path, an open rasterio dataset"
            ):
                open_scene(source)


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    path = write_raster(tmp_path / "s.tif", pixels_of("uint8"))
    old = path.rename(os.fsdecode(os.fsencode(tmp_path) + b"/stra\xdfe.tif"))
    with pytest.raises(SceneError, match="not valid UTF-8"):
        open_scene(old)


def test_a_palette_is_refused_with_the_way_out(tmp_path):
    path = write_raster(tmp_path / "p.tif", pixels_of("uint8", bands=1), photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0)})
    with pytest.raises(SceneError, match="gdal_translate -expand rgb"):
        open_scene(path)


def test_a_block_that_cannot_be_read_names_file_and_rows(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (1, 256, 256)).astype(np.uint8)
    path = write_raster(
        tmp_path / "s.tif", pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate"
    )
    path.write_bytes(path.read_bytes()[:30_000])
    scene = open_scene(path)
    with pytest.raises(SceneError, match=r"s\.tif: rows 192 to 255 cannot be read"):
        scene.read(Window(col_off=0, row_off=192, width=256, height=64))


def test_a_nodata_value_asked_for_that_no_pixel_can_have_is_refused(tmp_path):
    path = write_raster(tmp_path / "s.tif", pixels_of("uint8"))
    for value in (-9999, 256, 0.5, 1e300):
        with pytest.raises(SceneError, match=r"s\.tif: pixels of type uint8 cannot be"):
            open_scene(path, nodata=value)
