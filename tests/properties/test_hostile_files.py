"""Files are data: a local scene asks no server and opens nothing but plain rasters."""

from __future__ import annotations

import resource
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner
from hostile_sources import (
    HEIGHT,
    PIXELS,
    REACHING,
    WIDTH,
    plain,
    source,
    text,
    vrt,
)
from numpy.testing import assert_array_equal
from range_server import range_server
from rasterio.vrt import WarpedVRT
from rasters import NORTH_UP, ROTATED, write_raster

from geodinoseg.cli import main
from geodinoseg.errors import SceneError
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.rasters.scene import open_scene
from geodinoseg.windows import Window


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with range_server(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def listening(server):
    """The server; what it heard during the test must be nothing."""
    server.requests()
    yield server
    assert server.requests() == []


def spilled(folder, url):
    """An Imagine file that takes its pixels from wherever it likes."""
    path = write_raster(folder / "big.img", PIXELS, driver="HFA", USE_SPILL="YES")
    (folder / "a").mkdir()
    (folder / "big.ige").rename(folder / "a" / "b.ige")
    content = path.read_bytes()
    assert b"big.ige" in content
    path.write_bytes(content.replace(b"big.ige", b"a/b.ige"))
    return path


@pytest.mark.parametrize("kind", REACHING)
def test_a_local_scene_that_reaches_further_is_refused_and_asks_nobody(
    kind, listening, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = REACHING[kind](tmp_path, listening.root)
    with pytest.raises(SceneError) as caught:
        open_scene(path)
    message = str(caught.value)
    assert message.startswith(f"{str(path).partition('?')[0]}: ")
    assert "--allow-external" in message or kind in {"a driver's prefix", "a VRT by its prefix"}
    assert "\n" not in message
    assert not (tmp_path / "ran").exists()


def test_pixels_of_a_file_elsewhere_are_not_read_through_an_imagine_file(tmp_path):
    path = spilled(tmp_path, "")
    with pytest.raises(SceneError):
        open_scene(path)


PLAIN = {
    "GTiff": ("a.tif", {}),
    "PNG": ("a.png", {}),
    "JPEG": ("a.jpg", {"quality": 100}),
    "JP2OpenJPEG": ("a.jp2", {"QUALITY": 100, "REVERSIBLE": "YES"}),
    "BMP": ("a.bmp", {}),
    "HFA": ("a.img", {}),
    "ENVI": ("a.dat", {}),
    "EHdr": ("a.bil", {}),
}


def copied(folder, driver):
    name, options = PLAIN[driver]
    rasterio.shutil.copy(plain(folder), folder / name, driver=driver, **options)
    return folder / name


def everything(path, **options):
    scene = open_scene(path, **options)
    return scene.read(Window(col_off=0, row_off=0, width=scene.width, height=scene.height))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("driver", PLAIN)
def test_plain_rasters_are_read_whatever_their_name(driver, tmp_path):
    path = copied(tmp_path, driver)
    if driver not in {"ENVI", "EHdr"}:  # their headers are found by name
        path = path.rename(tmp_path / "renamed.dat")
    with rasterio.open(path) as dataset:
        expected = dataset.read()
    assert_array_equal(everything(path)[0], expected)


@pytest.mark.parametrize("driver", ["ENVI", "EHdr"])
def test_the_header_of_another_file_does_not_make_pixels_of_a_geopackage(driver, tmp_path):
    path = copied(tmp_path, driver)
    other = path.with_suffix(".gpkg")
    rasterio.shutil.copy(plain(tmp_path), other, driver="GPKG")
    with pytest.raises(SceneError, match=r"a\.gpkg: is not a plain raster, although a \.hdr"):
        open_scene(other)
    assert_array_equal(everything(other, allow_external=True)[0].shape[1:], (HEIGHT, WIDTH))


def test_a_mosaic_of_local_rasters_is_read_without_being_asked(listening, tmp_path):
    (tmp_path / "tiles").mkdir()
    plain(tmp_path / "tiles", "one.tif")
    other = plain(tmp_path, "two.tif")
    text(tmp_path, "inner.vrt", vrt(source("tiles/one.tif") + source(str(other), relative=0)))
    path = text(
        tmp_path,
        "outer.vrt",
        '<?xml version="1.0" encoding="UTF-8"?><!-- made by hand -->' + vrt(source("inner.vrt")),
    )
    pixels, valid = everything(path)
    assert_array_equal(pixels[0], PIXELS[0])
    assert valid.all()


def test_a_warped_view_that_was_saved_is_read_without_being_asked(listening, tmp_path):
    with rasterio.open(plain(tmp_path)) as dataset, WarpedVRT(dataset, crs="EPSG:3857") as view:
        expected = view.read()
        rasterio.shutil.copy(view, tmp_path / "warped.vrt", driver="VRT")
    assert_array_equal(everything(tmp_path / "warped.vrt")[0], expected)


def test_a_vrt_that_gdal_writes_of_a_whole_raster_is_read_without_being_asked(tmp_path):
    mask = np.ones((HEIGHT, WIDTH), bool)
    mask[:9, :4] = False
    path = plain(tmp_path, "masked.tif", mask=mask, compress="deflate")
    rasterio.shutil.copy(path, tmp_path / "copy.vrt", driver="VRT")
    pixels, valid = everything(tmp_path / "copy.vrt")
    assert_array_equal(pixels, PIXELS)
    assert_array_equal(valid, mask)


def test_what_lies_beside_a_raster_is_still_read(tmp_path):
    path = plain(tmp_path)
    with rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False):
        with rasterio.open(path, "r+") as dataset:
            mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
            mask[5:, 50:] = 0
            dataset.write_mask(mask)
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4])
    assert (tmp_path / "plain.tif.ovr").is_file()
    assert (tmp_path / "plain.tif.msk").is_file()
    text(
        tmp_path,
        "plain.tif.aux.xml",
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>',
    )
    assert_array_equal(everything(path)[1], mask > 0)
    assert open_scene(path, bands=[1]).nodata == (0.0,)


