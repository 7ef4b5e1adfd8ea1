"""Every option of `train` changes the model, is said to have no effect, or has a reason to have none."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from chips import write_chips
from click.testing import CliRunner
from model_fixtures import backbone_folder, published_backbone
from rasters import ROTATED, write_raster
from safetensors.torch import load_file, save_file
from trainings import color_channels, color_pixels, no_pictures, squares_with_two_classes

import geodinoseg
from geodinoseg.cli import main
from geodinoseg.cli.train import train as train_command
from geodinoseg.labels.options import LabelOptions
from geodinoseg.training.settings import TrainingSettings

NAMES = ("field", "roof", "water")


def cli(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    no_pictures(monkeypatch)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small training on which every option can have an effect."""
    folder = tmp_path_factory.mktemp("files")
    channels = color_channels(120, 170)
    pixels = color_pixels(channels, noise=60)
    pixels[:, 90:, 100:] = 0
    write_raster(folder / "scene.tif", pixels)
    rng = np.random.default_rng(3)
    corners = [(int(rng.integers(0, 104)), int(rng.integers(0, 154))) for _ in range(40)]
    frame = squares_with_two_classes(channels, corners)
    frame.to_file(folder / "labels.gpkg")
    for name in NAMES:
        frame[frame["class"] == name].to_file(folder / f"{name}.gpkg")
    area = shapely.affinity.affine_transform(shapely.box(0, 0, 150, 100), ROTATED.to_shapely())
    geopandas.GeoDataFrame(geometry=[area], crs="EPSG:32633").to_file(folder / "extent.gpkg")
    write_raster(folder / "labels.tif", (channels[None] + 1).astype(np.uint8), nodata=0)
    write_chips(folder / "chips")
    (folder / "legend.csv").write_text("5,field,#112233\n6,roof,#445566\n7,water,#778899\n")
    shutil.copytree(backbone_folder(), folder / "bones")
    shutil.copytree(backbone_folder(), folder / "others")
    weights = load_file(folder / "bones" / "model.safetensors")
    weights["layernorm.weight"] = weights["layernorm.weight"] * 2
    save_file(weights, folder / "others" / "model.safetensors", {"format": "pt"})
    published_backbone("facebook/dinov2-base")
    published_backbone("facebook/dinov2-small")
    return folder


def arguments(files, output, *more, labels="labels.gpkg", scene="scene.tif", backbone="bones"):
    """The options that every case has; those of a case come last, and count."""
    given = [files / scene, "-o", output, "--device", "cpu", "--crop", 28, "--batch-size", 2]
    given += ["--labels", files / labels] if labels else []
    given += ["--backbone", files / backbone] if backbone else []
    given += ["--stage", "head", "--epochs", 1, "--steps-per-epoch", 2]
    return [*given, *more]


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """Train by the command; what the model is, apart from what is recorded of its recipe."""
    found = {}

    def run(*more, **where):
        key = (more, tuple(where.items()))
        if key not in found:
            output = tmp_path_factory.mktemp("models") / "a.model"
            result = cli("train", *arguments(files, output, *more, **where))
            assert result.exit_code == 0, result.stderr
            found[key] = what_it_is(output), result.stderr
        return found[key]

    return run


def what_it_is(folder):
    config = json.loads((folder / "config.json").read_text())
    for what_was_asked_for in ("training", "network", "sha256"):
        config.pop(what_was_asked_for)
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }
    return json.dumps([config, digests], sort_keys=True)


TUNED = ("--stage", "lora", "--head-epochs", "0")
CNN = ("--head", "cnn", "--channels", "16")

