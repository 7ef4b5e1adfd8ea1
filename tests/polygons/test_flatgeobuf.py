"""The spatial index of a FlatGeobuf, read by GDAL."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from rasterio.crs import CRS

from geodinoseg.legend import Legend
from geodinoseg.polygons.table import polygon_schema
from geodinoseg.polygons.writer import PolygonLayer, write_batches

SCHEMA = polygon_schema(has_confidence=False)


def batches(boxes, *, size):
    """Boxes as features whose class ids count them."""
    for first in range(0, len(boxes), size):
        some = boxes[first : first + size]
        numbers = np.arange(first, first + len(some))
        columns = [
            pa.array(numbers).cast(field.type) for field in SCHEMA if field.name != "geometry"
        ]
        yield pa.record_batch([*columns, pa.array(shapely.to_wkb(some), SCHEMA[-1].type)], SCHEMA)


def random_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    west, south = rng.uniform(-3e5, 3e5, count), rng.normal(5e6, 1e5, count)
    width, height = rng.exponential(2000, count), rng.exponential(3000, count)
    return shapely.box(west, south, west + width, south + height)


def written(tmp_path, boxes, *, size=1000):
    layer = PolygonLayer(
        crs=CRS.from_epsg(32633),
        legend=Legend.of_names({0: "none"}),
        schema=SCHEMA,
        geometry_type="Polygon",
    )
    return write_batches(batches(boxes, size=size), tmp_path / "x.fgb", layer=layer)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 255, 256, 257, 5000])
def test_a_search_by_place_finds_exactly_what_is_there(tmp_path, count):
    boxes = random_boxes(count)
    path = written(tmp_path, boxes, size=77)
    info = pyogrio.read_info(path, force_total_bounds=True)
    assert info["features"] == count
    assert info["capabilities"]["fast_spatial_filter"]
    np.testing.assert_allclose(info["total_bounds"], shapely.total_bounds(boxes))
    whole = pyogrio.read_dataframe(path)
    assert sorted(whole.class_id) == list(range(count))
    geometries = whole.sort_values("class_id").geometry.to_numpy()
    assert shapely.equals_exact(shapely.normalize(geometries), shapely.normalize(boxes)).all()
    for seed in range(20):
        window = shapely.buffer(random_boxes(1, seed + 100)[0], 2e4, join_style="mitre")
        found = pyogrio.read_dataframe(path, bbox=window.bounds).class_id
        expected = np.flatnonzero(shapely.intersects(boxes, window))
        assert sorted(found) == expected.tolist()


def test_neighbours_in_the_file_are_neighbours_on_the_map(tmp_path):
    """As in GDAL's own order; that of the features given is random."""
    boxes = random_boxes(4000)
    order = pyogrio.read_dataframe(written(tmp_path, boxes)).class_id.to_numpy()
    centres = shapely.get_coordinates(shapely.centroid(boxes))
    centres /= centres.std(axis=0)
    steps = np.hypot(*np.diff(centres[order], axis=0).T)
    assert np.median(steps) < 0.1
    assert steps.sum() < 0.05 * np.hypot(*np.diff(centres, axis=0).T).sum()


def test_features_in_one_place_and_none_at_all_are_written(tmp_path):
    one_place = np.repeat(shapely.box(10, 20, 30, 40), 40)
    assert len(pyogrio.read_dataframe(written(tmp_path, one_place), bbox=(0, 0, 11, 21))) == 40
    (tmp_path / "x.fgb").unlink()
    assert len(pyogrio.read_dataframe(written(tmp_path, one_place[:0]))) == 0


def test_nothing_but_the_file_and_its_style_is_left(tmp_path):
    written(tmp_path, random_boxes(50))
    assert {entry.name for entry in tmp_path.iterdir()} == {"x.fgb", "x.qml"}
