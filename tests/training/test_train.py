"""Training: the loss, the loop, and what the model folder holds in the end."""

from __future__ import annotations

import csv
import json
import logging
import math

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from rasters import ROTATED, read_raster, write_raster
from safetensors.torch import load_file
from trainings import (
    LINEAR,
    NAMES,
    color_channels,
    color_pixels,
    quick,
    tell_scores,
    write_squares,
)

import geodinoseg.training.finetuning
import geodinoseg.training.head_stage
from geodinoseg.errors import (
    DeviceError,
    GeodinosegError,
    LabelError,
    ModelError,
    OutputError,
    OutputExistsError,
    SceneError,
)
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.options import LabelOptions
from geodinoseg.model.backbone import patch_embedding
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.folder import load_model, save_model
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.training.data import read_training_data
from geodinoseg.training.head_stage import HeadStage
from geodinoseg.training.optimizer import LABEL_SMOOTHING, rate_factor, segmentation_loss
from geodinoseg.training.settings import Augmentation, TrainingSettings
from geodinoseg.training.train import train_model

MODEL_FILES = {"README.md", "backbone", "config.json", "curves.png", "history.csv"} | {
    "model.safetensors",
    "reliability.png",
    "validation.png",
}


@pytest.fixture
def train(backbone, color_field, tmp_path):
    """Train on the scene of colours, or on what is given in its place."""

    def run(scenes=None, labels=None, output="field.model", *, network=None, **options):
        return train_model(
            scenes or color_field.scene,
            labels or color_field.many_labels,
            tmp_path / output,
            network={"backbone": backbone, "quantize": False} | (network or LINEAR),
            **({"settings": quick(), "device": "cpu"} | options),
        )

    return run


@pytest.mark.parametrize("stage", ["head", "lora", "full"])
def test_a_widened_patch_embedding_is_trained_in_stage_two_alone(
    stage, train, backbone, color_field
):
    with rasterio.open(color_field.scene) as dataset:
        pixels = dataset.read()
    scene = color_field.scene.with_name(f"four_{stage}.tif")
    write_raster(scene, pixels[[0, 1, 2, 0]], photometric="MINISBLACK")
    data = read_training_data(
        scene, color_field.many_labels, bands=None, options=LabelOptions(), settings=quick()
    )
    # Of both stages the better one is kept; without stage one that is stage two.
    epochs = {"epochs": 2, "head_epochs": 2 if stage == "head" else 0}
    model = train(scene, settings=quick(stage=stage, **epochs))
    assert model.bands == (1, 2, 3, 4)
    assert model.trained_tile_px == 518  # more than a crop, so that tiles see their surroundings
    derived = DinoV2Segmentor(
        backbone=backbone,
        bands=4,
        num_classes=3,
        quantize=False,
        components=data.components,
    )
    found, initial = (
        patch_embedding(network.base_backbone).weight.detach()
        for network in (model.network, derived)
    )
    assert torch.equal(found, initial) == (stage == "head")


def plain_loss(logits, labels):
    """Cross-entropy and Dice written out, pixel by pixel."""
    batch, classes, height, width = logits.shape
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    entropies, overlap = [], np.zeros(classes)
    predicted, labelled = np.zeros(classes), np.zeros(classes)
    for b in range(batch):
        for row in range(height):
            for col in range(width):
                label = labels[b, row, col]
                if label == IGNORE:
                    continue
                target = np.full(classes, LABEL_SMOOTHING / classes)
                target[label] += 1 - LABEL_SMOOTHING
                entropies.append(-(target * np.log(shares[b, :, row, col])).sum())
                overlap[label] += shares[b, label, row, col]
                predicted += shares[b, :, row, col]
                labelled[label] += 1
    dice = [
        1 - 2 * overlap[c] / (predicted[c] + labelled[c]) for c in range(classes) if labelled[c]
    ]
    return np.mean(entropies) + np.mean(dice)