def test_a_raster_in_an_archive_is_read_but_not_what_lies_beside_it(listening, tmp_path):
    path = plain(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "plain.tif")
        archive.writestr(
            "plain.tif.ovr", vrt(source(f"/vsicurl/{listening.root}/o.tif", relative=0))
        )
        archive.writestr("a.vrt", vrt(source("plain.tif")))
    inside = f"/vsizip/{tmp_path}/a.zip/plain.tif"
    assert_array_equal(everything(inside)[0], PIXELS)
    with pytest.raises(SceneError, match="--allow-external"):
        open_scene(f"/vsizip/{tmp_path}/a.zip/a.vrt")


def test_a_source_that_is_missing_is_named(tmp_path):
    path = text(tmp_path, "a.vrt", vrt(source("absent.tif")))
    with pytest.raises(SceneError, match=r"absent\.tif, which does not exist"):
        open_scene(path)


def test_a_file_that_is_trusted_may_reach_further(tmp_path):
    path = REACHING["a pixel function"](tmp_path, "")
    assert_array_equal(everything(path, allow_external=True)[0], PIXELS[:1])
    scene = open_scene(open_scene(path, allow_external=True), bands=[1])
    assert scene.source.trusted


def test_the_commands_refuse_such_a_file_and_take_it_with_the_option(tmp_path):
    path = str(REACHING["a pixel function"](tmp_path, ""))
    refused = CliRunner().invoke(main, ["info", path])
    assert refused.exit_code == 1
    assert refused.stderr.splitlines() == [
        f"Error: {path}: is a VRT with a VRTDerivedRasterBand; "
        "such a file can access network addresses or read other files. Give a plain raster, or "
        "--allow-external if you trust it."
    ]
    taken = CliRunner().invoke(main, ["info", path, "--allow-external"])
    assert taken.exit_code == 0, taken.stderr
    for command in ("segment", "train", "picture", "polygonize", "evaluate", "sample"):
        help_text = CliRunner().invoke(main, [command, "--help"]).output
        assert "--allow-external" in help_text


MAP_COMMANDS = {
    "polygonize": lambda folder: ["-o", folder / "map.gpkg"],
    "sample": lambda folder: [
        "-o",
        folder / "points.gpkg",
        "--points",
        "60",
        "--min-per-class",
        "10",
    ],
    "evaluate": lambda folder: ["--labels", folder / "labels.tif"],
    "picture": lambda folder: ["-o", folder / "picture.png"],
}


def pixel_function(folder, *, name="a.vrt"):
    """A map that is computed as it is read."""
    write_raster(folder / "labels.tif", PIXELS[:1] % 3, transform=NORTH_UP)
    return text(
        folder,
        name,
        vrt(
            '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
            f"<PixelFunctionType>real</PixelFunctionType>{source('labels.tif')}</VRTRasterBand>",
            bands=True,
        ).replace("0, 1, 0, 0, 0, -1", ", ".join(map(str, NORTH_UP.to_gdal()))),
    )


