"""Places on the earth: areas and sizes against PROJ's own."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose
from rasters import ROTATED, SOUTH_UP

from geodinoseg.geobox import read_geobox, same_grid
from geodinoseg.windows import Window


def test_a_crop_keeps_the_rotation():
    geobox = read_geobox("EPSG:32633", ROTATED, 40, 31)
    crop = geobox.crop(Window(col_off=7, row_off=5, width=11, height=13))
    assert_allclose(crop.transform @ (2, 3), ROTATED @ (9, 8))
    assert (crop.width, crop.height, crop.crs) == (11, 13, geobox.crs)


@pytest.mark.parametrize("transform", [ROTATED, SOUTH_UP])
def test_a_projected_pixel_has_the_area_of_its_parallelogram(transform):
    geobox = read_geobox("EPSG:32633", transform, 4, 3)
    assert_allclose(geobox.row_areas_m2, abs(transform.determinant))


def test_feet_become_metres():
    geobox = read_geobox("EPSG:2263", Affine(2, 0, 980_000, 0, -2, 200_000), 4, 3)
    assert_allclose(geobox.row_areas_m2, (2 * 0.3048006096) ** 2, rtol=1e-9)


@given(latitude=st.floats(-89, 88.9), step=st.floats(1e-5, 1.0), south_up=st.booleans())
def test_a_geographic_pixel_has_its_area_on_the_ellipsoid(latitude, step, south_up):
    sign = 1 if south_up else -1
    top = latitude if south_up else latitude + step
    geobox = read_geobox("EPSG:4326", Affine(step, 0, 10, 0, sign * step, top), 3, 1)
    # PROJ's edges are geodesics: along a parallel they are made short enough to follow it.
    lon = np.linspace(10, 10 + step, 500)
    lons = np.concatenate([lon, lon[::-1]])
    lats = np.repeat([latitude, latitude + step], 500)
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(lons, lats)
    # A geodesic sum of tiny areas has about a square millimetre to a square metre of noise.
    assert_allclose(geobox.row_areas_m2[0], abs(area), rtol=2e-5, atol=1e-3)


def test_the_areas_of_all_rows_add_up_to_the_earth():
    geobox = read_geobox("EPSG:4326", Affine(1.5, 0, -180, 0, -1.5, 90), 240, 120)
    total = geobox.row_areas_m2.sum() * geobox.width
    assert_allclose(total, 510_065_621_724_078, rtol=1e-9)


def test_web_mercator_is_measured_on_the_ground():
    geobox = read_geobox("EPSG:3857", Affine(0.1493, 0, 9_519_000, 0, -0.1493, 3_202_000), 9, 7)
    assert geobox.pixel_size_m == pytest.approx(0.1323, abs=1e-4)
    assert geobox.areal_scale == pytest.approx(1.274, abs=1e-3)


def test_without_a_crs_there_is_no_size_in_metres():
    geobox = read_geobox(None, Affine.identity(), 9, 7)
    assert geobox.pixel_size_m is None
    assert not geobox.is_georeferenced
    assert_allclose(geobox.row_areas_m2, 1)


def test_degrees_past_a_pole_have_no_size_in_metres():
    assert read_geobox("EPSG:4326", Affine(1, 0, 0, 0, 1, 0), 300, 250).pixel_size_m is None


def test_the_same_place_is_told_from_another():
    first = read_geobox("EPSG:32633", ROTATED, 40, 31)
    shifted = ROTATED @ Affine.translation(0, 0.01)
    assert same_grid(first, read_geobox("EPSG:32633", ROTATED, 40, 31))
    assert not same_grid(first, read_geobox("EPSG:32633", shifted, 40, 31))
    assert not same_grid(first, read_geobox("EPSG:32634", ROTATED, 40, 31))


# A place (longitude, latitude) in the area of use of each.
PLACES = {
    "EPSG:4326": (10, 65),
    "EPSG:4807": (2.5, 47),
    "EPSG:27572": (2.5, 47),
    "EPSG:32633": (15.5, 70),
    "EPSG:3857": (85.5, 27.6),
    "EPSG:4087": (25, 65),
    "EPSG:2263": (-73.9, 40.7),
    "EPSG:3031": (45, -77),
    "EPSG:2193": (173, -41),
    "+proj=eqearth +datum=WGS84": (60, 50),
    "+proj=utm +zone=33 +datum=WGS84 +units=km": (15.5, 50),
}


@pytest.mark.parametrize("crs", PLACES)
@given(
    width=st.floats(0.1, 20),
    height=st.floats(0.1, 20),
    angle=st.floats(0, 360),
    south_up=st.booleans(),
)
def test_the_sides_of_a_pixel_are_those_measured_on_a_plane_at_the_place(
    crs, width, height, angle, south_up
):
    longitude, latitude = PLACES[crs]
    plane = pyproj.CRS(f"+proj=aeqd +lat_0={latitude} +lon_0={longitude} +datum=WGS84")
    to_crs = pyproj.Transformer.from_crs(plane, crs, always_xy=True)
    across, down = (
        width * np.exp(1j * np.radians(angle)),
        height * 1j * np.exp(1j * np.radians(angle)),
    )
    corner, right, below = (
        to_crs.transform(place.real, place.imag)
        for place in (0j, across, down if south_up else -down)
    )
    a, d = np.subtract(right, corner)
    b, e = np.subtract(below, corner)
    geobox = read_geobox(crs, Affine(a, b, corner[0], d, e, corner[1]), 1, 1)
    assert geobox.pixel_aspect == pytest.approx(width / height, rel=2e-3)
    assert geobox.pixel_size_m == pytest.approx(np.sqrt(width * height), rel=3e-3)


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site",UNIT["foot",0.3048]]', "EPSG:5800"])
def test_where_the_ground_is_unknown_pixels_have_the_sides_of_the_map(crs):
    geobox = read_geobox(crs, Affine(1, 0, 7, 0, -2, 9), 30, 20)
    assert geobox.pixel_aspect == pytest.approx(1.0 if crs is None else 0.5)
