"""GeoJSON: every pixel where it lies on the earth, also at the 180th meridian and at the poles."""

from __future__ import annotations

import json

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio.crs
import shapely
from affine import Affine
from coverages import NODATA, blobs, write_class_raster
from rasterio.warp import transform as warped

from geodinoseg.polygons.polygonize import write_polygons
from geodinoseg.polygons.stream import PolygonOptions

ROTATED_POLE = (
    "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 "
    "+to_meter=0.0174532925199433"
)


def at(crs, lon, lat, size, *, shape=(60, 77), down=-1.0):
    """A transform whose raster has a place at its centre."""
    (x,), (y,) = warped("EPSG:4326", crs, [lon], [lat])
    height, width = shape
    return Affine(size, 0, x - size * width / 2, 0, down * size, y - down * size * height / 2)


PLACES = {
    "UTM 60 S across the meridian": ("EPSG:32760", at("EPSG:32760", 180, -17, 500)),
    "Mercator of the Pacific, turned": (
        "EPSG:3832",
        at("EPSG:3832", 180, 65, 300) @ Affine.rotation(40),
    ),
    "south-up in Chukotka": ("EPSG:3576", at("EPSG:3576", 180, 68, 2000, down=1.0)),
    "a pole within a pixel": ("EPSG:3413", Affine(1000, 0, -38600, 0, -1000, 30300)),
    "a pole at a corner of pixels": ("EPSG:3413", Affine(1000, 0, -38000, 0, -1000, 30000)),
    "the south pole": ("EPSG:3031", Affine(700, 0, -30000, 0, -700, 20300)),
    "the south pole, at a corner, south-up": ("EPSG:3031", Affine(700, 0, -28000, 0, 700, -21000)),
    "half the arctic": ("EPSG:3995", Affine(60000, 0, -2_300_000, 0, -60000, 1_800_000)),
    "longitudes beyond 180": ("EPSG:4326", Affine(0.1, 0, 176.03, 0, -0.1, 10)),
    "longitudes up to 360": ("EPSG:4326", Affine(2, 0, 150, 0, -2, 60)),
    "longitudes to the west of -180": ("EPSG:4326", Affine(0.1, 0, -184, 0, -0.1, 10)),
    "a pixel that ends at the meridian": ("EPSG:4326", Affine(0.1, 0, 176, 0, -0.1, 10)),
    "the whole earth": ("EPSG:4326", Affine(360 / 77, 0, -180, 0, -3, 90)),
    "grads from Paris": ("EPSG:4807", Affine(0.01, 0, 2, 0, -0.01, 52)),
    "a rotated pole": (ROTATED_POLE, Affine(0.1, 0, -170, 0, -0.1, 42)),
    "a world map": ("ESRI:54009", Affine(200_000, 0, -7_700_000, 0, -200_000, 6_000_000)),
    "a large scene far from the meridian": ("EPSG:32633", at("EPSG:32633", 15, 60, 5000)),
}


