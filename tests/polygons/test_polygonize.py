"""Polygons as users get them: a GeoDataFrame or a file, with attributes, from any raster."""

from __future__ import annotations

import logging

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio.features
import shapely
from affine import Affine
from coverages import NODATA, blobs, class_arrays, write_class_raster
from hypothesis import HealthCheck, given, settings, strategies as st
from rasters import NORTH_UP, ROTATED, SOUTH_UP, write_raster

from geodinoseg.errors import GeodinosegError, GridError, LegendError, SceneError
from geodinoseg.polygons.polygonize import polygonize, write_polygons
from geodinoseg.polygons.stream import PolygonOptions
from geodinoseg.rasters.class_raster import CONFIDENCE_TAG, open_class_raster

DEGREES = Affine(0.01, 0, 84.9, 0, -0.01, 61.7)
SHEARED = Affine(0.5, 0.2, 4e5, -0.1, -0.7, 5e6)
TRANSFORMS = {"north-up": NORTH_UP, "south-up": SOUTH_UP, "rotated": ROTATED, "sheared": SHEARED}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_polygons_lie_where_the_pixels_lie_and_turn_counter_clockwise(tmp_path, transform):
    array = blobs(61, 90)
    frame = polygonize(write_class_raster(tmp_path / "map.tif", array, transform=transform))
    assert frame.is_valid.all()
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())
    assert shapely.is_ccw(shapely.get_exterior_ring(frame.geometry.to_numpy())).all()
    back = rasterio.features.rasterize(
        zip(frame.geometry, frame.class_id, strict=True),
        out_shape=array.shape,
        transform=transform,
        fill=NODATA,
        dtype=np.uint8,
    )
    np.testing.assert_array_equal(back, array)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(array=class_arrays(), transform=st.sampled_from(list(TRANSFORMS.values())))
def test_areas_and_perimeters_are_those_of_the_geometries(tmp_path, array, transform):
    frame = polygonize(write_class_raster(tmp_path / "map.tif", array, transform=transform))
    # Coordinates of millions of metres are floating-point numbers a nanometre apart: what the
    # oracle computes of them is no better.
    apart = np.spacing(np.abs(frame.total_bounds).max())
    np.testing.assert_allclose(frame.perim_m, frame.length, rtol=1e-9)
    assert (np.abs(frame.area_m2 - frame.area) <= 1e-9 * frame.area + apart * frame.length).all()


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:2263"])
def test_areas_of_a_class_add_up_to_the_raster_s_whatever_is_done_to_outlines(tmp_path, crs):
    transform = DEGREES if crs == "EPSG:4326" else NORTH_UP
    array = blobs(70, 95)
    raster = open_class_raster(
        write_class_raster(tmp_path / "map.tif", array, transform=transform, crs=crs)
    )
    expected = [((array == i).sum(axis=1) * raster.geobox.row_areas_m2).sum() for i in range(5)]
    for simplify_px in (0.0, 1.5):
        totals = polygonize(raster, simplify_px=simplify_px).groupby("class_id").area_m2.sum()
        np.testing.assert_allclose(totals, expected, rtol=1e-9)


def test_areas_and_perimeters_in_degrees_are_geodesic(tmp_path):
    array = blobs(40, 57)
    frame = polygonize(
        write_class_raster(tmp_path / "map.tif", array, transform=DEGREES, crs="EPSG:4326")
    )
    geod = pyproj.Geod(ellps="WGS84")
    # A side along a parallel is longer than the geodesic between its ends: cut it short.
    geometries = shapely.segmentize(frame.geometry.to_numpy(), 0.002)
    areas = [geod.geometry_area_perimeter(geometry)[0] for geometry in geometries]
    perimeters = [geod.geometry_length(geometry.boundary) for geometry in geometries]
    np.testing.assert_allclose(frame.area_m2, areas, rtol=1e-5)
    np.testing.assert_allclose(frame.perim_m, perimeters, rtol=1e-6)


def test_areas_in_feet_are_square_metres(tmp_path):
    array = np.zeros((3, 5), dtype=np.uint8)
    frame = polygonize(
        write_class_raster(tmp_path / "map.tif", array, transform=NORTH_UP, crs="EPSG:2263")
    )
    assert frame.area_m2.sum() == pytest.approx(15 * (0.5 * 1200 / 3937) ** 2)


def test_a_stretched_projection_is_warned_of_once(tmp_path, caplog):
    path = write_class_raster(
        tmp_path / "map.tif",
        blobs(20, 31),
        transform=Affine(0.15, 0, 9.5e6, 0, -0.15, 3.2e6),
        crs="EPSG:3857",
    )
    with caplog.at_level(logging.WARNING):
        polygonize(path)
    assert len(caplog.records) == 1
    assert "1.27 times" in caplog.text