@pytest.mark.parametrize("command", MAP_COMMANDS)
def test_a_map_obeys_the_rules_of_scenes(command, listening, tmp_path):
    path = pixel_function(tmp_path)
    scene = [tmp_path / "labels.tif"] if command == "picture" else []
    words = [str(word) for word in [command, *scene, path, *MAP_COMMANDS[command](tmp_path)]]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: {path}: is a VRT with a VRTDerivedRasterBand; ")
    assert refused.stderr.count("\n") == 1
    taken = CliRunner().invoke(main, [*words, "--allow-external"])
    assert taken.exit_code == 0, taken.stderr


def test_a_report_with_pictures_of_a_map_that_is_trusted_is_written(tmp_path):
    path, report = str(pixel_function(tmp_path)), tmp_path / "report.html"
    words = ["evaluate", path, "--labels", str(tmp_path / "labels.tif"), "-o", str(report)]
    taken = CliRunner().invoke(main, [*words, "--allow-external"])
    assert taken.exit_code == 0, taken.stderr
    assert "a.vrt" in report.read_text("utf-8")


@pytest.mark.parametrize("kind", list(REACHING)[:12])
def test_a_map_that_reaches_further_asks_nobody(kind, listening, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SceneError):
        open_class_raster(REACHING[kind](tmp_path, listening.root))


@pytest.mark.parametrize("legend", ["[" * 100_000, '{"a": 1}', "]", "[1, 2]"])
def test_a_legend_in_a_header_that_is_none_is_one_line(legend, tmp_path):
    path = write_raster(tmp_path / "map.tif", PIXELS[:1] % 3)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(GEODINOSEG_LEGEND=legend)
    with pytest.raises(SceneError, match="is not a legend"):
        open_class_raster(path)


def test_names_beside_a_map_that_declare_entities_are_left_out(tmp_path):
    path = write_raster(tmp_path / "map.tif", PIXELS[:1] % 3)
    names = (
        '<PAMDataset><PAMRasterBand band="1"><CategoryNames><Category>{}</Category>'
        "<Category>b</Category></CategoryNames></PAMRasterBand></PAMDataset>"
    )
    text(tmp_path, "map.tif.aux.xml", names.format("a"))
    assert open_class_raster(path).legend.names[:2] == ("a", "b")
    entity = '<!DOCTYPE a [<!ENTITY e "c">]>' + names.format("&e;")
    text(tmp_path, "map.tif.aux.xml", entity)
    assert open_class_raster(path).legend.names[:2] == ("class 0", "class 1")


def sparse(path, **profile):
    options = {
        "driver": "GTiff",
        "width": 64,
        "height": 64,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:32633",
        "transform": ROTATED,
        "SPARSE_OK": True,
    } | profile
    with rasterio.open(path, "w", **options):
        pass
    return path


BOMBS = {
    "rows": {
        "width": 1 << 10,
        "height": 1 << 30,
        "blockysize": 1 << 16,
        "compress": "deflate",
        "BIGTIFF": "YES",
    },
    "columns": {"width": (1 << 24) + 1, "height": 40},
    "bands": {"count": 20_000, "interleave": "band"},
    "a block": {
        "width": 40_000,
        "height": 40_000,
        "tiled": True,
        "blockxsize": 40_000,
        "blockysize": 40_000,
        "compress": "deflate",
    },
    "a block of many bands": {
        "width": 8_000,
        "height": 8_000,
        "count": 20,
        "tiled": True,
        "blockxsize": 8_000,
        "blockysize": 8_000,
        "interleave": "pixel",
        "compress": "deflate",
    },
}


@pytest.mark.parametrize("kind", BOMBS)
def test_sizes_that_are_made_up_are_refused_before_memory_is_taken(kind, tmp_path):
    path = sparse(tmp_path / "bomb.tif", **BOMBS[kind])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SceneError) as caught:
        open_scene(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_large_sparse_scene_is_no_bomb(tmp_path):
    path = sparse(
        tmp_path / "wide.tif",
        width=200_000,
        height=200_000,
        tiled=True,
        blockxsize=512,
        blockysize=512,
        BIGTIFF="YES",
    )
    scene = open_scene(path)
    pixels, _ = scene.read(Window(col_off=199_900, row_off=199_900, width=100, height=100))
    assert not pixels.any()


def test_the_version_names_the_gdal_that_is_carried():
    result = subprocess.run(
        [sys.executable, "-m", "geodinoseg", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GDAL {rasterio.__gdal_version__}" in result.stdout
