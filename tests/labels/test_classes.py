"""Class columns as people fill them in, and every way in which labels can be wrong."""

import sqlite3

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, strategies as st
from rasterio.crs import CRS

from geodinoseg.errors import LabelError
from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE, class_columns, feature_classes
from geodinoseg.labels.open import open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.legend import Legend
from geodinoseg.windows import Window

UTM = CRS.from_epsg(32645)
BOX = GeoBox(
    crs=UTM,
    transform=Affine.translation(350_000, 3_056_000) @ Affine.rotation(20) @ Affine.scale(2, -2),
    width=101,
    height=67,
)


def polygons(count, *, crs=UTM, shift_m=0.0, **columns):
    squares = [shapely.box(9 * n, 9, 9 * n + 8, 17) for n in range(count)]
    ground = shapely.transform(
        np.array(squares), lambda points: np.column_stack(BOX.transform @ tuple(points.T)) + shift_m
    )
    return geopandas.GeoDataFrame(columns, geometry=list(ground), crs=crs)


def legend_of(path, **options):
    labels = open_labels(path, BOX, options=LabelOptions(**options))
    return {entry.class_id: entry.name for entry in labels.legend}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["tin", "concrete", "tin"], {1: "concrete", 2: "tin"}),
        (["tin", "background", None], {0: "background", 1: "tin"}),
        ([7, 3, 7], {3: "class 3", 7: "class 7"}),
        ([7.0, None, 3.0], {3: "class 3", 7: "class 7"}),
        (["10", "9", " 9 "], {9: "class 9", 10: "class 10"}),
        (["1.0", "2.", ""], {1: "class 1", 2: "class 2"}),
        (["1", "2b", "2b"], {1: "1", 2: "2b"}),
        ([True, False, True], {0: "class 0", 1: "class 1"}),
        (["Straße & Gleis <1>", "é", "é"], {1: "Straße & Gleis <1>", 2: "é"}),
        ([65_534, 0, 0], {0: "class 0", 65_534: "class 65534"}),
    ],
)
@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_class_columns_hold_names_or_numbers(tmp_path, values, expected, suffix):
    path = tmp_path / f"labels{suffix}"
    frame = polygons(3, crop=values).to_crs(4326)
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_file(path)
    assert legend_of(path, class_field="CROP") == expected


@given(st.lists(st.text("abcXYZ ä-", min_size=1, max_size=4) | st.none(), min_size=1))
def test_ids_of_names_follow_their_order(texts):
    classes = feature_classes("labels.gpkg", "class", texts)
    names = sorted({text.strip() for text in texts if text and text.strip()})
    assert classes.names == dict(enumerate(names, start=1))
    for text, class_id in zip(texts, classes.class_ids.tolist(), strict=True):
        unknown = text is None or not text.strip()
        assert class_id == IGNORE if unknown else classes.names[class_id] == text.strip()


@given(st.lists(st.integers(0, 65_534) | st.none(), min_size=1), st.sampled_from([int, float, str]))
def test_numbers_stay_as_they_are_however_they_are_stored(numbers, kind):
    values = [None if number is None else kind(number) for number in numbers]
    ids = feature_classes("labels.gpkg", "class", values).class_ids
    assert ids.tolist() == [IGNORE if number is None else number for number in numbers]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["osm_id", "label", "Class_Name"], ("Class_Name", None)),
        (["label", "CLASS", "class_id"], ("CLASS", None)),
        (["class_name", "class_id"], ("class_id", "class_name")),
        (["area", "class_id"], ("class_id", None)),
        (["Label"], ("Label", None)),
    ],
)
def test_the_usual_columns_are_found_unasked(columns, found):
    assert class_columns("labels.gpkg", columns, None) == found


