"""The key of a training: whatever changes its outcome is in it, field by field."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import shutil

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from rasters import ROTATED, write_raster
from safetensors.torch import load_file, save_file
from trainings import (
    color_channels,
    color_pixels,
    no_pictures,
    quick,
    squares_with_two_classes,
    write_backbone,
)

from geodinoseg.errors import LabelError, ModelFolderError, OutputExistsError
from geodinoseg.labels.options import LabelOptions
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.parameters import PARAMETERS
from geodinoseg.training.checkpoint import SETTINGS_WITHOUT_EFFECT
from geodinoseg.training.context import build_context
from geodinoseg.training.data import read_training_data
from geodinoseg.training.settings import Augmentation, TrainingSettings
from geodinoseg.training.train import train_model


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Files of a training on which every option has an effect."""
    folder = tmp_path_factory.mktemp("given")
    channels = color_channels(170, 230)
    pixels = color_pixels(channels)
    pixels[:, 100:, 150:] = np.where(pixels[:, 100:, 150:] % 7 == 0, 0, pixels[:, 100:, 150:])
    pixels[:, 160:, 200:] = 0
    write_raster(folder / "scene.tif", pixels)
    rng = np.random.default_rng(3)
    corners = [
        (int(r), int(c))
        for r, c in zip(rng.integers(0, 150, 40), rng.integers(0, 210, 40), strict=True)
    ]
    frame = squares_with_two_classes(channels, corners)
    frame.to_file(folder / "labels.gpkg")
    area = shapely.affinity.affine_transform(shapely.box(0, 0, 200, 150), ROTATED.to_shapely())
    geopandas.GeoDataFrame(geometry=[area], crs="EPSG:32633").to_file(folder / "extent.gpkg")
    (folder / "legend.csv").write_text(
        "id,name,color\n5,field,#112233\n6,roof,#445566\n7,water,#778899\n"
    )
    write_backbone(folder / "backbone")
    return folder


def fingerprint(given, *, settings=None, options=None, network=None, device="cpu", **changes):
    settings = settings or quick()
    data = read_training_data(
        changes.get("scene", given / "scene.tif"),
        changes.get("labels", given / "labels.gpkg"),
        bands=changes.get("bands"),
        nodata=changes.get("nodata"),
        options=options or LabelOptions(),
        settings=settings,
    )
    arguments = {"backbone": given / "backbone", "quantize": False} | (network or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        context = build_context(data, settings, arguments, torch.device(device))
    return context.fingerprint


@pytest.fixture(scope="module")
def plain(given):
    return fingerprint(given)


OTHER_SETTINGS = {
    "stage": "lora",
    "epochs": 3,
    "head_epochs": 1,
    "minutes": 5.0,
    "steps_per_epoch": 9,
    "batch_size": 6,
    "accumulate": 2,
    "gradient_checkpointing": True,
    "cached_crops": 3,
    "cache_bytes": 5,
    "crop_px": 42,
    "learning_rate": 0.5,
    "backbone_learning_rate": 0.5,
    "weight_decay": 0.5,
    "validation_share": 0.3,
    "augmentation": Augmentation(scale=1.2),
    "seed": 4,
    "band_projection": "widen",
}


def test_every_setting_is_in_the_key_or_said_to_have_no_effect(given, plain):
    assert OTHER_SETTINGS.keys() == {f.name for f in dataclasses.fields(TrainingSettings)}
    for name, value in OTHER_SETTINGS.items():
        assert getattr(quick(), name) != value
        is_same = fingerprint(given, settings=quick(**{name: value})) == plain
        assert is_same == (name in SETTINGS_WITHOUT_EFFECT), name


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Augmentation)])
def test_every_way_to_vary_crops_is_in_the_key(name, given, plain):
    value = (getattr(Augmentation(), name) or 0.2) / 2 + 1
    value = 0.5 if name == "band_dropout" else value
    changed = quick(augmentation=Augmentation(**{name: value}))
    assert fingerprint(given, settings=changed) != plain