CHANGES = {
    "labels": [((), {"labels": "labels.tif"})],
    "class_field": [(("--class-field", "other"), {})],
    "unlabelled": [(("--unlabelled", "background"), {})],
    "extent": [(("--extent", "extent.gpkg"), {})],
    "ignore_class": [(("--ignore-class", "water"), {})],
    "all_touched": [(("--all-touched",), {})],
    "legend_file": [(("--legend", "legend.csv"), {})],
    "bands": [(("--bands", "3,2,1"), {})],
    "nodata": [(("--nodata", "0"), {})],
    "backbone": [((), {"backbone": "others"}), (("--backbone", "none"), {"backbone": None})],
    "head": [(CNN, {}), (("--head", "linear"), {}), (("--head", "fused"), {})],
    "n_features": [(("--n-features", "2"), {})],
    "quantize": [(("--quantize",), {})],
    "stage": [(TUNED, {})],
    "epochs": [(("--epochs", "3"), {})],
    "head_epochs": [(("--head-epochs", "3"), {})],
    "steps_per_epoch": [(("--steps-per-epoch", "3"), {})],
    "batch_size": [(("--batch-size", "3"), {})],
    "cached_crops": [(("--cached-crops", "2"), {})],
    "crop_px": [(("--crop", "42"), {})],
    "learning_rate": [(("--learning-rate", "0.1"), {})],
    "validation_share": [(("--validation-share", "0"), {})],
    "seed": [(("--seed", "7"), {})],
}
"""Option: what makes another model than without it."""

CHANGES_OTHERS = {
    "size": ((), ("--size", "small"), {"backbone": None}),
    "channels": (CNN, (*CNN[:3], "32"), {}),
    "backbone_learning_rate": (TUNED, (*TUNED, "--backbone-learning-rate", "0.1"), {}),
    "band_projection": (
        ("--bands", "1,2"),
        ("--bands", "1,2", "--band-projection", "widen"),
        {},
    ),
    "minutes": (("--epochs", "60"), ("--epochs", "60", "--minutes", "0.0001"), {}),
}
"""Option: what it changes, and what it changes it to."""

NO_EFFECT = [
    ("size", ("--size", "small"), {}, "--size has no effect: --backbone .* is used"),
    (
        "channels",
        ("--channels", "32"),
        {},
        "--channels has no effect: it applies to the CNN head only",
    ),
    (
        "class_field",
        ("--class-field", "class"),
        {"labels": "labels.tif"},
        "a raster has no columns",
    ),
    (
        "class_field",
        ("--class-field", "class"),
        {"labels": None, "scene": "chips"},
        "chips have no",
    ),
    (
        "class_field",
        ("--class-field", "class", "--labels", "roof=roof.gpkg"),
        {"labels": None, "more": "water=water.gpkg"},
        "each file holds one class",
    ),
    (
        "unlabelled",
        ("--unlabelled", "background", "--extent", "extent.gpkg"),
        {},
        "--unlabelled background has no effect: --extent determines",
    ),
    ("all_touched", ("--all-touched",), {"labels": "labels.tif"}, "--all-touched applies to"),
    (
        "all_touched",
        ("--all-touched",),
        {"labels": None, "scene": "chips"},
        "--all-touched applies to polygons only",
    ),
    ("accumulate", ("--accumulate", "2"), {}, "--accumulate has no effect: .*no stage two"),
    (
        "gradient_checkpointing",
        ("--gradient-checkpointing",),
        {},
        "--gradient-checkpointing has no effect: .*no stage two",
    ),
    (
        "backbone_learning_rate",
        ("--backbone-learning-rate", "0.1"),
        {},
        "--backbone-learning-rate has no effect: .*no stage two",
    ),
    ("epochs", ("--epochs", "2", "--head-epochs", "1"), {}, "--epochs has no effect"),
    (
        "cached_crops",
        (*TUNED, "--cached-crops", "2"),
        {},
        "--cached-crops has no effect: .*no stage one",
    ),
    (
        "quantize",
        ("--stage", "full", "--head-epochs", "0", "--quantize"),
        {},
        "--quantize has no effect: --stage full",
    ),
    (
        "n_features",
        ("--backbone", "none", "--n-features", "2"),
        {"backbone": None},
        "--n-features has no effect: there is no backbone",
    ),
    (
        "quantize",
        ("--backbone", "none", "--quantize"),
        {"backbone": None},
        "--quantize has no effect: there is no backbone",
    ),
    ("resume", ("--resume",), {}, "there is no interrupted training; starting a new one"),
]
"""Option, what is given with it, and the line that says that it has no effect there."""