def test_mean_confidence_is_that_of_the_polygon_s_pixels(tmp_path):
    array = blobs(50, 71)
    rng = np.random.default_rng(5)
    percent = rng.integers(0, 101, array.shape, dtype=np.uint8)
    percent[array == NODATA] = 255
    path = write_class_raster(tmp_path / "map.tif", array, confidence=percent)
    frames = [polygonize(path, options=PolygonOptions(chunk_rows=rows)) for rows in (7, 50)]
    for frame in frames:
        for polygon, mean in zip(frame.geometry, frame.conf_mean, strict=True):
            under = rasterio.features.geometry_mask([polygon], array.shape, ROTATED, invert=True)
            assert mean == pytest.approx(percent[under].mean(), rel=1e-12)
    assert frames[0].conf_mean.tolist() == frames[1].conf_mean.tolist()


def test_a_name_of_a_confidence_raster_that_no_file_can_have_names_none(tmp_path):
    path = write_class_raster(tmp_path / "map.tif", blobs(9, 8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{CONFIDENCE_TAG: "x" * 5000})
    assert "conf_mean" not in polygonize(path)


def test_confidence_of_another_grid_is_left_out_with_a_warning(tmp_path, caplog):
    path = write_class_raster(
        tmp_path / "map.tif", blobs(20, 31), confidence=np.zeros((20, 30), dtype=np.uint8)
    )
    assert "conf_mean" not in polygonize(path)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "map_confidence.tif: is not the confidence of" in said[0]


def test_names_come_from_the_legend(tmp_path):
    names = {0: "Straße & Gleis <1>", 1: "水", 2: "c", 3: "d", 4: "e"}
    frame = polygonize(write_class_raster(tmp_path / "map.tif", blobs(30, 41), names=names))
    assert dict(zip(frame.class_id, frame.class_name, strict=True)) == names
    assert frame.crs.to_epsg() == 32633


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "int64"])
def test_any_whole_numbers_with_or_without_nodata_will_do(tmp_path, dtype):
    array = blobs(30, 41)
    array[array == NODATA] = 5
    expected = polygonize(write_class_raster(tmp_path / "bytes.tif", array, nodata=None))
    for nodata in (None, 99):
        raster = write_raster(tmp_path / f"{nodata}.tif", array[None].astype(dtype), nodata=nodata)
        frame = polygonize(raster)
        assert frame.geometry.equals(expected.geometry)
        assert frame.class_id.tolist() == expected.class_id.tolist()


def test_all_256_values_of_a_byte_can_be_classes(tmp_path):
    array = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert len(polygonize(write_raster(tmp_path / "map.tif", array))) == 256


def test_a_raster_without_any_class_gives_no_polygon(tmp_path):
    path = write_class_raster(tmp_path / "map.tif", np.full((5, 7), NODATA, dtype=np.uint8))
    for options in (PolygonOptions(), PolygonOptions(dissolve=True)):
        frame = polygonize(path, options=options)
        assert len(frame) == 0
        assert "area_m2" in frame
    assert len(geopandas.read_file(write_polygons(path, tmp_path / "map.fgb"))) == 0


def test_classes_are_chosen_by_id_or_name(tmp_path):
    path = write_class_raster(tmp_path / "map.tif", blobs(40, 51))
    frame = polygonize(path, options=PolygonOptions(classes=[1, "class 3"]))
    whole = polygonize(path)
    wanted = whole[whole.class_id.isin([1, 3])].reset_index(drop=True)
    assert frame.equals(wanted)
    with pytest.raises(LegendError, match=r"has no class 'sea'; it has 0 \(class 0\), 1"):
        polygonize(path, options=PolygonOptions(keep_classes=["sea"]))


def test_a_number_is_an_id_first_then_a_name(tmp_path):
    names = {0: "2", 1: "2020", 2: "c"}
    path = write_class_raster(tmp_path / "map.tif", blobs(40, 31, classes=3), names=names)

    def chosen(*classes):
        frame = polygonize(path, options=PolygonOptions(classes=classes))
        return set(frame.class_id)

    assert chosen(2020) == chosen("2020") == {1}
    assert chosen(2) == {2}
    assert chosen("2") == {0}


def test_names_that_stand_twice_beside_a_raster_become_names_of_their_own(tmp_path):
    path = write_raster(tmp_path / "map.tif", blobs(20, 31, classes=3)[None], nodata=NODATA)
    names = "".join(f"<Category>{name}</Category>" for name in ("a", "a", "a (1)"))
    (tmp_path / "map.tif.aux.xml").write_text(
        f"<PAMDataset><PAMRasterBand band='1'><CategoryNames>{names}</CategoryNames>"
        f"</PAMRasterBand></PAMDataset>"
    )
    assert len(set(polygonize(path).class_name)) == 3