OTHER_NETWORKS = {
    "n_block": 2,
    "channels": 32,
    "k_size": 5,
    "linear_head": False,
    "n_features": 2,
    "size": "small",
    "activation": "tanh",
    "r": 3,
    "lora_alpha": 3,
    "lora_dropout": 0.3,
    "fused_head": True,
}
NOT_GIVEN = {
    "peft": "follows from the stage",
    "num_classes": "follows from the legend",
    "components": "follow from the scenes",
    "rgb": "follows from the scenes",
    "bands": "follow from the scenes",
    "revision": "of a hub's name; the commit it stands for is in the key",
    "backbone": "see the test of its weights",
    "quantize": "see the test of 4 bit",
}


def test_every_argument_of_the_network_is_in_the_key(given, plain):
    parameters = set(inspect.signature(DinoV2Segmentor).parameters)
    assert OTHER_NETWORKS.keys() | NOT_GIVEN.keys() == parameters == set(PARAMETERS)
    for name, value in OTHER_NETWORKS.items():
        assert fingerprint(given, network={name: value}) != plain, name


def test_4_bit_is_in_the_key_and_so_are_the_rounded_weights(given):
    from model_fixtures import backbone_folder

    keys = [
        fingerprint(given, network={"backbone": backbone_folder(), "quantize": quantize})
        for quantize in (False, True)
    ]
    assert keys[0] != keys[1]


def other_backbones(given, folder):
    """One folder for each tensor of the backbone that has an effect, which alone is changed."""
    weights = load_file(given / "backbone" / "model.safetensors")
    for number, name in enumerate(n for n in sorted(weights) if "mask_token" not in n):
        other = shutil.copytree(given / "backbone", folder / str(number))
        changed = weights[name].clone()
        changed.view(-1)[-1] += 1
        save_file(weights | {name: changed}, other / "model.safetensors", {"format": "pt"})
        yield name, other


@pytest.mark.slow
def test_every_weight_of_the_backbone_is_in_the_key(given, plain, tmp_path):
    found = 0
    for name, other in other_backbones(given, tmp_path):
        assert fingerprint(given, network={"backbone": other}) != plain, name
        found += 1
    assert found > 30
    moved = shutil.copytree(given / "backbone", tmp_path / "moved")
    assert fingerprint(given, network={"backbone": moved}) == plain, "a copy is the same backbone"


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("config.json", {"num_attention_heads": 4}),
        ("config.json", {"layer_norm_eps": 0.1}),
        ("config.json", {"hidden_act": "relu"}),
        ("preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.2, 0.2, 0.2]}),
    ],
)
def test_what_the_files_of_a_backbone_say_beside_weights_is_in_the_key(
    file, value, given, plain, tmp_path
):
    folder = shutil.copytree(given / "backbone", tmp_path / "other")
    path = folder / file
    old = json.loads(path.read_text()) if path.exists() else {}
    assert fingerprint(given, network={"backbone": folder}) == plain
    path.write_text(json.dumps(old | value))
    assert fingerprint(given, network={"backbone": folder}) != plain


def label_options(given):
    return {
        "class_field": "other",
        "unlabelled": "background",
        "ignore_classes": ("water",),
        "extent": given / "extent.gpkg",
        "all_touched": True,
        "legend_file": given / "legend.csv",
        "allow_external": True,
    }


def test_every_option_of_labels_is_in_the_key_by_what_it_makes_of_them(given, plain):
    others = label_options(given)
    assert others.keys() | {"renames"} == {f.name for f in dataclasses.fields(LabelOptions)}
    for name, value in others.items():
        is_same = fingerprint(given, options=LabelOptions(**{name: value})) == plain
        # A permission; what is read does not depend on it.
        assert is_same == (name == "allow_external"), name
    with pytest.raises(LabelError, match="renaming matches classes to those of a map"):
        fingerprint(given, options=LabelOptions(renames=(("water", "lake"),)))


def test_every_argument_of_a_training_is_in_the_key_or_decides_nothing():
    in_the_key = {"scenes", "labels", "label_options", "settings", "network", "bands", "nodata"}
    in_the_key |= {"device"}  # by its precision
    without_effect = {
        "output": "where the model goes",
        "overwrite": "a permission",
        "resume": "a permission",
        "tensorboard": "another output",
        "progress": "reports",
        "clock": "ends a training early, as minutes do",
    }
    parameters = set(inspect.signature(train_model).parameters)
    assert in_the_key | without_effect.keys() == parameters


