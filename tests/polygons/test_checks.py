"""What polygons cannot be written to is refused before the work: coordinate systems, files beside."""

from __future__ import annotations

import logging
from dataclasses import replace

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio.crs
from affine import Affine
from coverages import blobs, write_class_raster
from pyproj.exceptions import ProjError
from rasters import NORTH_UP

from geodinoseg.errors import OutputError, OutputExistsError
from geodinoseg.polygons.polygonize import write_polygons
from geodinoseg.rasters.class_raster import open_class_raster

SITE_GRID = (
    'ENGCRS["site grid",EDATUM["unknown"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
    'LENGTHUNIT["metre",1]]'
)
ROTATED_POLE = (
    "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 "
    "+to_meter=0.0174532925199433"
)
SHIFTED = "+proj=utm +zone=33 +ellps=intl +towgs84=-87,-98,-121,0,0,0,0 +units=m"
CRSS = [
    "EPSG:32633",
    "EPSG:4326",
    "EPSG:3857",
    "EPSG:2056",
    "EPSG:27700",
    "EPSG:5514",
    "EPSG:2263",
    "EPSG:4807",
    "EPSG:4979",
    "EPSG:9518",
    "EPSG:32633+5773",
    "ESRI:54009",
    "ESRI:102008",
    "IAU_2015:49900",
    "IAU_2015:49910",
    "+proj=eqearth +lon_0=85 +datum=WGS84",
    "+proj=sinu +R=6371007.181",
    "+proj=omerc +lat_0=4 +lonc=115 +alpha=53 +k=0.99984 +gamma=53 +ellps=evrstSS",
    "+proj=geos +h=35785831 +lon_0=0 +sweep=y",
    "+proj=utm +zone=33 +ellps=GRS80 +towgs84=0,0,0,0,0,0,0",
    "+proj=tmerc +lat_0=0 +lon_0=9 +k=0.9996 +datum=WGS84 +units=km",
    SITE_GRID,
    'LOCAL_CS["site grid",UNIT["US survey foot",0.304800609601219]]',
    ROTATED_POLE,
    SHIFTED,
]
NOT_IN_SHAPEFILES = {ROTATED_POLE, SHIFTED}
UNUSUAL = CRSS[-11:]
CASES = [
    *((crs, ".shp") for crs in CRSS),
    *((crs, suffix) for crs in UNUSUAL for suffix in (".gpkg", ".fgb", ".parquet")),
]


def raster_in(tmp_path, crs, transform=None):
    """A class raster with a CRS that need not fit in a GeoTIFF."""
    crs = rasterio.crs.CRS.from_user_input(crs)
    degrees = Affine(1e-3, 0, 10, 0, -1e-3, 45)
    transform = transform or (degrees if crs.is_geographic else NORTH_UP)
    raster = open_class_raster(
        write_class_raster(tmp_path / "map.tif", blobs(20, 31), transform=transform)
    )
    return replace(raster, geobox=replace(raster.geobox, crs=crs))


def crs_in(path):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path).crs
    return pyproj.CRS.from_user_input(pyogrio.read_info(path, layer=path.stem)["crs"])


def on_earth(crs, x, y):
    """Longitude and latitude, or None where there is no way to them."""
    try:
        to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    except ProjError:
        return None
    return to_degrees.transform(x, y)


def plain(name):
    """A name without what a Shapefile changes in it."""
    return "".join(filter(str.isalnum, name.removeprefix("GCS_")))