def test_ids_and_names_of_a_map_come_back(tmp_path):
    path = tmp_path / "map.gpkg"
    frame = polygons(4, class_id=[5, 2, None, 2], class_name=["water", None, None, "wood"])
    frame.to_file(path)
    assert legend_of(path) == {2: "wood", 5: "water"}
    assert legend_of(path, class_field="class_id") == {2: "class 2", 5: "class 5"}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"class": ["tin", "tin"]}, {0: "background", 1: "tin"}),
        ({"class": ["tin", "background"]}, {0: "background", 1: "tin"}),
        ({"class": [3, 3]}, {0: "background", 3: "class 3"}),
        ({"class": [3, 0]}, {0: "background", 3: "class 3"}),
        ({"class_id": [3, 8], "class_name": ["a", "Background"]}, {3: "a", 8: "Background"}),
    ],
)
def test_unlabelled_pixels_become_the_background_there_is_or_class_0(tmp_path, columns, expected):
    path = tmp_path / "labels.gpkg"
    polygons(2, **columns).to_file(path)
    assert legend_of(path, unlabelled="background") == expected


@pytest.mark.parametrize("name", ["9", "class 9"])
def test_numbers_are_ignored_by_number_or_name(tmp_path, name):
    path = tmp_path / "labels.gpkg"
    polygons(3, **{"class": [9, 1, 2]}).to_file(path)
    assert legend_of(path, ignore_classes=(name,)) == {1: "class 1", 2: "class 2"}


def test_an_id_out_of_range_may_be_ignored(tmp_path):
    path = tmp_path / "labels.gpkg"
    polygons(3, **{"class": [-9999, 1, 2]}).to_file(path)
    assert legend_of(path, ignore_classes=("-9999",)) == {1: "class 1", 2: "class 2"}


LEGEND = Legend.of_names({1: "tin", 2: "wood"})


@pytest.mark.parametrize(
    ("columns", "ids"),
    [
        ({"class": ["wood", "tin"]}, [2, 1]),
        ({"class": [2, 1]}, [2, 1]),
        ({"class_id": [1, 2], "class_name": ["tin", None]}, [1, 2]),
    ],
)
def test_classes_fit_a_given_legend_by_name_or_number(tmp_path, columns, ids):
    path = tmp_path / "labels.gpkg"
    polygons(2, **columns).to_file(path)
    labels = open_labels(path, BOX, legend=LEGEND)
    assert labels.legend == LEGEND
    assert labels.source.class_indices.tolist() == [class_id - 1 for class_id in ids]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        (
            {"class": ["rock", "tin"]},
            "class 'rock' is not a class of the map, whose classes are 1 tin, 2 wood; map it to one "
            "of them with --rename rock=CLASS, or leave it out with --ignore-class.",
        ),
        ({"class": [3, 1]}, r"class 3 (class 3) is not a class of the map"),
        ({"class_id": [1, 2], "class_name": ["wood", "tin"]}, "class 1 (wood) is not a class"),
    ],
)
def test_classes_that_do_not_fit_a_given_legend_are_said(tmp_path, columns, fault):
    path = tmp_path / "labels.gpkg"
    polygons(2, **columns).to_file(path)
    assert fault in error_of(path, legend=LEGEND)


def error_of(path, legend=None, **options):
    """The one-line message with which labels are refused; it names the file."""
    with pytest.raises(LabelError) as raised:
        open_labels(path, BOX, options=LabelOptions(**options), legend=legend)
    message = str(raised.value)
    assert str(path) in message
    assert "\n" not in message
    return message


TWO = {"class": ["tin", "wood"]}