REASONS = {
    "scenes": "what is trained on",
    "output": "where the model goes",
    "accumulate": "less memory for the same update; see test_what_saves_memory_gives_the_same_model",
    "gradient_checkpointing": "less memory for the same update",
    "resume": "continues what was begun, see test_resume",
    "tensorboard": "writes files of its own, see test_tensorboard",
    "dry_run": "trains nothing",
    "device": "where the same is computed",
    "allow_external": "a permission",
    "overwrite": "a permission",
    "json_": "how it is told",
    "verbose": "how it is told, see test_log",
    "log_file": "how it is told, see test_log",
}


def with_files(files, options):
    """Options with the names of files as paths."""
    names = {path.name for path in files.iterdir()}

    def full(option):
        name, separator, file = str(option).rpartition("=")
        return f"{name}{separator}{files / file}" if file in names else option

    return tuple(map(full, options))


def test_every_option_of_the_command_is_in_one_of_the_tables():
    fields = {"crop": "crop_px"}
    options = {fields.get(p.name, p.name) for p in train_command.params}
    named = CHANGES.keys() | CHANGES_OTHERS.keys() | REASONS.keys()
    assert named == options
    assert {option for option, *_ in NO_EFFECT} <= options


@pytest.mark.parametrize("option", CHANGES)
def test_an_option_makes_another_model(option, files, trained):
    plain, _ = trained()
    for more, where in CHANGES[option]:
        assert trained(*with_files(files, more), **where)[0] != plain


@pytest.mark.parametrize("option", CHANGES_OTHERS)
def test_an_option_makes_another_model_where_it_belongs(option, files, trained):
    without, with_it, where = CHANGES_OTHERS[option]
    assert trained(*with_it, **where)[0] != trained(*without, **where)[0]


@pytest.mark.parametrize(("option", "more", "where", "line"), NO_EFFECT)
def test_an_option_that_has_no_effect_is_said_to_have_none(
    option, more, where, line, files, trained, tmp_path
):
    where = dict(where)
    if "more" in where:
        more = (*more, "--labels", where.pop("more"))
    _, said = trained(*with_files(files, more), **where)
    found = [text for text in said.splitlines() if re.search(line, text)]
    assert len(found) == 1, said


def test_the_last_json_event_holds_the_result_of_config_json(files, tmp_path):
    output = tmp_path / "a.model"
    result = cli("train", *arguments(files, output, "--json"))
    assert result.exit_code == 0, result.stderr
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["event"], last["outputs"]) == ("done", [str(output)])
    config = json.loads((output / "config.json").read_text())
    result = last["result"]
    assert result["classes"] == config["legend"]
    assert [entry["name"] for entry in result["classes"]] == list(NAMES)
    for name in ("bands", "tile_px", "pixel_size_m", "training", "scores"):
        assert result[name] == config[name], name
    assert result["scores"]["mean_iou"] is not None


def test_the_same_options_without_one_that_has_no_effect_make_the_same_model(trained):
    assert trained("--channels", "32")[0] == trained()[0]
    assert trained("--accumulate", "2")[0] == trained()[0]
    assert "has no effect" not in trained()[1]


class HandedOverError(Exception):
    """A training has everything that it needs."""


@pytest.fixture
def handed_over(monkeypatch):
    """What a training is given, by whatever door it came."""
    calls = []

    def caught(data, target, **options):
        calls.append({"data": data, "target": target, **options})
        raise HandedOverError

    monkeypatch.setattr("geodinoseg.training.engine.run_training", caught)

    def hand_over(call):
        try:
            result = call()
            assert isinstance(result.exception, HandedOverError), result.stderr
        except HandedOverError:
            pass
        return calls.pop()

    return hand_over