def test_bands_and_nodata_are_in_the_key(given, plain):
    assert fingerprint(given, bands=(3, 2, 1)) != plain
    assert fingerprint(given, bands=(1, 2, 3)) == plain
    assert fingerprint(given, nodata=0) != plain
    assert fingerprint(given, nodata=9) != fingerprint(given, nodata=0)


def test_the_precision_of_the_device_is_in_the_key(given, plain, monkeypatch):
    monkeypatch.setattr("geodinoseg.training.batches.pick_precision", lambda *_: torch.bfloat16)
    assert fingerprint(given) != plain


def edited_scene(given, path, edit):
    shutil.copy(given / "scene.tif", path)
    with rasterio.open(path, "r+") as dataset:
        edit(dataset)
    return path


def change_a_pixel(dataset):
    pixels = dataset.read()
    pixels[1, 3, 228] ^= 1
    dataset.write(pixels)


def scale_a_band(dataset):
    dataset.scales = (0.5, 1, 1)


def shift_a_band(dataset):
    dataset.offsets = (0, 0, -3)


def declare_nodata(dataset):
    dataset.nodata = 0


def move_it(dataset):
    dataset.transform = dataset.transform @ dataset.transform.translation(0, 1)


@pytest.mark.parametrize(
    "edit", [change_a_pixel, scale_a_band, shift_a_band, declare_nodata, move_it]
)
def test_the_content_of_a_scene_is_in_the_key(edit, given, plain, tmp_path):
    (tmp_path / "a").mkdir()
    assert (
        fingerprint(given, scene=edited_scene(given, tmp_path / "a" / "scene.tif", edit)) != plain
    )


def test_a_scene_that_is_touched_moved_or_looked_at_is_the_same(given, plain, tmp_path):
    scene = shutil.copy(given / "scene.tif", tmp_path / "scene.tif")
    os.utime(scene, (1, 1))
    (tmp_path / "scene.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><Metadata><MDI key='STATISTICS_MEAN'>1</MDI>"
        "</Metadata></PAMRasterBand></PAMDataset>"
    )
    assert fingerprint(given, scene=scene) == plain


@pytest.mark.parametrize("shift", [(0, 0.7), (0.7, 0)])
def test_a_label_that_moves_by_less_than_a_pixel_is_in_the_key(shift, given, plain, tmp_path):
    frame = geopandas.read_file(given / "labels.gpkg")
    frame.to_file(tmp_path / "labels.gpkg")
    same = fingerprint(given, labels=tmp_path / "labels.gpkg")
    assert same == plain, "another file of the same labels"
    frame.loc[11, "geometry"] = shapely.affinity.translate(frame.geometry[11], *shift)
    frame.to_file(tmp_path / "labels.gpkg")
    assert fingerprint(given, labels=tmp_path / "labels.gpkg") != plain


def test_the_content_of_a_table_of_labels_is_in_the_key(given):
    frame = geopandas.read_file(given / "labels.gpkg")
    plain = fingerprint(given, labels=frame)
    assert fingerprint(given, labels=frame.copy()) == plain, "another table of the same labels"
    moved, other, fewer = frame.copy(), frame.copy(), frame.drop(index=7)
    moved.loc[11, "geometry"] = shapely.affinity.translate(frame.geometry[11], 0.7, 0)
    other.loc[11, "class"] = next(n for n in frame["class"] if n != frame["class"][11])
    keys = [fingerprint(given, labels=labels) for labels in (moved, other, fewer)]
    assert len({plain, *keys}) == 4


def test_a_training_is_not_taken_for_finished_with_another_backbone(given, tmp_path, monkeypatch):
    no_pictures(monkeypatch)

    def train(backbone, **options):
        return train_model(
            given / "scene.tif",
            given / "labels.gpkg",
            tmp_path / "a.model",
            settings=quick(epochs=1, steps_per_epoch=2),
            network={"backbone": backbone, "quantize": False},
            device="cpu",
            **options,
        )

    *_, (_, other) = other_backbones(given, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(given / "backbone", progress=interrupt_at_loss)
    with pytest.raises(ModelFolderError, match=r"belongs to another training: .*backbone"):
        train(other, resume=True)
    train(given / "backbone", resume=True)
    with pytest.raises(OutputExistsError, match="a model of another training is there"):
        train(other, resume=True)


def interrupt_at_loss(_, message):
    if "mean IoU" in message:
        raise KeyboardInterrupt
