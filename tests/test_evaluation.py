"""Maps against labels, with scikit-learn as the oracle."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.testing import assert_array_equal
from rasters import ROTATED, IdentityModel, write_raster
from shapely.affinity import affine_transform
from shapely.geometry import box
from sklearn.metrics import confusion_matrix as sklearn_confusion

from geodinoseg.cli import main
from geodinoseg.errors import LabelError
from geodinoseg.evaluation import evaluate_map
from geodinoseg.legend import Legend
from geodinoseg.plan import SegmentSettings
from geodinoseg.segmentation import segment_scene

HEIGHT, WIDTH = 61, 83
IDS = np.array([3, 40, 7])


@pytest.fixture
def pixels() -> np.ndarray:
    pixels = np.random.default_rng(2).integers(0, 3, (1, HEIGHT, WIDTH)).astype(np.uint8)
    pixels[0, :9, :20] = 99
    return pixels


@pytest.fixture
def class_map(tmp_path, pixels):
    """A map of classes 3, 40 and 7, in that order of channels, with nodata in a corner."""
    model = IdentityModel(classes=3)
    legend = Legend.of_names({3: "water", 7: "wood", 40: "field"})
    by_id = legend.by_id()
    model.legend = Legend(tuple(by_id[int(i)] for i in IDS))
    scene = write_raster(tmp_path / "s.tif", pixels, nodata=99)
    choices = SegmentSettings(tile_px=32)
    return segment_scene(scene, model, tmp_path / "map.tif", settings=choices).path


def write_polygons(path, boxes, names):
    """Boxes in pixels, (col, row, col, row), as polygons in the map's CRS."""
    a, b, c, d, e, f = ROTATED[:6]
    shapes = [affine_transform(box(*corners), (a, b, d, e, c, f)) for corners in boxes]
    frame = geopandas.GeoDataFrame({"class": names}, geometry=shapes, crs="EPSG:32633")
    frame.to_file(path)
    return path


def test_the_matrix_is_that_of_scikit_learn(tmp_path, class_map, pixels):
    boxes = [(0, 0, 30, 25), (30, 10, 60, 50), (70, 30, 83, 61)]
    labels = write_polygons(tmp_path / "l.gpkg", boxes, ["wood", "water", "field"])
    accuracy, legend = evaluate_map(class_map, labels)
    reference = np.full((HEIGHT, WIDTH), -1)
    for (left, top, right, bottom), channel in zip(boxes, (2, 0, 1), strict=True):
        reference[top:bottom, left:right] = channel
    counts = (reference >= 0) & (pixels[0] != 99)
    expected = sklearn_confusion(reference[counts], pixels[0][counts], labels=[0, 1, 2])
    assert legend.names == ("water", "field", "wood")
    assert_array_equal(accuracy.matrix, expected)


def test_a_map_against_itself_is_right(class_map):
    accuracy, _ = evaluate_map(class_map, class_map)
    assert accuracy.overall == accuracy.mean_iou == 1.0


def test_the_command_prints_a_table_and_writes_json(tmp_path, class_map):
    labels = write_polygons(
        tmp_path / "l.gpkg", [(0, 0, 30, 25), (30, 0, 60, 25)], ["wood", "water"]
    )
    output = tmp_path / "accuracy.json"
    arguments = ["evaluate", str(class_map), "--labels", str(labels), "-o", str(output)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "overall accuracy" in result.stdout
    facts = json.loads(output.read_text())
    assert [c["name"] for c in facts["classes"]] == ["water", "field", "wood"]
    assert len(facts["iou"]) == 3
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "exists already" in again.stderr


def test_labels_over_nodata_alone_are_refused(tmp_path, class_map):
    labels = write_polygons(tmp_path / "l.gpkg", [(0, 0, 10, 8), (10, 0, 20, 8)], ["wood", "water"])
    with pytest.raises(LabelError, match=r"l\.gpkg: no labelled pixel lies where"):
        evaluate_map(class_map, labels)