def test_each_pixel_may_be_a_class_of_its_own(tmp_path):
    array = np.arange(150 * 140, dtype=np.uint16).reshape(150, 140)
    path = write_raster(tmp_path / "map.tif", array[None], transform=NORTH_UP)
    frame = polygonize(path)
    assert frame.class_id.tolist() == array.ravel().tolist()
    assert frame.class_name.tolist() == [f"class {class_id}" for class_id in array.ravel()]


def test_dissolved_polygons_are_one_a_class_with_the_same_sums(tmp_path):
    array = blobs(40, 51)
    percent = np.random.default_rng(1).integers(0, 101, array.shape, dtype=np.uint8)
    path = write_class_raster(tmp_path / "map.tif", array, confidence=percent)
    whole = polygonize(path)
    frame = polygonize(path, options=PolygonOptions(dissolve=True, chunk_rows=11))
    assert frame.class_id.tolist() == [0, 1, 2, 3, 4]
    assert (frame.geom_type == "MultiPolygon").all()
    assert frame.is_valid.all()
    sums = whole.groupby("class_id")[["area_m2", "perim_m"]].sum()
    np.testing.assert_allclose(frame[["area_m2", "perim_m"]], sums)
    np.testing.assert_allclose(
        frame.conf_mean, [percent[array == class_id].mean() for class_id in range(5)]
    )


def test_small_polygons_go_to_their_neighbours_and_the_coverage_stays_whole(tmp_path):
    array = blobs(80, 101)
    path = write_class_raster(tmp_path / "map.tif", array)
    frame = polygonize(path, min_area_m2=20 * 0.35)
    assert frame.area_m2.min() >= 20 * 0.35
    assert frame.area_m2.sum() == pytest.approx((array != NODATA).sum() * 0.35)
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())
    kept = polygonize(path, min_area_m2=7, options=PolygonOptions(keep_classes=["class 2"]))
    assert kept.area_m2.min() < 7
    assert set(kept.class_id[kept.area_m2 < 7]) == {2}


def test_a_polygon_of_exactly_the_least_area_stays(tmp_path):
    array = np.zeros((90, 70), dtype=np.uint8)
    array[5:55, 10:60] = 1
    transform = Affine(0.1, 0, 4e5, 0, -0.1, 5e6)
    path = write_class_raster(tmp_path / "map.tif", array, transform=transform)
    assert set(polygonize(path, min_area_m2=25).class_id) == {0, 1}
    assert set(polygonize(path, min_area_m2=25.01).class_id) == {0}


def test_holes_of_nodata_are_filled_below_a_size(tmp_path):
    array = np.ones((20, 31), dtype=np.uint8)
    array[3:5, 4:6] = NODATA
    array[8:14, 10:20] = NODATA
    array[0, 25:] = NODATA
    path = write_class_raster(tmp_path / "map.tif", array)
    frame = polygonize(path, options=PolygonOptions(fill_holes_m2=10 * 0.35))
    assert frame.area_m2.sum() == pytest.approx((20 * 31 - 60 - 6) * 0.35)
    assert len(frame.geometry[0].interiors) == 1


def test_metres_and_pixels_are_the_same_tolerance(tmp_path):
    path = write_class_raster(tmp_path / "map.tif", blobs(60, 77), transform=NORTH_UP)
    by_pixels = polygonize(path, simplify_px=2.0)
    by_metres = polygonize(path, options=PolygonOptions(simplify_m=1.0))
    assert by_pixels.geometry.equals(by_metres.geometry)


