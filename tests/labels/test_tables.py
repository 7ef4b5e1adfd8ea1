"""A GeoDataFrame in place of a file: the same labels as from a GeoPackage with the same rows."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from label_files import BOX, HEIGHT, UTM, WIDTH, ground, square
from numpy.testing import assert_array_equal

from geodinoseg.errors import LabelError
from geodinoseg.labels.open import open_label_set, open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.paths import label_files, recorded_name
from geodinoseg.windows import Window

CELLS = [square(5, 5), square(40, 40), square(9, 7), square(70, 20, 12)]


def frame_of(cells=CELLS, *, crs=None, **columns):
    columns = columns or {"class": ["tin", "wood", "wood", "tin"]}
    frame = geopandas.GeoDataFrame(columns, geometry=list(ground(cells)), crs=UTM)
    return frame if crs is None else frame.to_crs(crs)


def read(labels, box=BOX, **options):
    """Names of the classes by id, and the class index of each pixel."""
    found = open_labels(labels, box, options=LabelOptions(**options))
    whole = found.read(Window(col_off=0, row_off=0, width=WIDTH, height=HEIGHT))
    return {entry.class_id: (entry.name, entry.color) for entry in found.legend}, whole


def assert_as_from_a_file(frame, folder, **options):
    frame.to_file(folder / "same.gpkg")
    (classes, whole), (of_file, whole_of_file) = (
        read(labels, **options) for labels in (frame, folder / "same.gpkg")
    )
    assert classes == of_file
    assert_array_equal(whole, whole_of_file)


FRAMES = {
    "names": frame_of(),
    "numbers": frame_of(class_id=[1, 2, 2, 1]),
    "numbers as floating point with a gap": frame_of(class_id=[1.0, 2.0, None, 1.0]),
    "numbers and their names": frame_of(class_id=[7, 3, 3, 7], class_name=list("abba")),
    "text with gaps and blanks": frame_of(**{"class": ["tin ", " wood", None, ""]}),
    "categories": frame_of(**{"class": pd.Categorical(["tin", "wood", "wood", "tin"])}),
    "nullable numbers": frame_of(class_id=pd.array([1, 2, None, 1], dtype="Int64")),
    "degrees": frame_of(crs=4326),
    "another zone": frame_of(crs=32644),
    "the class in the index": frame_of().dissolve(by="class"),
    "unsorted index": frame_of().set_index(pd.Index([3, 3, 0, 9])),
    "three dimensions": frame_of([shapely.force_3d(cell, 5.0) for cell in CELLS]),
    "a missing and an empty geometry": frame_of().set_geometry(
        [None, shapely.Polygon(), *ground(CELLS[:2])], crs=UTM
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_gives_the_labels_of_a_file_with_its_rows(tmp_path, name):
    before = FRAMES[name].copy(deep=True)
    assert_as_from_a_file(FRAMES[name], tmp_path)
    assert FRAMES[name].equals(before), "the frame is not changed"


def test_options_apply_to_a_frame_as_to_a_file(tmp_path):
    frame = frame_of(Crop=["tin", "wood", "sand", "tin"])
    assert_as_from_a_file(frame, tmp_path, class_field="crop", unlabelled="background")
    assert_as_from_a_file(frame, tmp_path, class_field="Crop", ignore_classes=("sand",))
    assert_as_from_a_file(frame, tmp_path, class_field="Crop", all_touched=True)


def test_a_column_may_have_any_name_and_the_geometry_too(tmp_path):
    frame = frame_of().rename_geometry("outline").rename(columns={"class": 4})
    classes, _ = read(frame, class_field="4")
    assert [name for name, _ in classes.values()] == ["tin", "wood"]


def test_an_extent_may_be_a_frame_or_a_series(tmp_path):
    checked = frame_of([square(0, 0, 60)], note=["x"], crs=4326)
    checked.to_file(tmp_path / "checked.gpkg")
    expected = read(frame_of(), extent=tmp_path / "checked.gpkg")
    for extent in (checked, checked.geometry):
        found = read(frame_of(), extent=extent)
        assert found[0] == expected[0]
        assert_array_equal(found[1], expected[1])


def test_each_class_may_have_its_own_frame_or_file(tmp_path):
    tin, wood = frame_of(CELLS[:2], note=["a", "b"]), frame_of(CELLS[2:], note=["a", "b"], crs=4326)
    tin.to_file(tmp_path / "tin.gpkg")
    wood.to_file(tmp_path / "wood.gpkg")
    expected = read([f"tin={tmp_path / 'tin.gpkg'}", f"wood={tmp_path / 'wood.gpkg'}"])
    for labels in ({"tin": tin, "wood": wood}, {"tin": tmp_path / "tin.gpkg", "wood": wood}):
        found = read(labels)
        assert found[0] == expected[0]
        assert_array_equal(found[1], expected[1])


def test_frames_of_several_scenes_are_told_apart(caplog):
    other = frame_of(**{"class": ["sand", "mud", "mud", "sand"]})
    files = label_files([frame_of(), other])
    assert [str(file) for file in files] == ["labels 1 (GeoDataFrame)", "labels 2 (GeoDataFrame)"]
    first, second = open_label_set(files, [BOX, BOX])
    assert first.legend.names == second.legend.names == ("mud", "sand", "tin", "wood")
    assert "labels 2 (GeoDataFrame): polygons of different classes overlap" in caplog.text


def test_the_recorded_name_changes_with_the_polygons_alone():
    def name(frame):
        return recorded_name(label_files([frame])[0])

    frame = frame_of()
    assert name(frame) == name(frame.copy()) == name(frame.assign(note="x"))
    moved = frame.set_geometry(frame.translate(0.001, 0))
    undefined = frame.set_crs(None, allow_override=True)
    assert len({name(frame), name(moved), name(frame.iloc[1:]), name(undefined)}) == 4


REFUSED = {
    "no crs": (
        frame_of().set_crs(None, allow_override=True),
        r'has no CRS; set it with \.set_crs\("EPSG:32645"\)',
    ),
    "no class column": (
        frame_of(kind=[1, 2, 3, 4]),
        r"labels \(GeoDataFrame\): has no column class",
    ),
    "no row": (frame_of().iloc[:0], "holds no feature"),
    "no polygon": (frame_of().set_geometry(frame_of().boundary), "LineStrings and no polygon"),
    "no geometry set": (
        frame_of().drop(columns="geometry").pipe(geopandas.GeoDataFrame),
        "set_geom",
    ),
    "geometries alone": (frame_of().geometry, "GeoSeries has geometries alone"),
    "a table without geometries": (pd.DataFrame({"class": ["a"]}), "make it a GeoDataFrame"),
    "a polygon": (CELLS[0], "of type shapely.Polygon; put it into a GeoDataFrame"),
    "polygons": (
        CELLS,
        "labels 1: expected a path, NAME=FILE or a GeoDataFrame, not an object of type shapely.Polygon",
    ),
    "pixels": (np.zeros((3, 3)), "of type numpy.ndarray; write it with rasterio as a GeoTIFF"),
    "nothing": (None, "labels: expected a path, NAME=FILE or a GeoDataFrame, not None"),
    "a number": (
        {"tin": 3},
        r"labels\['tin'\]: expected a path or a GeoDataFrame, not an object of type int",
    ),
    "an empty dictionary": ({}, "empty dictionary"),
    "a frame beside a file of one class": ([frame_of(), "a=b"], "holds the class 'a' alone"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_of_labels_is_refused_in_one_sentence(name):
    labels, message = REFUSED[name]
    with pytest.raises(LabelError, match=message) as caught:
        open_labels(labels, BOX)
    assert "\n" not in str(caught.value)