@given(classes=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_the_loss_is_cross_entropy_and_dice_over_labelled_pixels(classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (2, classes, 3, 5))
    labels = rng.integers(-2, classes, (2, 3, 5)).clip(IGNORE)
    labels[0, 0, 0] = 0
    found = segmentation_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert_allclose(found.item(), plain_loss(logits, labels), rtol=1e-9)


def test_what_is_not_labelled_has_no_gradient():
    logits = torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.full((1, 4, 6), IGNORE)
    labels[0, 1, 2:4] = 1
    segmentation_loss(logits, labels).backward()
    moved = logits.grad.abs().sum(dim=1)[0] > 0
    assert torch.equal(moved, labels[0] != IGNORE)


def test_where_nothing_is_labelled_the_loss_is_zero_and_can_be_stepped_on():
    logits = torch.randn(2, 3, 4, 6, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((2, 4, 6), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@given(steps=st.integers(2, 5000))
def test_the_rate_warms_up_to_all_and_falls_to_a_hundredth(steps):
    shares = [rate_factor(step, steps) for step in range(steps)]
    peak = shares.index(1.0)
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert min(shares[peak:]) >= 0.01
    assert_allclose(rate_factor(steps, steps), 0.01)


@pytest.mark.parametrize(
    ("stage", "head"),
    [("head", {}), ("lora", {}), ("full", {"linear_head": False, "channels": 16, "n_block": 2})],
)
def test_a_model_learns_colours_and_finds_them_again(
    stage, head, train, backbone, color_field, tmp_path
):
    settings = quick(
        stage=stage, epochs=2, steps_per_epoch=12, head_epochs=None if stage == "head" else 0
    )
    model = train(settings=settings, network=head)
    assert model.scores["mean_iou"] > 0.7, "always saying the largest class reaches 0.15"
    folder = tmp_path / "field.model"
    assert {path.name for path in folder.iterdir()} == MODEL_FILES
    segment_scene(color_field.scene, folder, tmp_path / "map.tif", device="cpu")
    agree = read_raster(tmp_path / "map.tif") == color_field.channels + 1
    assert agree.mean() > 0.93
    config = json.loads((folder / "config.json").read_text())
    assert [entry["name"] for entry in config["legend"]] == list(NAMES)
    assert config["scores"] == model.scores
    assert config["training"]["stage"] == stage
    assert "- mean iou: " in (folder / "README.md").read_text()
    check_what_was_trained(stage, backbone, folder)


def check_what_was_trained(stage, backbone, folder):
    before = load_file(backbone / "model.safetensors")
    after = load_file(folder / "backbone" / "model.safetensors")
    # The token that stands for hidden patches has no part in segmentation.
    same = [torch.equal(after[n], weights) for n, weights in before.items() if "mask" not in n]
    assert all(same) or not any(same)
    assert all(same) == (stage != "full")
    lora = {n: w for n, w in load_file(folder / "model.safetensors").items() if "lora_B" in n}
    assert bool(lora) == (stage == "lora")
    assert all(weights.any() for weights in lora.values())


def test_the_history_is_a_row_an_epoch(train, tmp_path):
    model = train(settings=quick(epochs=3, steps_per_epoch=2))
    with (tmp_path / "field.model" / "history.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    scores = [float(row["mean_iou"]) for row in rows]
    assert scores[-1] == model.scores["mean_iou"]
    assert model.training["epoch"] == 3
    assert [row["stage"] for row in rows] == ["head"] * 3
    assert all(math.isfinite(float(row[n])) for row in rows for n in row if n != "stage")


def test_labels_may_be_a_raster_on_another_grid(train, color_field, tmp_path):
    coarse = (color_field.channels[::4, ::4] * 3 + 2)[None].astype(np.uint8)
    coarse[0, :20, :20] = 0
    labels = write_raster(
        tmp_path / "classes.tif", coarse, transform=ROTATED @ ROTATED.scale(4), nodata=0
    )
    model = train(labels=labels, settings=quick(epochs=2))
    assert model.legend.class_ids.tolist() == [2, 5, 8]
    assert model.scores["mean_iou"] > 0.7


def test_several_scenes_make_one_model_of_all_their_classes(train, tmp_path):
    fields, labels = [], []
    for index, classes in enumerate(((0, 1), (1, 2))):
        channels = np.array(classes)[(color_channels(130, 170) > 0).astype(int)]
        fields.append(write_raster(tmp_path / f"{index}.tif", color_pixels(channels, seed=index)))
        labels.append(write_squares(tmp_path / f"{index}.gpkg", channels, count=30))
    model = train(fields, labels)
    assert model.legend.names == NAMES
    assert model.training["scenes"] == ["0.tif", "1.tif"]
    assert model.training["labels"] == ["0.gpkg", "1.gpkg"]
    assert all(model.training["training_pixels"].values())
    assert model.scores["mean_iou"] > 0.6


def test_four_bands_of_sixteen_bits_with_missing_pixels(train, color_field, tmp_path):
    red, green, blue = color_pixels(color_field.channels).astype(np.uint16) * 40
    pixels = np.stack([blue, green, red, green // 2 + 900])
    pixels[:, :60, :70] = 0
    scene = write_raster(tmp_path / "s.tif", pixels, nodata=0)
    model = train(scene, settings=quick(epochs=3))
    assert model.bands == (1, 2, 3, 4)
    assert model.statistics.dtype == "uint16"
    assert min(model.statistics.low) > 0, "missing pixels are not measured"
    assert model.scores["mean_iou"] > 0.7


def test_the_last_epoch_is_kept_whatever_the_scores(train, monkeypatch, tmp_path):
    # The rate ends near 0, and the best of many noisy scores would be chance.
    tell_scores(monkeypatch, HeadStage, [0.3, 0.9, 0.2, 0.5])
    model = train(settings=quick(epochs=4, steps_per_epoch=2))
    assert model.training["epoch"] == 4
    assert model.scores["mean_iou"] == 0.5
    assert load_model(tmp_path / "field.model", device="cpu").scores["mean_iou"] == 0.5


def test_the_same_seed_gives_the_same_bytes(train, tmp_path):
    def weights(name, seed):
        train(output=name, settings=quick(stage="lora", epochs=1, steps_per_epoch=3, seed=seed))
        return (tmp_path / name / "model.safetensors").read_bytes()

    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = weights("a.model", 3)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are its own"
    torch.manual_seed(12)
    assert weights("b.model", 3) == first
    assert weights("c.model", 4) != first


def test_a_loss_that_is_no_number_ends_the_training_and_loses_nothing(
    train, monkeypatch, tmp_path, small_model
):
    calls = iter(range(9))
    monkeypatch.setattr(
        geodinoseg.training.head_stage,
        "loss_of_members",
        lambda logits, _: logits[0].sum() * (math.nan if next(calls) == 2 else 1.0),
    )
    small = load_model(small_model, device="cpu")
    old = save_model(small, tmp_path / "field.model")
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    with pytest.raises(ModelError, match="no longer finite; give a smaller"):
        train(overwrite=True, settings=quick(steps_per_epoch=8))
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [old]


def test_gradients_that_are_no_numbers_end_the_training(train, monkeypatch, tmp_path):
    monkeypatch.setattr(
        geodinoseg.training.head_stage,
        "loss_of_members",
        lambda logits, _: (logits[0] - logits[0].detach()).abs().sqrt().sum() + 1,
    )
    with pytest.raises(ModelError, match="no longer finite"):
        train()
    assert not list(tmp_path.iterdir())


def test_an_interrupt_stops_the_training_and_its_thread(train, tmp_path):
    def interrupt(fraction, message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["head", "lora"])
def test_progress_tells_stage_loss_and_score_and_rises_to_one(train, stage):
    told = []
    train(
        settings=quick(stage=stage, epochs=2, steps_per_epoch=2),
        progress=lambda *event: told.append(event),
    )
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert told[0][1] == "features of the frozen backbone"
    messages = [message for _, message in told if "epoch" in message]
    assert messages[0].startswith("head, epoch 1/2, loss ")
    assert "mean IoU" not in messages[0]
    last = "head, epoch 2/2" if stage == "head" else "LoRA, epoch 2/2"
    assert any(message.startswith(last) and "mean IoU" in message for message in messages)
    assert "mean IoU" in messages[-1]


def test_two_small_polygons_train_without_validation_and_say_so(train, tmp_path, caplog):
    # Each within one of the smallest blocks, of 14 px with crops of 56 px.
    squares = [shapely.box(16, 30, 26, 40), shapely.box(198, 16, 208, 26)]
    labels = tmp_path / "two.gpkg"
    geopandas.GeoDataFrame(
        {"class": ["field", "roof"]},
        geometry=[shapely.affinity.affine_transform(s, ROTATED.to_shapely()) for s in squares],
        crs="EPSG:32633",
    ).to_file(labels)
    with caplog.at_level(logging.WARNING):
        model = train(labels=labels, settings=quick(epochs=2, steps_per_epoch=2, crop_px=56))
    assert "too few labels to keep some for validation" in caplog.text
    assert model.scores == {}
    assert model.training["epoch"] == 2
    assert load_model(tmp_path / "field.model", device="cpu").scores == {}


@pytest.mark.parametrize(
    ("stage", "dtype", "published"),
    [
        ({"stage": "head"}, np.uint8, True),
        ({"stage": "full"}, np.uint8, True),
        ({"stage": "full", "head_epochs": 0}, np.uint8, False),
        ({"stage": "head"}, np.uint16, False),
    ],
)
def test_a_published_backbone_keeps_its_own_statistics_for_8_bit_rgb(
    stage, dtype, published, train, backbone, color_field, tmp_path
):
    known = tmp_path / "known"
    known.mkdir()
    for path in backbone.iterdir():
        (known / path.name).write_bytes(path.read_bytes())
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    values = {"image_processor_type": "BitImageProcessor", "image_mean": mean, "image_std": std}
    (known / "preprocessor_config.json").write_text(json.dumps(values))
    pixels = color_pixels(color_field.channels).astype(dtype)
    scene = write_raster(tmp_path / "s.tif", pixels)
    model = train(
        scene, network={"backbone": known}, settings=quick(**stage, epochs=1, steps_per_epoch=1)
    )
    is_published = np.allclose(model.statistics.mean, [255 * share for share in mean])
    assert is_published == published
    assert np.allclose(model.statistics.std, [255 * share for share in std]) == published


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("stage", "all", "stage='all': give one of head, lora, full"),
        ("epochs", 0, "epochs=0: give a whole number of at least 1"),
        ("steps_per_epoch", 2.5, "steps_per_epoch=2.5: give a whole number"),
        ("batch_size", True, "batch_size=True: give a whole number"),
        ("crop_px", -14, "crop_px=-14: give a whole number"),
        ("seed", -1, "seed=-1: give a whole number of at least 0"),
        ("learning_rate", 0.0, "learning_rate=0.0: give a number above 0"),
        ("backbone_learning_rate", math.nan, "backbone_learning_rate=nan: give a number above 0"),
        ("weight_decay", -0.1, "weight_decay=-0.1: give 0 or more"),
        ("validation_share", 0.6, "validation_share=0.6: give a fraction from 0 to 0.5"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_built(name, value, text):
    with pytest.raises(ModelError) as refusal:
        TrainingSettings(**{name: value})
    assert str(refusal.value).startswith(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("changes", [{"scale": 0.5}, {"gain": -1}, {"offset": math.inf}])
def test_augmentation_that_cannot_be_is_refused(changes):
    with pytest.raises(ModelError, match="give"):
        Augmentation(**changes)


def test_unlabelled_is_one_thing_or_the_other():
    with pytest.raises(LabelError, match="give ignore or background"):
        LabelOptions(unlabelled="grass")


def test_what_cannot_be_trained_is_refused_before_the_training(
    train, color_field, tmp_path, backbone
):
    def refuse(error, text, *args, **options):
        with pytest.raises(error, match=text) as refusal:
            train(*args, **options)
        assert isinstance(refusal.value, GeodinosegError)
        assert "\n" not in str(refusal.value)
        assert not (tmp_path / "field.model").exists()

    grey = write_raster(tmp_path / "grey.tif", color_pixels(color_field.channels)[:1])
    even = write_raster(tmp_path / "even.tif", np.full((3, 260, 300), 7, np.uint8))
    blank = write_raster(tmp_path / "blank.tif", np.zeros((3, 260, 300), np.uint8), nodata=0)
    refuse(LabelError, "holds no data where .* has labels of field, roof, water", blank)
    refuse(ModelError, "crops of 50 px: give a multiple", settings=quick(crop_px=50))
    refuse(ModelError, r"n_features=3: the backbone .* has 2 layers", network={"n_features": 3})
    refuse(ModelError, "absent: no such folder", network={"backbone": tmp_path / "absent"})
    refuse(SceneError, "must be of one kind", [color_field.scene, grey])
    refuse(SceneError, "no such file", tmp_path / "absent.tif")
    refuse(SceneError, "every labelled pixel has the same value", even)
    refuse(LabelError, "3 label files for 1 scenes", labels=[color_field.labels] * 3)
    refuse(LabelError, "no column 'kind'", label_options=LabelOptions(class_field="kind"))
    refuse(DeviceError, "give auto, cpu", device="toaster")
    refuse(OutputError, "does not exist", output="absent/field.model")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    refuse(OutputError, "holds other things", output="other", overwrite=True)
    (tmp_path / "file").write_text("mine")
    refuse(OutputError, "is a file", output="file", overwrite=True)


def test_a_model_that_is_there_is_kept_unless_it_may_be_replaced(train, tmp_path, small_model):
    save_model(load_model(small_model, device="cpu"), tmp_path / "field.model")
    with pytest.raises(OutputExistsError, match="exists already"):
        train()
    train(overwrite=True, settings=quick(epochs=1, steps_per_epoch=1))
    assert {path.name for path in (tmp_path / "field.model").iterdir()} == MODEL_FILES


def test_unlabelled_pixels_may_be_background(train, tmp_path, color_field):
    frame = geopandas.read_file(color_field.labels)
    frame[frame["class"] == "water"].to_file(tmp_path / "water.gpkg")
    model = train(
        labels=tmp_path / "water.gpkg",
        settings=quick(epochs=1, steps_per_epoch=1),
        label_options=LabelOptions(unlabelled="background"),
    )
    assert model.legend.names == ("background", "water")
    counted = model.training["training_pixels"], model.training["validation_pixels"]
    # In cross-validation each pixel is on both sides.
    assert [sum(side.values()) for side in counted] == [color_field.channels.size] * 2


def test_a_scene_array_is_measured_where_it_is_labelled(train, color_field):
    model = train(settings=quick(epochs=1, steps_per_epoch=1))
    pixels = color_pixels(color_field.channels).reshape(3, -1)
    assert_allclose(model.statistics.mean, pixels.mean(axis=1), rtol=0.15)
    assert_array_equal(np.array(model.statistics.std) > 10, [True] * 3)
