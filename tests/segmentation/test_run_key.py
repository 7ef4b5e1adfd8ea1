"""The key of a run changes with everything that the bytes of its map depend on."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest
from rasters import write_raster

from geodinoseg.legend import Legend
from geodinoseg.model.description import model_fingerprint
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.rasters.scene_fingerprint import scene_fingerprint
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.runner import ThisProcess
from geodinoseg.segmentation.settings import SegmentationSettings

# Another value of each setting; None where the setting changes no byte except through the panels,
# which `test_every_field_of_the_plan_...` covers.
OTHER_SETTINGS = {
    "tile_px": 28,
    "overlap_px": 6,
    "batch_size": 3,
    "bands": (3, 2, 1),
    "nodata": 7.0,
    "precision": "bfloat16",
    "resolution_m": 2.0,
    "max_memory": None,
}


@pytest.fixture
def prepare(tmp_path, small_model):
    """A function that prepares a run of a scene with some settings, and gives its job."""
    pixels = np.random.default_rng(1).integers(1, 200, (3, 90, 110), dtype=np.uint8)
    scene = write_raster(tmp_path / "scene.tif", pixels)

    def prepare(model=small_model, **settings):
        options = SegmentationSettings(**settings)
        opened = open_scene(scene, bands=options.bands, nodata=options.nodata)
        files = MapFiles(class_raster=tmp_path / "map.tif")
        return ThisProcess().prepare(opened, model, files, options, device="cpu")

    return prepare


def test_every_setting_is_in_the_key(prepare, caplog):
    caplog.set_level(logging.ERROR)
    fields = {field.name for field in dataclasses.fields(SegmentationSettings)}
    assert set(OTHER_SETTINGS) == fields
    keys = {"": prepare().run.key}
    for name, value in OTHER_SETTINGS.items():
        if value is not None:
            keys[name] = prepare(**{name: value}).run.key
    assert len(set(keys.values())) == len(keys)


def test_every_field_of_the_plan_is_in_its_fingerprint_or_changes_no_byte(prepare):
    plan = prepare().plan
    chunk = plan.chunks[0]
    wider = dataclasses.replace(chunk.core, col_off=chunk.core.col_off + 1)
    others = {
        "scene": dataclasses.replace(plan.scene, bands=(2, 1, 3)),
        "grid": dataclasses.replace(plan.grid, overlap_px=plan.grid.overlap_px + 2),
        "chunks": (dataclasses.replace(chunk, core=wider), *plan.chunks[1:]),
        "batch_size": plan.batch_size + 1,
        "legend": Legend.of_names({0: "a", 1: "b", 2: "c"}),
        "scale": 0.5,
        "aspect": 2.0,
    }
    without_effect = {"layers", "memory", "seconds"}  # the layers are in the key of the run
    assert others.keys() | without_effect == {field.name for field in dataclasses.fields(Plan)}
    found = {
        dataclasses.replace(plan, **{name: value}).fingerprint for name, value in others.items()
    }
    assert len(found | {plan.fingerprint}) == len(others) + 1


def test_every_field_of_a_scene_is_in_its_fingerprint(prepare):
    scene = prepare().plan.scene
    box = scene.geobox
    others = {
        "geobox": dataclasses.replace(box, width=box.width - 1),
        "bands": (2, 1, 3),
        "dtype": np.dtype(np.uint16),
        "nodata": (None, 3.0, None),
        "validity": ("mask",),
        "alpha_band": 3,
        "block_shape": (3, 110),
        "scales": (2.0, 1.0, 1.0),
        "offsets": (0.5, 0.0, 0.0),
    }
    # Content stands for the source; the nodata value that was given is in `nodata`; names change
    # no pixel.
    without_effect = {"source", "nodata_override", "names"}
    assert others.keys() | without_effect == {field.name for field in dataclasses.fields(Scene)}
    found = {
        json.dumps(scene_fingerprint(dataclasses.replace(scene, **{name: value})))
        for name, value in others.items()
    }
    assert len(found | {json.dumps(scene_fingerprint(scene))}) == len(others) + 1


def test_every_file_that_a_model_loads_is_in_its_fingerprint(tmp_path, small_model):
    folder = tmp_path / "copy.model"
    shutil.copytree(small_model, folder)
    config = folder / "config.json"
    text, before = config.read_text(), model_fingerprint(folder)
    loaded = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".json") and path != config
    }
    assert {"model.safetensors", "backbone/model.safetensors", "backbone/config.json"} <= loaded
    for name in loaded:
        digest = json.loads(text)["sha256"][name]
        config.write_text(text.replace(digest, digest[::-1]))
        assert model_fingerprint(folder) != before