FIELDS_OF_DATA = ("legend", "statistics", "bands", "folds", "facts", "pixel_size_m", "warnings")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ((), {}),
        (
            (
                *("--stage", "full", "--epochs", "4", "--head", "cnn", "--channels", "16"),
                *("--seed", "3", "--bands", "3,1,2", "--nodata", "0", "--unlabelled", "background"),
                *("--learning-rate", "0.2", "--no-quantize", "--size", "small", "--overwrite"),
                *("--validation-share", "0.3", "--crop", "28", "--device", "cpu", "--resume"),
            ),
            {
                "settings": TrainingSettings(
                    stage="full",
                    epochs=4,
                    seed=3,
                    learning_rate=0.2,
                    validation_share=0.3,
                    crop_px=28,
                ),
                "network": {
                    "linear_head": False,
                    "channels": 16,
                    "quantize": False,
                    "size": "small",
                },
                "bands": (3, 1, 2),
                "nodata": 0,
                "label_options": LabelOptions(unlabelled="background"),
                "device": "cpu",
                "overwrite": True,
                "resume": True,
            },
        ),
    ],
    ids=["defaults", "options"],
)
def test_the_command_and_python_give_a_training_the_same(
    words, options, files, handed_over, tmp_path
):
    scene, labels, output = files / "scene.tif", files / "labels.gpkg", tmp_path / "a.model"
    by_command = handed_over(lambda: cli("train", scene, "--labels", labels, "-o", output, *words))
    by_python = handed_over(lambda: geodinoseg.train_model(scene, labels, output, **options))
    for call in (by_command, by_python):
        data = call.pop("data")
        call |= {name: getattr(data, name) for name in FIELDS_OF_DATA}
        call["scenes"] = [split.scene for split in data.splits]
        call["counts"] = [split.counts.tolist() for split in data.splits]
        for reported in ("progress", "budget"):
            call.pop(reported)
    assert by_command.keys() == by_python.keys()
    for name, value in by_python.items():
        assert by_command[name] == value, name
    for field in dataclasses.fields(TrainingSettings):
        assert getattr(by_command["settings"], field.name) == getattr(
            by_python["settings"], field.name
        )


@pytest.mark.parametrize("door", ["command", "python"])
def test_without_a_gpu_both_doors_hold_the_backbone_in_full_precision(door, files, tmp_path):
    output = tmp_path / "a.model"
    if door == "command":
        result = cli("train", *arguments(files, output))
        assert result.exit_code == 0, result.stderr
    else:
        geodinoseg.train_model(
            files / "scene.tif",
            files / "labels.gpkg",
            output,
            settings=TrainingSettings(
                stage="head", epochs=1, steps_per_epoch=2, crop_px=28, batch_size=2
            ),
            network={"backbone": files / "bones"},
            device="cpu",
        )
    assert json.loads((output / "config.json").read_text())["network"]["quantize"] is False


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"num_classes": 3}, "num_classes is determined by the data"),
        ({"bands": 3}, "bands is determined by the data"),
        ({"heads": 3}, "has no argument 'heads'; choose from n_block, "),
    ],
)
def test_arguments_of_the_network_that_cannot_be_given_are_refused(network, words, files, tmp_path):
    with pytest.raises(geodinoseg.GeodinosegError, match=words):
        geodinoseg.train_model(
            files / "scene.tif", files / "labels.gpkg", tmp_path / "a.model", network=network
        )


@pytest.mark.parametrize(
    ("network", "stage", "words"),
    [
        ({"n_block": 2}, "head", "n_block has no effect: it applies to the CNN head"),
        ({"r": 4}, "head", "r has no effect: with --stage head there is no LoRA"),
        ({"lora_dropout": 0.2}, "full", "lora_dropout has no effect: with --stage full"),
        ({"revision": "main"}, "head", "revision has no effect: the backbone is a folder"),
        ({"peft": True}, "lora", "peft has no effect: it is determined by --stage"),
    ],
)
def test_arguments_of_the_network_that_have_no_effect_are_said_to_have_none(
    network, stage, words, files, handed_over, tmp_path, caplog
):
    handed_over(
        lambda: geodinoseg.train_model(
            files / "scene.tif",
            files / "labels.gpkg",
            tmp_path / "a.model",
            network={"backbone": files / "bones"} | network,
            settings=TrainingSettings(stage=stage, crop_px=28),
        )
    )
    assert [r.getMessage() for r in caplog.records if "no effect" in r.getMessage()] != []
    assert words in caplog.text


def test_the_nodata_of_chips_is_theirs_too(files, handed_over, tmp_path):
    with rasterio.open(next((files / "chips" / "images").iterdir())) as dataset:
        assert dataset.nodata is None
    call = handed_over(
        lambda: cli(
            "train", files / "chips", "-o", tmp_path / "a.model", "--nodata", 5, "--crop", 28
        )
    )
    assert {split.scene.nodata for split in call["data"].splits} == {(5.0, 5.0, 5.0)}
