"""A training on a GeoDataFrame is the training on a file with the same rows."""

from __future__ import annotations

import json

import geopandas
from trainings import no_pictures, quick

from geodinoseg.labels.options import LabelOptions
from geodinoseg.training.plan import plan_training
from geodinoseg.training.train import train_model


def test_a_table_of_labels_trains_the_model_of_the_file(
    color_field, backbone, tmp_path, monkeypatch
):
    no_pictures(monkeypatch)
    frame = geopandas.read_file(color_field.labels).rename(columns={"class": "kind"})
    frame.to_file(tmp_path / "labels.gpkg")
    for name, labels in (("file", tmp_path / "labels.gpkg"), ("table", frame)):
        train_model(
            color_field.scene,
            labels,
            tmp_path / name,
            label_options=LabelOptions(class_field="kind"),
            settings=quick(epochs=1, steps_per_epoch=2),
            network={"backbone": backbone, "quantize": False},
            device="cpu",
        )
    of_file, of_table = ((tmp_path / name / "model.safetensors") for name in ("file", "table"))
    assert of_file.read_bytes() == of_table.read_bytes()
    facts = json.loads((tmp_path / "table" / "config.json").read_text())["training"]
    assert facts["labels"][0].startswith("GeoDataFrame ")


def test_each_scene_may_have_its_own_table(color_field, backbone):
    frame = geopandas.read_file(color_field.labels)
    plan = plan_training(
        [color_field.scene, color_field.scene],
        (frame, color_field.labels),
        settings=quick(),
        network={"backbone": backbone},
    )
    assert [name.partition(" ")[0] for name in plan.to_json()["labels"]] == [
        "GeoDataFrame",
        "labels.gpkg",
    ]