@pytest.mark.parametrize(
    ("columns", "options", "fault"),
    [
        ({"kind": ["a", "b"]}, {}, "its columns are kind, area"),
        (
            TWO,
            {"class_field": "roof"},
            "has no column 'roof'; give another (its columns are class, area)",
        ),
        (
            TWO,
            {"ignore_classes": ("brick",)},
            "has no class 'brick' to ignore; its classes are tin",
        ),
        (TWO, {"ignore_classes": ("tin",)}, "one class only, 'wood'"),
        (TWO, {"ignore_classes": ("tin", "wood")}, "has no class in the scene"),
        ({"class": ["tin", "tin"]}, {}, "one class only, 'tin'"),
        ({"class": [None, None]}, {}, "has no class in the scene"),
        ({"class": [1.5, 2.0]}, {}, "holds 1.5"),
        ({"class": [np.inf, 2.0]}, {}, "holds inf"),
        ({"class": [1, 65_535]}, {}, "class id 65535"),
        ({"class": ["-1", "3"]}, {}, "class id -1"),
        ({"class": ["a\nb", "c"]}, {}, "rename"),
        ({"class_id": [1, 1], "class_name": ["a", "b"]}, {}, "class 1 is called 'a' and 'b'"),
        ({"class_id": [1, 2], "class_name": ["a", "a"]}, {}, "'a' is the name of classes 1 and 2"),
        (
            {"class_id": [0, 2], "class_name": ["water", "a"]},
            {"unlabelled": "background"},
            "class 0 is 'water'",
        ),
        (TWO, {"legend": LEGEND, "unlabelled": "background"}, "cannot be background"),
        ({"class": [None, ""]}, {"legend": LEGEND}, "has no class in the scene"),
    ],
)
def test_columns_that_cannot_be_classes_are_refused(tmp_path, columns, options, fault):
    path = tmp_path / "labels.gpkg"
    polygons(2, **columns, area=[1.0, 2.0]).to_file(path)
    assert fault in error_of(path, **options)


def test_dates_are_no_classes(tmp_path):
    path = tmp_path / "labels.gpkg"
    polygons(2, seen=np.array(["2024-05-01", "2024-05-02"], "datetime64[ms]")).to_file(path)
    assert "neither names nor numbers" in error_of(path, class_field="seen")


def test_missing_empty_and_damaged_files_are_refused(tmp_path):
    assert "no such file" in error_of(tmp_path / "absent.gpkg")
    empty = tmp_path / "empty.geojson"
    empty.touch()
    assert "is empty" in error_of(empty)
    note = tmp_path / "note.txt"
    note.write_text("concrete roofs are grey")
    assert "cannot be read as polygons" in error_of(note)
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "folder: holds no vector file" in error_of(folder)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet"])
def test_files_that_were_cut_off_are_refused(tmp_path, suffix):
    path, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    frame = polygons(2, **TWO)
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_file(path)
    content = path.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    assert "damaged" in error_of(cut)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet"])
def test_layers_without_features_are_refused(tmp_path, suffix):
    path = tmp_path / f"none{suffix}"
    frame = polygons(2, **TWO)[:0]
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_file(path)
    # A GeoJSON without features has no columns either.
    assert any(fault in error_of(path) for fault in ("no feature", "no columns"))


def test_one_of_several_layers_must_be_named(tmp_path):
    path = tmp_path / "two.gpkg"
    polygons(2, **TWO).to_file(path, layer="roofs")
    polygons(2, **{"class": ["oak", "elm"]}).to_file(path, layer="trees")
    assert "has 2 layers (roofs, trees)" in error_of(path)
    assert "has no layer 'lawns'; it has roofs, trees" in error_of(f"{path}|layername=lawns")
    assert legend_of(f"{path}|layername=trees") == {1: "elm", 2: "oak"}


def test_a_table_beside_the_polygons_is_no_layer(tmp_path):
    path = tmp_path / "styled.gpkg"
    polygons(2, **TWO).to_file(path, layer="roofs")
    table = pd.DataFrame({"styleQML": ["<qgis/>"]})
    pyogrio.write_dataframe(table, path, layer="layer_styles", append=True)
    assert legend_of(path) == {1: "tin", 2: "wood"}


@pytest.mark.parametrize("srs_id", [-1, 0])
def test_labels_without_crs_are_refused_where_the_scene_has_one(tmp_path, srs_id):
    path = tmp_path / "nowhere.gpkg"
    polygons(2, **TWO).to_file(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE gpkg_geometry_columns SET srs_id = ?", (srs_id,))
        database.execute("UPDATE gpkg_contents SET srs_id = ?", (srs_id,))
    database.close()
    message = error_of(path)
    assert "has no CRS" in message
    assert "EPSG:32645" in message


@pytest.mark.parametrize("crs", [32645, 4326, 2193])
def test_labels_in_another_place_are_refused_and_both_places_said(tmp_path, crs):
    path = tmp_path / "far.gpkg"
    polygons(2, shift_m=5_000, **TWO).to_crs(crs).to_file(path)
    message = error_of(path)
    assert "lies outside the scene; the labels cover x" in message
    assert "the scene x" in message


@pytest.mark.parametrize("wkt", ["POINT (1 2)", "LINESTRING (0 0, 9 9)", "POLYGON EMPTY"])
def test_points_lines_and_nothing_are_no_areas(tmp_path, wkt):
    path = tmp_path / "lines.gpkg"
    geopandas.GeoDataFrame(TWO, geometry=[shapely.from_wkt(wkt)] * 2, crs=UTM).to_file(path)
    assert "no polygon; labels are areas" in error_of(path)


def test_rasters_that_are_no_labels_are_refused(tmp_path):
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "width": 101, "height": 67, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=UTM, transform=BOX.transform):
        pass
    assert "has 3 bands" in error_of(path)


