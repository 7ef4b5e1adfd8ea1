"""Every output lies where its scene lies, whatever the grid and the CRS; else one line says why."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasters import IdentityModel, read_raster

from geodinoseg.errors import GeodinosegError
from geodinoseg.geobox import GeoBox, dataset_geobox, same_grid
from geodinoseg.segmentation.segment import segment_scene

HEIGHT, WIDTH = 21, 34


class Place(NamedTuple):
    """A CRS, a place within its use, and the length of a pixel there, in its units."""

    crs: str | None
    x: float
    y: float
    pixel: float


def _custom(name: str, definition: str) -> str:
    return f"+proj={name} {definition} +type=crs"


ENGINEERING = (
    'ENGCRS["site grid",EDATUM["unknown"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
    'LENGTHUNIT["{unit}",{metres}]]'
)
PLACES = (
    *(Place(f"EPSG:{code}", 4e5, 5e6, 10) for code in (32633, 25832, 32733, 26917, 28355, 31467)),
    *(Place(f"EPSG:{code}", 6e5, 2e5, 2) for code in (2056, 27700, 28992, 27572, 2154, 5514)),
    *(Place(f"EPSG:{code}", 5e6, 3e6, 100) for code in (3035, 5070, 3577, 3347, 102001)),
    *(Place(f"EPSG:{code}", 1e6, 1e6, 30) for code in (3857, 3395, 6933, 8857, 3031, 3413, 3995)),
    *(Place(f"ESRI:{code}", 1e6, 1e6, 500) for code in (54009, 54030, 102025, 54012)),
    *(Place(f"EPSG:{code}", 2e6, 7e5, 3) for code in (2263, 2276, 2222, 26729, 3089, 2927)),
    *(Place(f"EPSG:{code}", 11.5, 48.1, 1e-4) for code in (4326, 4258, 4269, 4267, 4979, 4937)),
    Place("EPSG:4326", 179.999, 65.2, 1e-3),
    Place("EPSG:4326", 200.5, -45, 1e-3),
    Place("EPSG:4807", 2.5, 52.1, 1e-4),
    Place("EPSG:4901", 2.5, 52.1, 1e-4),
    Place("EPSG:7415", 1.2e5, 4.8e5, 0.5),
    Place("EPSG:32662", 1e6, 2e6, 200),
    Place("OGC:CRS84", 11.5, 48.1, 1e-4),
    Place(_custom("laea", "+lat_0=47 +lon_0=11 +datum=WGS84"), 3e4, 2e4, 10),
    Place(_custom("tmerc", "+lat_0=47 +lon_0=11 +k=0.9999 +x_0=500 +ellps=bessel"), 3e4, 2e4, 10),
    Place(_custom("eqearth", "+lon_0=150 +datum=WGS84"), 1e5, 1e6, 300),
    Place(_custom("ob_tran", "+o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180"), 5, 4, 0.1),
    Place(_custom("geos", "+h=35785831 +lon_0=0 +sweep=y"), 1e6, 3e6, 3000),
    Place(_custom("sinu", "+R=6371007.181"), 1e6, 5e6, 463),
    Place(_custom("utm", "+zone=33 +datum=WGS84 +units=km"), 400, 5000, 0.01),
    Place(_custom("lcc", "+lat_1=33 +lat_2=45 +lon_0=-97 +units=us-ft"), 3e5, 2e5, 30),
    Place(_custom("omerc", "+lat_0=4 +lonc=102.25 +alpha=323 +k=0.99984"), 3e4, 2e4, 5),
    Place(_custom("aeqd", "+lat_0=-30 +lon_0=25"), 3e4, 2e4, 5),
    Place(ENGINEERING.format(unit="metre", metres=1), 1000, 2000, 0.05),
    Place(ENGINEERING.format(unit="foot", metres=0.3048), 1000, 2000, 0.2),
    Place('LOCAL_CS["mine",UNIT["metre",1]]', 1000, 2000, 0.05),
    Place("IAU_2015:49900", 77.5, 18.4, 1e-3),
    Place("IAU_2015:30100", 23.4, 0.7, 1e-3),
    Place("ESRI:104905", 77.5, 18.4, 1e-3),
    Place(_custom("eqc", "+R=3396190"), 4e6, 1e6, 20),
    Place(_custom("stere", "+lat_0=-90 +R=1737400"), 4e4, 1e4, 5),
    Place(None, 0, 0, 1),
    Place(None, 1000, 2000, 0.1),
)


def known(place: Place) -> bool:
    """Whether this build of PROJ knows a CRS."""
    try:
        return place.crs is None or bool(CRS.from_user_input(place.crs))
    except rasterio.errors.CRSError:
        return False


KNOWN = tuple(place for place in PLACES if known(place))
GRIDS = {
    "north up": Affine.scale(1, -1),
    "south up": Affine.scale(1, 1),
    "rotated": Affine.rotation(23) @ Affine.scale(1, -1),
    "tall pixels": Affine.scale(0.4, -2.5),
    "sheared": Affine.shear(12, 0) @ Affine.scale(1, -1.5),
}


def write_scene(path: Path, place: Place, grid: str, *, control: bool) -> None:
    """A scene of values 0 to 3, with the transform or with ground control points."""
    values = np.random.default_rng(3).integers(0, 4, (1, HEIGHT, WIDTH)).astype(np.uint8)
    values[0, :, :9] = 2
    crs = None if place.crs is None else CRS.from_user_input(place.crs)
    transform = Affine.translation(place.x, place.y) @ Affine.scale(place.pixel) @ GRIDS[grid]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=1,
            height=HEIGHT,
            width=WIDTH,
            dtype="uint8",
            crs=None if control else crs,
            transform=None if control else transform,
        ) as dataset:
            dataset.write(values)
            if control:
                corners = ((0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH))
                points = [
                    GroundControlPoint(row, col, *(transform @ (col, row)), z=0)
                    for row, col in corners
                ]
                dataset.gcps = (points, crs or CRS())


def read_geobox(path: Path) -> GeoBox:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            return dataset_geobox(dataset)


def check_place(folder: Path, place: Place, grid: str, *, control: bool, suffix: str) -> str:
    """Segment a scene; all outputs lie where it lies, or one line refuses it before the work.

    Returns:
        The line, or nothing.
    """
    scene, output = folder / "scene.tif", folder / "map.tif"
    polygons = [folder / f"polygons{suffix}"] if suffix else []
    write_scene(scene, place, grid, control=control)
    inputs = set(folder.iterdir())
    model = IdentityModel()
    said = ""
    try:
        segment_scene(scene, model, output, confidence=True, probabilities=True, polygons=polygons)
    except GeodinosegError as error:
        said = str(error)
    if said:
        assert model.tiles_seen == 0, "the work was done in vain"
        assert "\n" not in said
        assert set(folder.iterdir()) == inputs
        return said
    wanted = read_geobox(scene)
    for path in folder.glob("*.tif"):
        assert same_grid(read_geobox(path), wanted), path
    assert (read_raster(output) == read_raster(scene)).all()
    for path in polygons:
        check_polygons(path, wanted)
    return ""


def check_polygons(path: Path, box: GeoBox) -> None:
    """The polygons cover the corners of the scene, in its CRS or in longitude and latitude."""
    frame = geopandas.read_file(path, layer=path.stem)
    outlines, crs = frame.geometry.to_numpy(), frame.crs
    corners = np.array(
        [box.transform @ at for at in ((0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT))]
    )
    whole = shapely.Polygon(corners)
    if path.suffix == ".geojson":
        assert crs is not None
        assert crs.to_epsg() == 4326 or crs.name == "WGS 84"
        check_lonlat(shapely.total_bounds(outlines), box, corners)
        return
    if box.crs is not None:
        wanted = pyproj.CRS.from_wkt(box.crs.to_wkt(version="WKT2_2019"))
        assert crs is not None
        assert same_place(crs, wanted, corners)
    assert_allclose(shapely.area(outlines).sum(), shapely.area(whole), rtol=1e-9)
    assert_allclose(shapely.total_bounds(outlines), whole.bounds, rtol=1e-12, atol=1e-9)


def check_lonlat(bounds: np.ndarray, box: GeoBox, corners: np.ndarray) -> None:
    """Bounds in degrees are those of the corners; edges are curved a little."""
    assert (np.abs(bounds) <= [180, 90] * 2).all()
    lon, lat = pyproj.Transformer.from_crs(box.crs, 4326, always_xy=True).transform(*corners.T)
    lon = np.asarray(lon)
    if np.ptp(lon) < 180 and np.abs(lon).max() < 180:  # else it is cut at the 180th meridian
        assert_allclose(bounds[[0, 2]], [lon.min(), lon.max()], atol=0.05 * np.ptp(lon) + 1e-6)
    assert_allclose(bounds[[1, 3]], [min(lat), max(lat)], atol=0.05 * np.ptp(lat) + 1e-6)


def same_place(found: pyproj.CRS, wanted: pyproj.CRS, corners: np.ndarray) -> bool:
    """Whether two CRSs are one, or put coordinates at the same longitudes and latitudes."""
    if found.equals(wanted, ignore_axis_order=True):
        return True
    if found.geodetic_crs is None or wanted.geodetic_crs is None:
        return found.name == wanted.name
    moved = pyproj.Transformer.from_crs(wanted, found, always_xy=True).transform(*corners.T)
    return bool(np.allclose(np.column_stack(moved), corners, rtol=1e-9))


def test_the_list_has_sixty_places():
    assert len(KNOWN) >= 60


@given(
    place=st.sampled_from(KNOWN),
    grid=st.sampled_from(sorted(GRIDS)),
    control=st.booleans(),
    suffix=st.sampled_from(["", ".gpkg", ".geojson", ".fgb", ".shp"]),
)
@settings(max_examples=30)
def test_outputs_lie_where_the_scene_lies(place, grid, control, suffix, tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    check_place(folder, place, grid, control=control, suffix=suffix)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grid", "suffix"),
    [*((grid, ".gpkg") for grid in sorted(GRIDS)), ("rotated", ".geojson"), ("rotated", ".fgb")],
)
@pytest.mark.parametrize("place", KNOWN, ids=lambda place: str(place.crs)[:24])
def test_every_crs_on_every_grid(place, grid, suffix, tmp_path):
    check_place(tmp_path, place, grid, control=False, suffix=suffix)


@pytest.mark.slow
@pytest.mark.parametrize("place", KNOWN, ids=lambda place: str(place.crs)[:24])
def test_every_crs_of_control_points(place, tmp_path):
    said = check_place(tmp_path, place, "rotated", control=True, suffix="")
    assert not said or "cannot be stored in a GeoTIFF" in said