def classes_of(kind, shape=(60, 77)):
    if kind == "blobs":
        return blobs(*shape)
    array = np.zeros(shape, dtype=np.uint8)
    if kind == "quarters":
        array[: shape[0] // 2, shape[1] // 2 :] = 1
        array[shape[0] // 2 :, : shape[1] // 2] = 2
        array[shape[0] // 2 :, shape[1] // 2 :] = 3
    if kind == "rings":
        rows, cols = np.mgrid[: shape[0], : shape[1]]
        array[:] = np.hypot(rows - shape[0] / 2, cols - shape[1] / 2) // 9 % 3
        array[5:9, 5:9] = NODATA
    return array


def written(tmp_path, place, array, **options):
    crs, transform = place
    crs = rasterio.crs.CRS.from_user_input(crs)
    path = write_class_raster(tmp_path / "map.tif", array, transform=transform, crs=crs)
    return path, write_polygons(path, tmp_path / "map.geojson", **options)


def classes_at(path, frame, array):
    """The class of each pixel by the polygon over a place in it; -1 where there is none."""
    with rasterio.open(path) as dataset:
        rows, cols = np.mgrid[: dataset.height, : dataset.width]
        # Beside the centre, on which corners of simplified outlines may lie.
        x, y = dataset.transform @ (cols.ravel() + 0.47, rows.ravel() + 0.56)
        lon, lat = warped(dataset.crs, "EPSG:4326", x, y)
    points = shapely.points((np.array(lon) + 180) % 360 - 180, lat)
    tree = shapely.STRtree(frame.geometry.to_numpy())
    at_point, polygon = tree.query(points, predicate="intersects")
    assert len(np.unique(at_point)) == len(at_point), "polygons overlap"
    found = np.full(array.shape, NODATA, dtype=np.uint8)
    found.ravel()[at_point] = frame.class_id.to_numpy()[polygon]
    return found


@pytest.mark.parametrize("kind", ["quarters", "rings", "blobs"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_every_pixel_lies_in_the_polygon_of_its_class(tmp_path, place, kind):
    array = classes_of(kind)
    path, output = written(tmp_path, place, array)
    frame = pyogrio.read_dataframe(output)
    geometries = frame.geometry.to_numpy()
    assert shapely.is_valid(geometries).all()
    west, south, east, north = frame.total_bounds
    assert -180 <= west <= east <= 180
    assert -90 <= south <= north <= 90
    parts = shapely.get_parts(geometries)
    assert shapely.is_ccw(shapely.get_exterior_ring(parts)).all()
    np.testing.assert_array_equal(classes_at(path, frame, array), array)


@pytest.mark.parametrize("name", sorted(PLACES.keys() - {"the whole earth", "a world map"}))
def test_the_parts_of_a_cut_polygon_have_its_area_on_the_earth(tmp_path, name):
    """Within the curvature of edges and the scale of projections, which is known."""
    array = classes_of("rings")
    path, output = written(tmp_path, PLACES[name], array)
    frame = pyogrio.read_dataframe(output)
    geod = pyproj.Geod(ellps="WGS84")
    fine = shapely.segmentize(frame.geometry.to_numpy(), 0.05)
    areas = np.array([geod.geometry_area_perimeter(geometry)[0] for geometry in fine])
    with rasterio.open(path) as dataset:
        rows, cols = np.mgrid[: dataset.height, : dataset.width]
        corners = [
            warped(dataset.crs, "EPSG:4326", *(dataset.transform @ (c.ravel(), r.ravel())))
            for c, r in ((cols, rows), (cols + 1, rows), (cols + 1, rows + 1), (cols, rows + 1))
        ]
    lon, lat = (np.array([corner[axis] for corner in corners]) for axis in (0, 1))
    # Each pixel apart, in the quadrilateral of its corners.
    lon = np.where(np.abs(lat) > 90 - 1e-9, np.roll(lon, 1, axis=0), lon)
    pixel_m2 = np.array(
        [abs(geod.polygon_area_perimeter(x, y)[0]) for x, y in zip(lon.T, lat.T, strict=True)]
    ).reshape(array.shape)
    for class_id in range(3):
        expected = pixel_m2[array == class_id].sum()
        assert areas[frame.class_id == class_id].sum() == pytest.approx(expected, rel=5e-3)


def test_what_crosses_the_180th_meridian_is_cut_there_and_shares_the_points_of_the_cut(tmp_path):
    array = classes_of("rings")
    _, output = written(tmp_path, PLACES["UTM 60 S across the meridian"], array)
    frame = pyogrio.read_dataframe(output)
    assert (frame.geom_type == "MultiPolygon").any()
    parts = shapely.get_parts(frame.geometry.to_numpy())
    bounds = shapely.bounds(parts)
    assert ((bounds[:, 2] - bounds[:, 0]) < 2).all()
    assert shapely.coverage_is_valid(parts)
    on_cut = {180.0: set(), -180.0: set()}
    for lon, lat in shapely.get_coordinates(parts):
        if abs(lon) == 180:
            on_cut[lon].add(lat)
    assert on_cut[180.0] == on_cut[-180.0]
    assert len(on_cut[180.0]) > 4
    features = json.loads(output.read_text())["features"]
    assert {feature["geometry"]["type"] for feature in features} == {"Polygon", "MultiPolygon"}


def test_a_polygon_around_a_pole_reaches_it_along_its_whole_latitude(tmp_path):
    _, output = written(tmp_path, PLACES["a pole within a pixel"], classes_of("whole"))
    (polygon,) = pyogrio.read_dataframe(output).geometry
    assert polygon.geom_type == "Polygon"
    assert polygon.bounds[0::2] == (-180, 180)
    assert polygon.bounds[3] == 90
    assert shapely.LineString([(-180, 90), (180, 90)]).covered_by(polygon.boundary)


@pytest.mark.parametrize("name", ["UTM 60 S across the meridian", "a pole at a corner of pixels"])
def test_dissolved_and_simplified_polygons_are_cut_too(tmp_path, name):
    array = classes_of("rings")
    path, output = written(tmp_path, PLACES[name], array, options=PolygonOptions(dissolve=True))
    frame = pyogrio.read_dataframe(output)
    assert frame.class_id.tolist() == [0, 1, 2]
    assert frame.is_valid.all()
    np.testing.assert_array_equal(classes_at(path, frame, array), array)
    write_polygons(path, output, simplify_px=1.0, overwrite=True)
    simplified = pyogrio.read_dataframe(output)
    assert simplified.is_valid.all()
    assert (classes_at(path, simplified, array) == array).mean() > 0.97


def test_the_long_edge_of_a_scene_follows_the_map(tmp_path):
    array = np.zeros((1000, 1300), dtype=np.uint8)
    crs, transform = "EPSG:32633", at("EPSG:32633", 15, 60, 100, shape=(1000, 1300))
    _, output = written(tmp_path, (crs, transform), array)
    (polygon,) = pyogrio.read_dataframe(output).geometry
    to_map = pyproj.Transformer.from_crs(4326, 32633, always_xy=True)
    edges = shapely.segmentize(polygon.exterior, 0.01)
    x, y = to_map.transform(*shapely.get_coordinates(edges).T)
    outline = shapely.box(
        transform.c, transform.f - 100_000, transform.c + 130_000, transform.f
    ).exterior
    assert shapely.distance(shapely.points(x, y), outline).max() < 0.05 * 100
    assert shapely.get_num_coordinates(polygon) < 200