def test_names_that_differ_by_case_or_blanks_are_said(tmp_path, caplog):
    path = tmp_path / "labels.gpkg"
    names = ["Building ", "building", "tree  crown", "Tree crown", "field"]
    polygons(5, **{"class": names}).to_file(path)
    assert set(legend_of(path).values()) == {
        "Building",
        "building",
        "tree  crown",
        "Tree crown",
        "field",
    }
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert (
        "the classes 'Building' and 'building' differ only in case or spaces" in said[0] + said[1]
    )
    assert "'Tree crown' and 'tree  crown'" in said[0] + said[1]


@pytest.mark.parametrize("name", ["Wood", " WOOD ", "wood"])
def test_a_class_is_found_on_the_map_whatever_its_case(tmp_path, caplog, name):
    path = tmp_path / "labels.gpkg"
    polygons(2, **{"class": [name, "tin"]}).to_file(path)
    labels = open_labels(path, BOX, legend=LEGEND)
    assert labels.source.class_indices.tolist() == [1, 0]
    assert ("is matched to class 'wood' of the map" in caplog.text) == (name != "wood")
    both = Legend.of_names({1: "tin", 2: "wood", 3: "Wood"})
    if name == " WOOD ":
        assert "class 'WOOD' is not a class of the map" in error_of(path, legend=both)


def test_classes_are_renamed_to_those_of_a_map(tmp_path):
    path = tmp_path / "labels.gpkg"
    polygons(3, **{"class": ["ground", "tin", "bush"]}).to_file(path)
    options = LabelOptions(renames=(("ground", "wood"), ("bush", "2")))
    labels = open_labels(path, BOX, legend=LEGEND, options=options)
    assert labels.source.class_indices.tolist() == [1, 0, 1]
    numbers = tmp_path / "numbers.gpkg"
    polygons(2, **{"class": [7, 2]}).to_file(numbers)
    labels = open_labels(numbers, BOX, legend=LEGEND, options=LabelOptions(renames=(("7", "tin"),)))
    assert labels.source.class_indices.tolist() == [0, 1]
    for renames, fault in (
        (
            (("ground", "grass"),),
            "'ground' cannot be renamed to 'grass', which is not a class of the map; its classes",
        ),
        ((("rock", "wood"),), "has no class 'rock' to rename; its classes are bush, ground, tin"),
    ):
        assert fault in error_of(path, legend=LEGEND, renames=renames)
    assert "there is no map" in error_of(path, renames=(("ground", "wood"),))


def test_what_a_polygon_without_a_class_takes_from_others_is_said(tmp_path, caplog):
    path = tmp_path / "labels.gpkg"
    frame = polygons(3, **{"class": ["wood", "tin", None]})
    frame.loc[2, "geometry"] = frame.geometry.iloc[0]
    frame.to_file(path)
    labels = open_labels(path, BOX)
    said = "1 polygons have no class, so they are areas to ignore; they cover 64 pixels (256 m2)"
    assert said in caplog.text
    assert (
        labels.read(Window(col_off=0, row_off=0, width=BOX.width, height=BOX.height)) == 1
    ).sum() == 0
    caplog.clear()
    # Asked for, it is no slip.
    polygons(3, **{"class": ["wood", "tin", "old"]}).to_file(path)
    open_labels(path, BOX, options=LabelOptions(ignore_classes=("old",)))
    assert not caplog.records
