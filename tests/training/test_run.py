"""The stages of a training: features computed once, the better stage kept, time, cross-validation."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from numpy.testing import assert_allclose
from rasters import write_raster
from safetensors.torch import load_file
from trainings import LINEAR, ToldScorer, no_pictures, quick, tell_scores, write_few_squares

from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.options import LabelOptions
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.folder import load_model
from geodinoseg.model.fused_head import FusedHead
from geodinoseg.model.heads import Detail, LinearHead
from geodinoseg.model.sample_dropout import DropoutSeed
from geodinoseg.training.batches import ValidationCrops
from geodinoseg.training.budget import Budget, TrainingProgress
from geodinoseg.training.cached_crops import cache_crops
from geodinoseg.training.checkpoint import TrainingRecord
from geodinoseg.training.context import build_context
from geodinoseg.training.data import read_training_data
from geodinoseg.training.feature_cache import CachedBatch
from geodinoseg.training.finetuning import FineTuning, logits_in_parts, warn_of_own_dropout
from geodinoseg.training.head_stage import HeadStage, parts_of
from geodinoseg.training.optimizer import loss_of_members
from geodinoseg.training.plan import plan_training
from geodinoseg.training.train import train_model


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    """Take longer than such a training."""
    no_pictures(monkeypatch)


class Ticks:
    """A clock that a second passes on whenever it is looked at."""

    def __init__(self, tick=1.0):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


@pytest.fixture
def train(backbone, color_field, tmp_path):
    def run(output="a.model", *, labels=None, network=None, **options):
        return train_model(
            color_field.scene,
            labels or color_field.many_labels,
            tmp_path / output,
            network={"backbone": backbone, "quantize": False} | (network or LINEAR),
            **({"settings": quick(stage="lora"), "device": "cpu"} | options),
        )

    return run


@pytest.fixture
def few_labels(tmp_path):
    """Too few to keep some for good."""
    return write_few_squares(tmp_path / "few.gpkg")


@pytest.fixture
def context_of(backbone, color_field):
    def make(settings, **network):
        data = read_training_data(
            color_field.scene,
            color_field.many_labels,
            bands=None,
            options=LabelOptions(),
            settings=settings,
        )
        assert data.folds == 1
        arguments = {"backbone": backbone, "quantize": False} | network
        return build_context(data, settings, arguments, torch.device("cpu"))

    return make


def cached(context, folder):
    budget = Budget(None, Ticks())
    validation = ValidationCrops(context.source)
    crops = cache_crops(
        context.network,
        context.source,
        validation,
        TrainingRecord(fingerprint=""),
        folder=folder,
        sees_pixels=context.network.head.sees_pixels,
        time_slice=budget.of_caching(is_last=True),
        progress=TrainingProgress(context.source.settings, budget, lambda *_: None),
    )
    return crops, validation


@pytest.mark.parametrize("head", [LINEAR, {"fused_head": True}], ids=["linear", "fused"])
def test_cached_features_give_the_logits_of_the_whole_network(context_of, tmp_path, head):
    context = context_of(quick(cached_crops=9), **head)
    crops, validation = cached(context, tmp_path)
    context.network.eval()
    with context.source.sampler(0) as sampler:
        drawn = sampler.batch(0, 9)
    assert len(crops.training) == 9
    held_out = [crop for batch in validation.batches() for _, crop in batch]
    for indices, wanted in ((crops.training, drawn), (crops.validation_of[0], held_out)):
        for index, crop in zip(indices, wanted, strict=True):
            values, valid, labels = context.source.tensors([crop])
            batch = crops.cache.tensors([index], torch.device("cpu"))
            assert torch.equal(batch.labels, labels)
            with torch.no_grad():
                logits = context.network(values, valid)
                from_cache = context.network.head(batch.features, logits.shape[-2:], batch.detail)
            assert_allclose(from_cache, logits, atol=5e-3)


def test_features_on_disk_give_the_bytes_of_features_in_memory(train, tmp_path):
    for name, room in (("memory", 1 << 30), ("disk", 0)):
        train(name, settings=quick(cache_bytes=room))
    files = [tmp_path / name / "model.safetensors" for name in ("memory", "disk")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"memory", "disk"}


@pytest.mark.parametrize(
    "head", [{}, {"linear_head": False, "channels": 16, "n_block": 2}, {"fused_head": True}]
)
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(context_of, head, is_checkpointed):
    context = context_of(quick(batch_size=6), r=4, lora_dropout=0.3, **head)
    network = context.network
    network.add_lora()
    with torch.no_grad():  # at its start LoRA does nothing, and so does dropout in front of it
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    if is_checkpointed:
        network.enable_gradient_checkpointing()
    network.train()
    with context.source.sampler(0) as sampler:
        values, valid, labels = context.source.tensors(sampler.batch(0, 6))
    detail = network.detail(values, valid)

    def gradient(parts, step=3):
        torch.manual_seed(7)
        network.zero_grad()
        before = {n: b.clone() for n, b in network.head.named_buffers()}
        seed = DropoutSeed(seed=1, step=step)
        loss_of_members(logits_in_parts(network, detail, parts, seed=seed), labels).backward()
        for name, buffer in network.head.named_buffers():
            buffer.copy_(before[name])
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    whole = gradient(1)
    for parts in (2, 3, 6):
        for one, other in zip(whole, gradient(parts), strict=True):
            assert_allclose(one, other, atol=2e-6, rtol=1e-3)
    other_step = gradient(1, step=4)
    assert max(float((a - b).abs().max()) for a, b in zip(whole, other_step, strict=True)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"gradient_checkpointing": True},
        {"accumulate": 2},
        {"accumulate": 4, "gradient_checkpointing": True},
    ],
    ids=str,
)
def test_what_saves_memory_gives_the_same_model(train, tmp_path, options):
    for name, changes in (("a", {}), ("b", options)):
        train(name, settings=quick(stage="lora", epochs=1, head_epochs=0, **changes))
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name, tensor in one.items():
        assert_allclose(other[name], tensor, atol=1e-4)


def test_a_backbone_with_dropout_of_its_own_is_said_not_to_be_split_exactly(
    context_of, backbone, tmp_path, caplog
):
    folder = shutil.copytree(backbone, tmp_path / "dropping")
    values = json.loads((folder / "config.json").read_text())
    for wanted, accumulate in ((0.0, 2), (0.1, 1), (0.1, 2)):
        values["drop_path_rate"] = wanted
        (folder / "config.json").write_text(json.dumps(values))
        settings = quick(accumulate=accumulate)
        context = context_of(settings, backbone=folder)
        caplog.clear()
        warn_of_own_dropout(context.network, settings)
        said = "is not exactly that of the whole batch" in caplog.text
        assert said == (wanted > 0 and accumulate > 1)


def test_lora_is_kept_where_it_is_better(train, monkeypatch, tmp_path, caplog):
    tell_scores(monkeypatch, HeadStage, [0.3, 0.612, 0.5, 0.612])
    seen = tell_scores(monkeypatch, FineTuning, [0.2, 0.643])
    with caplog.at_level(logging.INFO):
        model = train()
    assert model.training["kept"] == "lora"
    assert model.training["epoch"] == 6
    sentence = (
        "the head with as many further steps is not kept: log loss 0.388 on 3 validation blocks, "
        "the head alone 0.388 (gain +0.000, standard error 0.000); LoRA is kept: log loss 0.357 on "
        "3 validation blocks, the head alone 0.388 (gain +0.031, standard error 0.000)"
    )
    assert model.training["outcome"] == sentence
    assert sentence in caplog.text
    told = {"head": 0.612, "further": 0.612, "lora": 0.643}
    assert model.scores["mean_iou_by_stage"] == told
    assert model.scores["log_loss_by_stage"] == pytest.approx({s: 1 - v for s, v in told.items()})
    stored = load_file(tmp_path / "a.model" / "model.safetensors")
    assert any("lora_B" in name and weight.any() for name, weight in stored.items())
    assert torch.equal(stored["head.classify.weight"], seen[1])


@pytest.mark.parametrize(
    ("stage", "further", "tuned", "kept"),
    [
        ("lora", 0.5, 0.601, "head"),
        ("full", 0.5, 0.612, "head"),
        # Better than the head, but not than the head that had as many steps.
        ("lora", 0.65, 0.643, "further"),
    ],
)
def test_a_head_alone_is_kept_where_it_is_no_worse(
    stage, further, tuned, kept, train, monkeypatch, tmp_path, backbone
):
    tell_scores(monkeypatch, HeadStage, [0.3, 0.612, 0.4, further])
    tell_scores(monkeypatch, FineTuning, [0.9, tuned])
    model = train(settings=quick(stage=stage))
    name = {"lora": "LoRA", "full": "fine-tuning all weights"}[stage]
    title = "the head alone" if kept == "head" else "the head with as many further steps"
    assert (
        f"{name} is not kept: log loss {1 - tuned:.3f} on 3 validation blocks, {title} "
        f"{1 - max(0.612, further):.3f}"
    ) in model.training["outcome"]
    assert model.training["kept"] == kept
    assert model.scores["mean_iou"] == max(0.612, further)
    stored = load_file(tmp_path / "a.model" / "model.safetensors")
    assert not any("lora" in name for name in stored)
    before = load_file(backbone / "model.safetensors")
    after = load_file(tmp_path / "a.model" / "backbone" / "model.safetensors")
    assert all(torch.equal(after[n], weight) for n, weight in before.items() if "mask" not in n)
    assert not load_model(tmp_path / "a.model", device="cpu").network.settings["peft"]


def test_further_steps_go_on_from_the_head_and_stage_two_does_not_see_them(train, monkeypatch):
    seen = tell_scores(monkeypatch, HeadStage, [0.9, 0.3, 0.4, 0.4])
    heads, tuned = [], []

    def remembering(starts, begin):
        def remembered(stage, epoch):
            if epoch == 0:
                starts.append(stage.tensors()["0.head.classify.weight"].detach().clone())
            return begin(stage, epoch)

        return remembered

    monkeypatch.setattr(HeadStage, "train_epoch", remembering(heads, HeadStage.train_epoch))
    monkeypatch.setattr(FineTuning, "train_epoch", remembering(tuned, FineTuning.train_epoch))
    tell_scores(monkeypatch, FineTuning, [0.5, 0.5])
    train(settings=quick(stage="lora", epochs=2))
    assert torch.equal(heads[1], seen[1])
    assert torch.equal(tuned[0], seen[1])


@pytest.mark.parametrize(
    ("stage", "minutes"),
    [
        ("lora", 0.2),
        pytest.param("head", 0.5, marks=pytest.mark.slow),
        pytest.param("lora", 2, marks=pytest.mark.slow),
    ],
)
def test_the_time_is_kept(stage, minutes, train, monkeypatch):
    clock = Ticks(0.0)

    def forward(progress, crops):
        clock.now += crops / 4

    def step(progress, losses):
        clock.now += 3 if "LoRA" in progress._where else 0.3

    monkeypatch.setattr(TrainingProgress, "validated", forward)
    monkeypatch.setattr(TrainingProgress, "caching", forward)
    monkeypatch.setattr(TrainingProgress, "step", step)
    settings = quick(
        stage=stage, epochs=500, steps_per_epoch=20, minutes=minutes, batch_size=2, cached_crops=64
    )
    model = train(settings=settings, clock=clock)
    assert clock.now <= 60 * minutes
    assert clock.now > 30 * minutes, "what there is of it is used"
    assert model.training["finished"]
    assert ("lora" in model.scores["mean_iou_by_stage"]) == (stage == "lora")


def test_a_budget_gives_a_third_to_stage_one():
    clock = Ticks(0.0)
    budget = Budget(10, clock)
    clock.now += 30
    first = budget.of_stage_one(is_last=False)
    assert first.has_room_for(169)
    assert not first.has_room_for(171)
    assert budget.of_stage_one(is_last=True).has_room_for(500)
    assert not budget.of_the_rest().has_room_for(569), "saving takes time too"
    clock.now += 85
    assert_allclose(first.fraction, 0.5)
    assert Budget(None, clock).of_the_rest().has_room_for(1e9)


def test_lora_is_dropped_where_as_many_further_steps_of_the_head_do_as_well(train):
    """Colours are plain to the head: whatever LoRA gains here it gains by more steps."""
    model = train(settings=quick(stage="lora", epochs=3))
    losses = model.scores["log_loss_by_stage"]
    assert losses.keys() == {"head", "further", "lora"}
    assert model.training["kept"] in {"head", "further"}
    assert "LoRA is not kept" in model.training["outcome"]
    assert losses["further"] < losses["lora"] + 0.02


@pytest.mark.parametrize("lora", [0.7, 0.5])
def test_few_places_are_cross_validated_with_all_candidates_in_each_fold(
    lora, train, few_labels, monkeypatch, tmp_path
):
    tell_scores(monkeypatch, HeadStage, [0.6, 0.55])
    seen = tell_scores(monkeypatch, FineTuning, [lora])
    model = train(labels=few_labels, settings=quick(stage="lora", epochs=3))
    assert model.training["kept"] == ("lora" if lora > 0.6 else "head")
    assert model.scores["on"] == "blocks held out in turn (cross-validation, 3 folds)"
    stored = load_file(tmp_path / "a.model" / "model.safetensors")
    assert any("lora_B" in name and weight.any() for name, weight in stored.items()) == (lora > 0.6)
    assert not torch.equal(stored["head.classify.weight"], seen[0]), "trained on all labels"


def test_each_label_is_predicted_once_by_a_model_that_did_not_see_it(train, few_labels):
    model = train(labels=few_labels, settings=quick(stage="lora", epochs=3))
    # Each labelled pixel is predicted once, by a head that never saw its block. The pixels of the
    # scene are not square, and those of the crops are: their numbers are about the same.
    predicted = sum(map(sum, model.scores["confusion_matrix"]))
    assert predicted == pytest.approx(sum(model.training["validation_pixels"].values()), rel=0.02)
    assert model.temperature != 1


def test_no_fold_learns_from_the_blocks_that_it_is_scored_on(
    backbone, color_field, few_labels, tmp_path
):
    settings = quick(cached_crops=20)
    data = read_training_data(
        color_field.scene, few_labels, bands=None, options=LabelOptions(), settings=settings
    )
    assert data.folds > 1
    context = build_context(
        data, settings, {"backbone": backbone, "quantize": False}, torch.device("cpu")
    )
    crops, validation = cached(context, tmp_path)
    assert len(crops.training) == 20
    assert len(crops.training_of) == len(crops.validation_of) == data.folds
    split = data.splits[0]
    fold_of = [piece.fold for batch in validation.batches() for piece, _ in batch]
    for fold, (training, held_out) in enumerate(
        zip(crops.training_of, crops.validation_of, strict=True)
    ):
        assert len(training) >= 20
        for index in training:
            window = crops.cache.crops[index].window
            assert not split.touches(window, fold)
        assert len(held_out)
        for index in held_out:
            assert fold_of[index] == fold
    held_out = np.concatenate(crops.validation_of)
    assert sorted(held_out) == list(range(len(fold_of)))
    whole = crops.of_all_labels()
    assert list(whole.training_of[0]) == list(crops.training)
    assert not set(held_out) & set(crops.training)


def test_the_model_is_calibrated(train, tmp_path, color_field):
    model = train(settings=quick(stage="head", epochs=3))
    calibration = model.scores["calibration"]
    assert calibration["temperature"] == model.temperature
    errors = [calibration[side]["expected_calibration_error"] for side in ("before", "after")]
    assert errors[1] <= errors[0] + 0.02
    loaded = load_model(tmp_path / "a.model", device="cpu")
    assert loaded.temperature == model.temperature
    pixels = torch.randint(0, 255, (1, 3, 28, 42), dtype=torch.uint8)
    valid = torch.ones(1, 28, 42, dtype=torch.bool)
    cold = replace(loaded, temperature=1.0).probabilities(pixels, valid)
    wanted = torch.softmax(cold.log() / loaded.temperature, dim=1)
    assert_allclose(loaded.probabilities(pixels, valid), wanted, atol=1e-5)


def test_a_plan_says_what_would_be_trained_and_loads_no_weights(
    color_field, backbone, few_labels, monkeypatch
):
    def refuse(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(DinoV2Segmentor, "__init__", refuse)
    plan = plan_training(
        color_field.scene,
        color_field.many_labels,
        settings=quick(stage="lora", cached_crops=10),
        network={"backbone": backbone, "n_features": 2},
    )
    facts = plan.to_json()
    assert facts["stages"] == ["head", "fused", "further", "lora"]
    assert facts["cached crops"] == 12, "those of held-out labels, too"
    assert plan.cache_bytes == 12 * (2 * 2 * 32 * 4 + (1 + 2 * 3 + 1) * 28 * 28)
    assert all(facts["labelled pixels to validate on"].values())
    few = plan_training(
        color_field.scene, few_labels, network={"backbone": backbone}, settings=quick(stage="lora")
    )
    assert few.to_json()["validation"] == "cross-validation, 3 folds"
    assert few.to_json()["epochs of each"] == [1, 1, 1, 1], "the folds share two"


AUTO = {"quantize": False}


def test_linear_and_fused_head_are_tried_and_the_clearly_better_is_kept(train, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        model = train(settings=quick(stage="head", epochs=3), network=AUTO)
    by_stage = model.scores["log_loss_by_stage"]
    assert by_stage.keys() == {"head", "fused"}
    assert model.training["outcome"] in caplog.text
    assert "the linear head" in model.training["outcome"]
    assert model.network.settings.get("fused_head", False) == (model.training["kept"] == "fused")
    loaded = load_model(tmp_path / "a.model", device="cpu")
    pixels = torch.randint(0, 255, (1, 3, 56, 42), dtype=torch.uint8)
    valid = torch.ones(1, 56, 42, dtype=torch.bool)
    assert_allclose(
        loaded.probabilities(pixels, valid), model.probabilities(pixels, valid), atol=1e-6
    )
    with (tmp_path / "a.model" / "history.csv").open() as handle:
        stages = [line.split(",")[1] for line in handle][1:]
    assert stages == ["head"] * 3 + ["fused"] * 3


@pytest.mark.parametrize(("linear", "fused"), [(0.6, 0.5), (0.5, 0.6)])
def test_lora_starts_from_the_head_that_is_kept(linear, fused, train, monkeypatch):
    told = iter([linear, linear, fused, fused, 0.3, 0.3])
    monkeypatch.setattr(HeadStage, "validate", lambda _: ToldScorer(next(told)))
    tell_scores(monkeypatch, FineTuning, [0.9, 0.9])
    model = train(settings=quick(stage="lora", epochs=2), network=AUTO)
    assert model.training["kept"] == "lora"
    assert isinstance(model.network.head, FusedHead if fused > linear else LinearHead)


def test_a_kept_head_has_learned_from_held_out_labels_too(train, monkeypatch, tmp_path):
    seen = tell_scores(monkeypatch, HeadStage, [0.5, 0.5])
    model = train(settings=quick(stage="head"))
    kept = load_file(tmp_path / "a.model" / "model.safetensors")["head.classify.weight"]
    assert not torch.equal(kept, seen[1])
    assert model.scores["mean_iou"] == 0.5, "its scores are those of the first training"


def test_the_crops_of_all_labels_are_those_of_both_sides(context_of, tmp_path):
    context = context_of(quick(cached_crops=8, validation_share=0.2))
    crops, _ = cached(context, tmp_path)
    assert len(crops.held_out) == 2
    split = context.source.data.splits[0]
    for side, indices in ((False, crops.training), (True, crops.held_out)):
        for index in indices:
            window = crops.cache.crops[index].window
            rows = slice(
                window.row_off // split.block_px, (window.row_end - 1) // split.block_px + 1
            )
            cols = slice(
                window.col_off // split.block_px, (window.col_end - 1) // split.block_px + 1
            )
            assert (split.held_out(0)[rows, cols] == side).all()
    assert list(crops.of_all_labels().training_of[0]) == [*crops.training, *crops.held_out]


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_other_numbers_of_bands_train_both_heads(bands, backbone, color_field, tmp_path):
    with rasterio.open(color_field.scene) as dataset:
        pixels = dataset.read()
    scene = write_raster(
        tmp_path / "scene.tif", pixels[np.arange(bands) % 3], photometric="MINISBLACK"
    )
    model = train_model(
        scene,
        color_field.labels,
        tmp_path / "a.model",
        settings=quick(steps_per_epoch=2),
        network={"backbone": backbone, "quantize": False},
        device="cpu",
    )
    assert model.bands == tuple(range(1, bands + 1))
    assert all(np.isfinite(value) for value in model.scores["log_loss_by_stage"].values())


@pytest.mark.parametrize(("patch_px", "side_px"), [(14, 84), (16, 80)])
def test_parts_of_crops_hold_a_label_and_stay_on_the_patch_grid(patch_px, side_px):
    patches, rng = 14, np.random.default_rng(0)
    crop_px = patches * patch_px
    rows, cols = torch.meshgrid(torch.arange(crop_px), torch.arange(crop_px), indexing="ij")
    place = (rows * 1000 + cols).double()
    labels = torch.full((40, crop_px, crop_px), IGNORE)
    for index in range(39):
        labels[index, rng.integers(crop_px), rng.integers(crop_px)] = 1
    features = place[::patch_px, ::patch_px].expand(40, 2, -1, -1)
    valid = torch.ones(40, crop_px, crop_px, dtype=torch.bool)
    batch = CachedBatch(features, Detail(place.expand(40, 3, -1, -1), valid), labels)
    found = parts_of(batch, rng)
    assert found.labels.shape == found.detail.valid.shape == (40, side_px, side_px)
    assert found.detail.pixels.shape == (40, 3, side_px, side_px)
    assert torch.equal(found.detail.pixels[:, :2, ::patch_px, ::patch_px], found.features)
    assert (found.labels == 1).flatten(1).any(dim=1)[:39].all()
    assert parts_of(found, rng) is found, "small enough"
