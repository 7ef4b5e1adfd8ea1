"""What is given in place of a path is used where that is natural, or refused in one sentence."""

from __future__ import annotations

import dataclasses
import inspect
import io
import re
import shutil

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
from rasters import write_raster
from sampled_maps import write_map

import geodinoseg as gds
from geodinoseg.files.arguments import listed


class DataArray:
    """As xarray names it; the test needs no xarray."""


DataArray.__module__ = "xarray.core.dataarray"

FRAME = geopandas.GeoDataFrame({"class": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=32633)
WRONG = {
    "None": None,
    "a number": 3,
    "bytes": b"scene.tif",
    "pixels": np.zeros((3, 4)),
    "a tensor": torch.zeros(3, 4),
    "an xarray": DataArray(),
    "a frame": FRAME,
    "a table": pd.DataFrame({"class": ["a"]}),
    "a polygon": shapely.box(0, 0, 1, 1),
    "an open file": io.BytesIO(b"II"),
    "a dictionary": {"path": 3},
    "a list of numbers": [1, 2],
    "an object": object(),
}
TAKEN = {
    ("labels", "a frame"),
    ("extent", "a frame"),
    ("regions", "a frame"),
    ("labels", "None"),  # in folders of chips
}
_IS_A_PATH = re.compile(r"Path|Areas|Labels|ScenesToSegment")


@pytest.fixture(scope="module")
def calls(color_field, small_model, backbone, tmp_path_factory):
    """A call of each public function that takes a path, and its arguments."""
    folder = tmp_path_factory.mktemp("arguments")
    class_raster = write_map(
        folder / "map.tif", color_field.channels, dict(enumerate(("field", "roof", "water")))
    )
    (folder / "legend.csv").write_text("id,name,color\n1,roof,#aa0000\n")
    scene, labels, out = color_field.scene, color_field.labels, folder / "out"
    train = {"scenes": scene, "labels": labels, "output": folder / "a.model"}
    segment = {"scene": scene, "model": small_model, "output": folder / "new.tif", "device": "cpu"}
    segmentor = gds.load_model(small_model, device="cpu")
    return {
        "find_scenes": {"named": [scene]},
        "segment_scenes": {"scenes": [scene], "model": small_model, "folder": out},
        "connect_workers": {"address": "tcp://127.0.0.1:1"},
        "evaluate_map": {"class_raster": class_raster, "labels": labels},
        "write_report": {
            "output": folder / "report.html",
            "by_labels": gds.evaluate_map(class_raster, labels),
        },
        "draw_sample": {"class_raster": class_raster, "output": folder / "points.gpkg"},
        "evaluate_sample": {"class_raster": class_raster, "points": folder / "points.gpkg"},
        "load_model": {"folder": small_model},
        "save_model": {"segmentor": segmentor, "folder": folder / "b.model"},
        "plot_map": {
            "scene": scene,
            "class_raster": class_raster,
            "output_png": folder / "map.png",
        },
        "polygonize": {"raster": class_raster},
        "write_polygons": {"raster": class_raster, "output": folder / "polygons.gpkg"},
        "open_class_raster": {"path": class_raster},
        "measure_areas": {"class_raster": class_raster},
        "style_map": {"class_raster": class_raster, "style": folder / "legend.csv"},
        "open_scene": {"scene": scene},
        "plan_segmentation": segment,
        "segment_scene": segment,
        "plan_training": {**train, "network": {"backbone": backbone}},
        "train_model": {**train, "network": {"backbone": backbone}},
        "DinoV2Segmentor": {"backbone": backbone, "quantize": False},
        "LabelOptions": {},
        "EvaluationOptions": {},
    }


def paths_of(function):
    """Parameters of a function, or of a class, that take a path."""
    if dataclasses.is_dataclass(function):
        annotations = {field.name: field.type for field in dataclasses.fields(function)}
    else:
        annotations = {
            name: p.annotation for name, p in inspect.signature(function).parameters.items()
        }
    return [name for name, text in annotations.items() if _IS_A_PATH.search(str(text))]


def is_made_by_functions(value):
    """Whether users do not build it: its fields are checked before."""
    return dataclasses.is_dataclass(value) and re.search(r"[Mm]ade by", value.__doc__ or "")


PARAMETERS = [
    (name, parameter)
    for name in gds.__all__
    if callable(getattr(gds, name)) and not is_made_by_functions(getattr(gds, name))
    for parameter in paths_of(getattr(gds, name))
]


def call(name, **arguments):
    """Call a function until it is sure of its arguments."""
    found = getattr(gds, name)(**arguments)
    if name == "connect_workers":
        with found:
            pass
    if name == "EvaluationOptions":  # checked where they are used
        gds.evaluate_map("map.tif", "labels.gpkg", options=found)


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_every_path_of_every_function_is_checked(
    name, parameter, calls, color_field, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(calls["polygonize"]["raster"], "map.tif")
    shutil.copy(color_field.labels, "labels.gpkg")
    signature = inspect.signature(getattr(gds, name)).parameters[parameter]
    for kind, value in WRONG.items():
        if (parameter, kind) in TAKEN or (value is None and signature.default is None):
            continue
        with pytest.raises(gds.GeodinosegError) as caught:
            call(name, **{**calls[name], parameter: value})
        message = str(caught.value)
        assert re.search(r": expected .+, not .+; .+\.$|no labels were given", message), message
        assert "\n" not in message
    assert not (calls["segment_scenes"]["folder"]).exists()


def test_the_way_out_suits_what_was_given(color_field):
    ways = {
        "an xarray": r'xarray\.DataArray; write it with rioxarray, \.rio\.to_raster\("FILE\.tif"\)',
        "pixels": "write it with rasterio as a GeoTIFF with its CRS and transform",
        "a frame": r'write it with \.to_file\("FILE\.gpkg"\)',
        "an open file": "give its path",
        "a list of numbers": "give one path",
    }
    for kind, way in ways.items():
        with pytest.raises(gds.errors.SceneError, match=way):
            gds.open_scene(WRONG[kind])
    with rasterio.open(color_field.scene) as dataset:
        assert gds.open_scene(dataset) == gds.open_scene(color_field.scene)
        with pytest.raises(gds.errors.SceneError, match="its path, which is its name"):
            gds.open_class_raster(dataset)


def test_several_paths_may_come_in_any_container(tmp_path):
    paths = [write_raster(tmp_path / f"{i}.tif", np.ones((1, 5, 6), np.uint8)) for i in range(2)]
    texts = [str(path) for path in paths]
    for given in (
        *(paths, tuple(texts), (path for path in paths), dict.fromkeys(texts).keys()),
        *(pd.Series(texts), np.array(texts), np.array(paths, dtype=object)),
    ):
        assert [str(path) for path in listed(given)] == texts
    for one in (texts[0], paths[0], FRAME, {"a": 1}, np.zeros((2, 2)), io.BytesIO(), None):
        assert listed(one)[0] is one
    found = gds.find_scenes(tmp_path)
    assert found == gds.find_scenes(str(tmp_path)) == gds.find_scenes(paths)
    assert [scene.stem for scene in found] == ["0", "1"]


def test_a_single_file_of_polygons_may_be_given_as_such(color_field, small_model, tmp_path):
    gds.segment_scene(
        color_field.scene,
        small_model,
        str(tmp_path / "map.tif"),
        polygons=str(tmp_path / "map.gpkg"),
        device="cpu",
    )
    assert (tmp_path / "map.gpkg").is_file()


def test_a_number_of_workers_is_no_workers(color_field, small_model, tmp_path):
    with pytest.raises(gds.errors.ClusterError, match=r"give geodinoseg\.local_workers\(3\)"):
        gds.segment_scene(color_field.scene, small_model, tmp_path / "map.tif", workers=3)


def test_arguments_in_the_wrong_order_are_told(small_model, tmp_path):
    model = gds.load_model(small_model, device="cpu")
    with pytest.raises(gds.errors.ModelError, match="what train_model or load_model returned"):
        gds.save_model(tmp_path / "a.model", model)
    with pytest.raises(gds.errors.ModelFolderError, match="a loaded Segmentor or another TileMod"):
        gds.segment_scene("scene.tif", model.network, tmp_path / "map.tif")


def test_the_class_field_has_one_place():
    places = {
        name
        for name in gds.__all__
        if callable(getattr(gds, name))
        and any("class_field" in p for p in inspect.signature(getattr(gds, name)).parameters)
    }
    assert places == {"LabelOptions"}
    for name in ("train_model", "plan_training", "evaluate_map"):
        assert "label_options" in inspect.signature(getattr(gds, name)).parameters


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("train_model", "settings"),
        ("train_model", "label_options"),
        ("plan_training", "settings"),
        ("plan_training", "label_options"),
        ("segment_scene", "settings"),
        ("plan_segmentation", "settings"),
        ("segment_scenes", "settings"),
        ("segment_scenes", "names"),
        ("evaluate_map", "label_options"),
    ],
)
@pytest.mark.parametrize("given", [{"seed": 1}, "seed=1", 3])
def test_options_of_another_type_are_refused_in_one_sentence(name, parameter, given, calls):
    with pytest.raises(gds.GeodinosegError, match=rf"^{parameter}: expected geodinoseg\.\w+, not "):
        call(name, **{**calls[name], parameter: given})


@pytest.mark.parametrize("name", ["train_model", "plan_training"])
def test_a_network_that_is_no_dictionary_is_refused(name, calls):
    with pytest.raises(gds.GeodinosegError, match=r'write it as \{"backbone": "FOLDER"\}'):
        call(name, **{**calls[name], "network": "backbone"})


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None, True])
def test_a_number_of_workers_that_cannot_be_is_refused(count):
    with (
        pytest.raises(gds.GeodinosegError, match="give a whole number of at least 1"),
        gds.local_workers(count),
    ):
        pass


def test_short_names_are_appended_to_the_stem():
    names = gds.OutputNames(confidence="_sure.tif", polygons=".gpkg")
    assert (names.confidence, names.polygons) == ("{stem}_sure.tif", ("{stem}.gpkg",))