@pytest.mark.parametrize(("crs", "suffix"), CASES)
def test_a_format_keeps_the_place_on_the_earth_or_is_refused_before_the_work(tmp_path, crs, suffix):
    raster = raster_in(tmp_path, crs)
    path = tmp_path / f"polygons{suffix}"
    if suffix == ".shp" and crs in NOT_IN_SHAPEFILES:
        with pytest.raises(
            OutputError, match=r"polygons.shp: a .shp file cannot store the raster's"
        ):
            write_polygons(raster, path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["map.tif"]
        return
    found = crs_in(write_polygons(raster, path))
    corner = raster.geobox.transform @ (3, 4)
    expected = on_earth(pyproj.CRS.from_user_input(raster.geobox.crs), *corner)
    if expected is None:
        given = pyproj.CRS.from_user_input(raster.geobox.crs)
        assert plain(found.name) == plain(given.name)
        assert found.axis_info[0].unit_conversion_factor == pytest.approx(
            given.axis_info[0].unit_conversion_factor
        )
    else:
        np.testing.assert_allclose(on_earth(found, *corner), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("crs", "why"),
    [
        (SITE_GRID, "no transformation exists from the CRS 'site grid' to 'WGS 84'"),
        ("IAU_2015:49900", r"no transformation exists from the CRS 'Mars \(2015\)"),
        ("IAU_2015:49910", r"no transformation exists from the CRS 'Mars \(2015\)"),
        ("+proj=longlat +R=1737400", "no transformation exists from the CRS"),
    ],
)
def test_geojson_of_what_is_not_on_the_earth_is_refused_before_the_work(tmp_path, crs, why):
    raster = raster_in(tmp_path, crs)
    with pytest.raises(OutputError, match=rf"p.geojson: .* and {why}.* write a .gpkg") as caught:
        write_polygons(raster, tmp_path / "p.geojson")
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.tif"]


def test_geojson_of_places_beyond_the_projection_is_refused_before_the_work(tmp_path, caplog):
    beyond = Affine(1000, 0, 3e7, 0, -1000, 3e7)
    raster = raster_in(tmp_path, "+proj=ortho +lat_0=40 +lon_0=10 +datum=WGS84", beyond)
    with pytest.raises(OutputError, match=r"p.geojson: .* which no part of the raster has"):
        write_polygons(raster, tmp_path / "p.geojson")
    at_the_limb = Affine(20000, 0, 6_200_000, 0, -20000, 1e5)
    raster = raster_in(tmp_path, "+proj=ortho +lat_0=40 +lon_0=10 +datum=WGS84", at_the_limb)
    with caplog.at_level(logging.WARNING), pytest.raises(Exception, match="without longitude"):
        write_polygons(raster, tmp_path / "p.geojson")
    assert "p.geojson: parts of the raster have no longitude and latitude" in caplog.text


@pytest.mark.parametrize("suffix", [".shp", ".fgb", ".geojson", ".parquet"])
def test_a_style_beside_an_output_stops_the_run_unless_it_may_go(tmp_path, suffix):
    raster = raster_in(tmp_path, "EPSG:32633")
    path = write_polygons(raster, tmp_path / f"polygons{suffix}")
    style = path.with_suffix(".qml")
    ours = style.read_bytes()
    edited = ours.replace(b"</qgis>", b"<!-- mine --></qgis>")
    for entry in tmp_path.glob("polygons.*"):
        entry.unlink()
    style.write_bytes(edited)
    before = {entry.name for entry in tmp_path.iterdir()}
    with pytest.raises(
        OutputExistsError,
        match=rf"polygons.qml: exists already, and would be read as part of polygons\{suffix}; give "
        r"another name, or --overwrite.",
    ):
        write_polygons(raster, path)
    assert style.read_bytes() == edited
    assert {entry.name for entry in tmp_path.iterdir()} == before
    write_polygons(raster, path, overwrite=True)
    assert style.read_bytes() == ours


def test_formats_of_one_map_share_its_style(tmp_path):
    raster = raster_in(tmp_path, "EPSG:32633")
    for suffix in (".fgb", ".shp", ".geojson"):
        write_polygons(raster, tmp_path / f"polygons{suffix}")


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".geojson"])
@pytest.mark.parametrize("stem", ["a;b", "a!b", "a\nb", "a\tb"])
def test_a_name_that_would_be_taken_for_an_address_is_refused_before_the_work(
    tmp_path, stem, suffix, monkeypatch
):
    raster = raster_in(tmp_path, "EPSG:32633")
    monkeypatch.setattr("geodinoseg.polygons.polygonize.write_batches", None)
    with pytest.raises(OutputError, match=r"whose path holds .* cannot be written"):
        write_polygons(raster, tmp_path / f"{stem}{suffix}")


def test_a_style_beside_a_geopackage_is_that_of_another_file(tmp_path):
    raster = raster_in(tmp_path, "EPSG:32633")
    (tmp_path / "polygons.qml").write_text("mine")
    for overwrite in (False, True):
        write_polygons(raster, tmp_path / "polygons.gpkg", overwrite=overwrite)
    assert (tmp_path / "polygons.qml").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [
        ("p.gpkg", "p.gpkg-wal"),
        ("p.gpkg", "p.gpkg-shm"),
        ("p.gpkg", "p.gpkg-journal"),
        ("p.shp", "p.qix"),
        ("p.shp", "p.SBN"),
        ("p.shp", "p.qpj"),
        ("p.shp", "p.shp.xml"),
        ("p.shp", "p.cpg"),
        ("p.shp", "p.qmd"),
        ("p.shp", "p.FBX"),
        ("p.shp", "p.class_id.atx"),
        ("p.fgb", "p.qmd"),
        ("p.geojson", "p.qmd"),
        ("p.parquet", "p.qmd"),
    ],
)
def test_files_beside_an_output_stop_the_run_or_go_with_the_old_one(tmp_path, name, sidecar):
    raster = raster_in(tmp_path, "EPSG:32633")
    (tmp_path / sidecar).write_text("old")
    other = tmp_path / f"other{sidecar}"
    other.write_text("mine")
    with pytest.raises(OutputExistsError, match=f"{sidecar}: exists already, and would be read as"):
        write_polygons(raster, tmp_path / name)
    assert (tmp_path / sidecar).read_text() == "old"
    assert not (tmp_path / name).exists()
    path = write_polygons(raster, tmp_path / name, overwrite=True)
    assert not (tmp_path / sidecar).exists() or (tmp_path / sidecar).read_text() != "old"
    assert other.read_text() == "mine"
    if path.suffix != ".parquet":
        assert len(pyogrio.read_dataframe(path, layer="p")) > 3


def test_a_file_that_appears_beside_an_output_meanwhile_is_reported(tmp_path):
    raster = raster_in(tmp_path, "EPSG:32633")

    def index(fraction, message):
        (tmp_path / "p.qix").write_text("of an older file")

    with pytest.raises(OutputError, match=r"p.shp: was written, but p.qix has appeared beside it"):
        write_polygons(raster, tmp_path / "p.shp", progress=index)
    write_polygons(raster, tmp_path / "p.shp", overwrite=True)
    assert not (tmp_path / "p.qix").exists()


def test_a_flatgeobuf_of_a_large_raster_is_said_to_take_twice_the_disk(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("geodinoseg.polygons.checks._LARGE_PX", 20 * 31)
    raster = raster_in(tmp_path, "EPSG:32633")
    write_polygons(raster, tmp_path / "p.gpkg")
    assert not caplog.records
    write_polygons(raster, tmp_path / "p.fgb")
    assert "p.fgb: writing a FlatGeobuf takes twice its size on disk" in caplog.text