def test_progress_rises_to_1(tmp_path):
    path = write_class_raster(tmp_path / "map.tif", blobs(50, 40))
    seen = []
    polygonize(
        path,
        options=PolygonOptions(chunk_rows=7),
        progress=lambda fraction, message: seen.append(fraction),
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_what_the_progress_raises_ends_the_work_and_reaches_the_caller(tmp_path):
    path = write_class_raster(tmp_path / "map.tif", blobs(50, 40))

    def stop(fraction, message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_polygons(path, tmp_path / "map.gpkg", progress=stop)
    assert not (tmp_path / "map.gpkg").exists()


def test_a_raster_without_a_place_is_refused(tmp_path):
    path = write_raster(tmp_path / "map.tif", blobs(9, 8)[None], transform=None, crs=None)
    with pytest.raises(SceneError, match=r"map.tif: is not georeferenced"):
        polygonize(path)


def test_degrees_past_the_poles_are_refused(tmp_path):
    path = write_class_raster(
        tmp_path / "map.tif", blobs(9, 8), transform=NORTH_UP, crs="EPSG:4326"
    )
    with pytest.raises(SceneError, match=r"map.tif: lies beyond the poles"):
        polygonize(path, min_area_m2=3)


def test_a_raster_of_other_numbers_is_refused(tmp_path):
    path = write_raster(tmp_path / "map.tif", np.full((1, 4, 5), 0.5, dtype=np.float32))
    with pytest.raises(SceneError, match="class ids are integers"):
        polygonize(path)


@pytest.mark.parametrize("nodata", [np.nan, -9999.0, -3.4028234663852886e38, 99.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_numbers_stored_as_floats_are_classes(tmp_path, dtype, nodata):
    """Zero is a class: GDAL's conversion to integers would make it nodata."""
    array = blobs(30, 41)
    expected = polygonize(write_class_raster(tmp_path / "bytes.tif", array))
    values = np.where(array == NODATA, nodata, array).astype(dtype)
    frame = polygonize(write_raster(tmp_path / "floats.tif", values[None], nodata=nodata))
    assert 0 in frame.class_id.tolist()
    assert frame.geometry.equals(expected.geometry)
    assert frame.class_id.tolist() == expected.class_id.tolist()
    assert frame.area_m2.tolist() == expected.area_m2.tolist()


def test_a_raster_with_too_many_classes_is_refused(tmp_path):
    array = np.arange(300 * 250, dtype=np.int32).reshape(1, 250, 300)
    with pytest.raises(GeodinosegError, match=r"map.tif"):
        polygonize(write_raster(tmp_path / "map.tif", array))


def test_a_class_id_that_the_legend_lacks_is_named(tmp_path):
    array = blobs(40, 31)
    array[20, 20] = 77
    path = write_class_raster(tmp_path / "map.tif", array)
    with pytest.raises(SceneError, match=r"map.tif: has pixels of value 77, which is not a class"):
        write_polygons(path, tmp_path / "map.gpkg")
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif"]


def test_a_raster_that_breaks_off_leaves_nothing_half_written(tmp_path):
    path = write_class_raster(
        tmp_path / "map.tif", blobs(600, 300), tiled=True, blockxsize=64, blockysize=64
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SceneError, match=r"map.tif"):
        write_polygons(path, tmp_path / "map.gpkg", options=PolygonOptions(chunk_rows=64))
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif"]


@pytest.mark.parametrize("size", [-1.0, float("nan"), float("inf")])
def test_sizes_that_cannot_be_are_refused(tmp_path, size):
    path = write_class_raster(tmp_path / "map.tif", blobs(9, 8))
    with pytest.raises(GridError, match="min_area_m2"):
        polygonize(path, min_area_m2=size)


@pytest.mark.parametrize("chunk_rows", [0, -7])
def test_chunks_that_cannot_be_are_refused(tmp_path, chunk_rows):
    path = write_class_raster(tmp_path / "map.tif", blobs(9, 8))
    with pytest.raises(GridError, match=f"chunk_rows is {chunk_rows}"):
        polygonize(path, options=PolygonOptions(chunk_rows=chunk_rows))


@pytest.mark.slow
@pytest.mark.parametrize("min_area_m2", [0.0, 4.0])
@pytest.mark.parametrize("simplify_px", [0.0, 1.0, 4.0])
def test_a_large_map_keeps_every_law_at_once(tmp_path, min_area_m2, simplify_px):
    array = blobs(2300, 1711)
    path = write_class_raster(tmp_path / "map.tif", array, transform=ROTATED)
    frames = [
        polygonize(
            path,
            min_area_m2=min_area_m2,
            simplify_px=simplify_px,
            options=PolygonOptions(chunk_rows=chunk_rows),
        )
        for chunk_rows in (256, 1000, 2300)
    ]
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])
    geometries = frames[0].geometry.to_numpy()
    assert shapely.is_valid(geometries).all()
    assert shapely.coverage_is_valid(geometries)
    assert frames[0].area_m2.sum() == pytest.approx((array != NODATA).sum() * 0.35, rel=1e-12)
    if not min_area_m2:
        totals = frames[0].groupby("class_id").area_m2.sum()
        np.testing.assert_allclose(totals, np.bincount(array.ravel())[:5] * 0.35, rtol=1e-9)
    if not min_area_m2 and not simplify_px:
        back = rasterio.features.rasterize(
            zip(geometries, frames[0].class_id, strict=True),
            out_shape=array.shape,
            transform=ROTATED,
            fill=NODATA,
            dtype=np.uint8,
        )
        np.testing.assert_array_equal(back, array)


@pytest.mark.slow
def test_a_very_wide_raster_is_cut_and_simplified_in_many_bands(tmp_path):
    array = np.tile(blobs(300, 1000), (1, 70))
    path = write_class_raster(tmp_path / "map.tif", array, compress="deflate")
    frame = polygonize(path, simplify_px=1.0, options=PolygonOptions(classes=[0, 1]))
    assert shapely.is_valid(frame.geometry.to_numpy()).all()
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())
    assert frame.area_m2.sum() == pytest.approx(np.isin(array, [0, 1]).sum() * 0.35)
