"""Crops: where they are cut, what is labelled in them, and that they can be drawn again."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from affine import Affine
from arrays import ArrayLabels, ArrayScene, patchy, squares
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from geodinoseg.errors import LabelError, SceneError
from geodinoseg.labels.classes import IGNORE
from geodinoseg.training.crops import Crop, default_jitter, draw_jitter, jittered
from geodinoseg.training.sampler import Sampler, read_ahead
from geodinoseg.training.settings import Augmentation
from geodinoseg.training.split.split import SplitScene, split_scenes

AS_THEY_ARE = Augmentation(scale=1.0)


def sampler_over(*scenes, crop_px, share=0.25, seed=0, augmentation=AS_THEY_ARE):
    splits = split_scenes(
        *zip(*scenes, strict=True), crop_px=crop_px, fraction=share, seed=seed
    ).scenes
    return Sampler(splits, crop_px=crop_px, augmentation=augmentation, seed=seed), splits


def sources(crop):
    """Row and column in the scene of the labelled pixels of a crop that was not resampled."""
    known = crop.labels != IGNORE
    return np.round(crop.pixels[:, known]).astype(int), crop.labels[known]


shapes = {
    "height": st.integers(1, 130),
    "width": st.integers(1, 130),
    "crop_px": st.integers(4, 40),
    "seed": st.integers(0, 99),
}


@given(**shapes)
@settings(max_examples=25)
def test_no_training_crop_has_a_label_of_a_validation_block(height, width, crop_px, seed):
    scene, labels = patchy(height, width, seed=seed)
    sampler, (split,) = sampler_over((scene, labels), crop_px=crop_px, seed=seed)
    kept_out = split.held_out(0).repeat(split.block_px, 0).repeat(split.block_px, 1)
    with sampler:
        for crop in sampler.batch(0, 12):
            assert crop.labels.shape == crop.valid.shape == (crop_px, crop_px)
            assert crop.pixels.shape == (2, crop_px, crop_px)
            (rows, cols), known = sources(crop)
            assert len(known), "a crop is drawn over a label"
            assert not kept_out[rows, cols].any()
            assert_array_equal(labels.channels[rows, cols], known)


@given(**shapes)
@settings(max_examples=25)
def test_validation_crops_hold_each_validation_label_once(height, width, crop_px, seed):
    scene, labels = patchy(height, width, seed=seed)
    sampler, (split,) = sampler_over((scene, labels), crop_px=crop_px, seed=seed)
    seen = np.zeros((height, width), dtype=int)
    with sampler:
        for index, piece in sampler.validation_pieces():
            crop = sampler.validation_crop(index, piece)
            assert crop.labels.shape == (crop_px, crop_px)
            (rows, cols), known = sources(crop)
            assert_array_equal(labels.channels[rows, cols], known)
            np.add.at(seen, (rows, cols), 1)
    kept = split.held_out(0).repeat(split.block_px, 0).repeat(split.block_px, 1)
    wanted = kept[:height, :width] & (labels.channels != IGNORE)
    assert_array_equal(seen, wanted)


@given(scale=st.floats(1, 2), **shapes)
@settings(max_examples=25)
def test_labels_stay_on_their_pixels_however_a_crop_is_scaled_and_turned(
    scale, height, width, crop_px, seed
):
    scene, labels = patchy(height, width, seed=seed, hole=True)
    sampler, _ = sampler_over(
        (scene, labels), crop_px=crop_px, share=0, seed=seed, augmentation=Augmentation(scale=scale)
    )
    with sampler:
        crops = sampler.batch(0, 8)
    for crop in crops:
        assert (crop.labels[~crop.valid] == IGNORE).all()
        # At the edges of the crop, and of what holds data, a slope is not a slope any more.
        inner = np.zeros_like(crop.valid)
        inner[2:-2, 2:-2] = crop.valid[2:-2, 2:-2]
        for axis in (0, 1):
            for shift in (-2, -1, 1, 2):
                inner &= np.roll(crop.valid, shift, axis)
        places = crop.pixels[:, inner]
        clear = (np.abs(places % 1 - 0.5) > 0.02).all(axis=0)
        rows, cols = np.round(places[:, clear]).astype(int)
        assert_array_equal(crop.labels[inner][clear], labels.channels[rows, cols])
        assert scene.valid[rows, cols].all()


def test_missing_pixels_have_no_label_and_do_not_bleed():
    scene, labels = patchy(60, 80, seed=3, hole=True)
    labels.channels[:] = 1
    labels.channels[:30, :40] = 0
    scene.pixels[:, ~scene.valid] = np.nan
    sampler, _ = sampler_over(
        (scene, labels), crop_px=16, share=0, augmentation=Augmentation(scale=2)
    )
    with sampler:
        crops = sampler.batch(0, 60)
    assert any(not crop.valid.all() for crop in crops)
    for crop in crops:
        assert np.isfinite(crop.pixels[:, crop.valid]).all()
        assert (crop.labels[~crop.valid] == IGNORE).all()
        assert (crop.labels[crop.valid] != IGNORE).all()


def test_a_scene_smaller_than_a_crop_lies_in_it_unstretched():
    scene, labels = patchy(5, 30, seed=1)
    sampler, _ = sampler_over((scene, labels), crop_px=20, share=0)
    with sampler:
        crops = sampler.batch(0, 10)
    for crop in crops:
        assert crop.valid.sum() == 5 * 20
        steps = np.abs(np.diff(crop.pixels, axis=-1)).sum(axis=0)
        assert set(np.unique(steps[crop.valid[:, 1:] & crop.valid[:, :-1]])) == {1}


def test_classes_are_drawn_with_equal_chance():
    channels = np.zeros((200, 190), dtype=int)
    channels[150:154, 33:37] = 1
    channels[20:90, 100:180] = 2
    scene = ArrayScene(np.ones(channels.shape, dtype=bool))
    sampler, _ = sampler_over((scene, ArrayLabels(channels)), crop_px=8, share=0)
    with sampler:
        crops = sampler.batch(0, 300)
    shares = [np.mean([(crop.labels == channel).any() for crop in crops]) for channel in (1, 2)]
    assert_allclose(shares, [1 / 3, 0.4], atol=0.1)


def test_all_scenes_are_drawn_from():
    pairs = [patchy(50, 60, seed=1), patchy(40, 70, seed=2)]
    pairs[1][0].pixels += 1000
    sampler, _ = sampler_over(*pairs, crop_px=10)
    with sampler:
        means = [crop.pixels.max() for crop in sampler.batch(0, 40)]
    assert 0 < sum(mean > 500 for mean in means) < 40


def test_a_crop_follows_from_the_seed_and_its_number():
    pair = patchy(90, 70, seed=5)

    def drawn(first, count, seed=7):
        sampler, _ = sampler_over(
            pair, crop_px=16, seed=seed, share=0, augmentation=Augmentation(scale=1.5)
        )
        with sampler:
            return sampler.batch(first, count)

    first, again, later, others = drawn(0, 6), drawn(0, 6), drawn(4, 2), drawn(0, 6, seed=8)
    for one, two in zip(first + first[4:], again + later, strict=True):
        assert_array_equal(one.pixels, two.pixels)
        assert_array_equal(one.labels, two.labels)
    assert any((a.pixels != b.pixels).any() for a, b in zip(first, others, strict=True))


@pytest.mark.parametrize("kept", ["everything", "nothing labelled"])
def test_without_a_block_to_train_on_the_labels_are_to_blame(kept):
    scene, labels = patchy(40, 50, seed=0)
    counts = labels.class_blocks(10) * (kept == "everything")
    folds = np.zeros(counts.shape[:2], dtype=np.int16)
    split = SplitScene(scene=scene, labels=labels, block_px=10, counts=counts, folds=folds)
    with pytest.raises(LabelError, match=r"array\.tif: no labelled block is left"):
        Sampler([split], crop_px=8, augmentation=AS_THEY_ARE, seed=0)


def test_where_blocks_are_too_small_to_be_missed_their_labels_are_left_out():
    channels = np.tile([0, 1], (12, 12))
    scene = ArrayScene(np.ones(channels.shape, dtype=bool))
    labels = ArrayLabels(channels, classes=2)
    chosen = np.indices((6, 12)).sum(axis=0) % 2 == 0
    split = SplitScene(
        scene=scene,
        labels=labels,
        block_px=2,
        counts=labels.class_blocks(2),
        folds=np.where(chosen, 0, -1),
    )
    with Sampler([split], crop_px=8, augmentation=AS_THEY_ARE, seed=0) as sampler:
        for crop in sampler.batch(0, 5):
            (rows, cols), _ = sources(crop)
            assert len(rows) == 32
            assert not chosen[rows // 2, cols // 2].any()


class CountingSampler:
    """A sampler without scenes: a batch is its number."""

    def __init__(self, fails_at=None):
        self.fails_at = fails_at
        self.is_open = False

    def __enter__(self):
        self.is_open = True
        return self

    def __exit__(self, *_):
        self.is_open = False

    def batch(self, first, count):
        if first == self.fails_at:
            raise SceneError("s.tif: rows 3 to 5 cannot be read.")
        return list(range(first, first + count))


def background_threads():
    return [t for t in threading.enumerate() if t.name == "geodinoseg-background"]


def test_batches_come_in_order_and_the_thread_ends():
    sampler = CountingSampler()
    assert list(read_ahead(sampler, steps=range(2, 6), batch_size=3)) == [
        [6, 7, 8],
        [9, 10, 11],
        [12, 13, 14],
        [15, 16, 17],
    ]
    assert not sampler.is_open
    assert not background_threads()


def test_an_error_in_the_thread_reaches_whoever_waits_for_the_batch():
    batches = read_ahead(CountingSampler(fails_at=4), steps=range(9), batch_size=2)
    assert [next(batches), next(batches)] == [[0, 1], [2, 3]]
    with pytest.raises(SceneError, match="cannot be read"):
        next(batches)
    assert not background_threads()


def test_batches_that_nobody_wants_are_not_read():
    sampler = CountingSampler()
    batches = read_ahead(sampler, steps=range(10_000), batch_size=2)
    next(batches)
    batches.close()
    assert not sampler.is_open
    assert not background_threads()


@given(
    gain=st.floats(0, 1), offset=st.floats(0, 1), bands=st.integers(1, 6), seed=st.integers(0, 99)
)
def test_jitter_stays_within_its_bounds_and_is_one_line_a_band(gain, offset, bands, seed):
    values = torch.linspace(-3, 3, 2 * bands * 5 * 7).reshape(2, bands, 5, 7)
    valid = torch.ones(2, 5, 7, dtype=torch.bool)
    valid[:, :2, :3] = False
    changes = Augmentation(gain=gain, offset=offset, band_dropout=0)

    def drawn():
        rngs = (np.random.default_rng((seed, number)) for number in range(2))
        return torch.from_numpy(
            np.stack([draw_jitter(bands, changes, rng, default=1.0) for rng in rngs])
        )

    found = jittered(values, valid, drawn())
    bound = gain * values.abs() + offset
    assert ((found - values).abs() <= bound + 1e-5).all()
    assert torch.equal(found[:, :, :2, :3], values[:, :, :2, :3]), "missing pixels stay as they are"
    # A straight line per band: equal steps in, equal steps out.
    steps = found[:, :, 2:].flatten(2).diff(dim=-1)
    assert_allclose(steps, steps[..., :1].expand_as(steps), atol=1e-5)
    assert torch.equal(drawn(), drawn())


@pytest.mark.parametrize("bands", [1, 3, 9])
def test_the_level_of_a_single_scene_is_not_varied_unless_it_is_asked_for(bands):
    rng, unchanged = np.random.default_rng(0), Augmentation(band_dropout=0)
    single = draw_jitter(bands, unchanged, rng, default=default_jitter(bands, 1))
    assert_allclose(single, [[1.0] * bands, [0.0] * bands])
    of_two = default_jitter(bands, 2)
    assert (draw_jitter(bands, unchanged, rng, default=of_two) != single).all()
    asked = Augmentation(gain=0.1, offset=0.1, band_dropout=0)
    assert (draw_jitter(bands, asked, rng, default=0.0) != single).all()


@pytest.mark.parametrize(("bands", "chance", "wanted"), [(3, 1.0, 0), (4, 0.0, 0), (4, 1.0, 1)])
def test_one_band_of_many_is_put_to_its_mean_now_and_then(bands, chance, wanted):
    rng = np.random.default_rng(0)
    for _ in range(20):
        jitter = draw_jitter(bands, Augmentation(band_dropout=chance), rng, default=0.2)
        assert (jitter == 0).all(axis=0).sum() == wanted


def test_no_more_scenes_are_open_than_a_process_may_have():
    opened = []

    class CountedScene(ArrayScene):
        @contextmanager
        def reader(self):
            opened.append(self)
            yield self
            opened.remove(self)

    pairs = []
    for seed in range(60):
        scene, labels = patchy(12, 14, seed=seed)
        pairs.append((CountedScene(scene.valid), labels))
    sampler, _ = sampler_over(*pairs, crop_px=6, share=0)
    seen = set()
    with sampler:
        for number in range(200):
            seen.add(sampler.batch(number, 1)[0].scene)
            assert len(opened) <= 32
    assert len(seen) > 50
    assert not opened


def test_a_crop_is_a_plain_value():
    crop = Crop(
        pixels=np.zeros((1, 2, 2)), valid=np.ones((2, 2), bool), labels=np.zeros((2, 2), np.int64)
    )
    with pytest.raises(AttributeError):
        crop.labels = None


@pytest.mark.parametrize("pixel_m", [(1.0, 4.0), (3.0, 1.0), (1.0, 1.04)])
def test_crops_are_square_on_the_ground(pixel_m):
    width_m, height_m = pixel_m
    transform = Affine(width_m, 0, 4e5, 0, -height_m, 5e6)
    scene, labels = squares(
        240, 240, count=90, side=10, seed=3, transform=transform, crs="EPSG:32633"
    )
    sampler, (split,) = sampler_over((scene, labels), crop_px=28)
    ground_m = 28 * np.sqrt(width_m * height_m)
    with sampler:
        for crop in sampler.batch(0, 12):
            extent_m = np.array([crop.window.height * height_m, crop.window.width * width_m])
            assert_allclose(extent_m, ground_m, rtol=0.05)
            assert crop.labels.shape == (28, 28)
            assert (crop.labels != IGNORE).any()
            assert not split.touches(crop.window, 0)
        pieces = sampler.validation_pieces()
        assert pieces
        for index, piece in pieces:
            crop = sampler.validation_crop(index, piece)
            assert crop.labels.shape == (28, 28)
            window = crop.window
            assert window.row_off <= piece.row_off
            assert piece.row_end <= window.row_end
            assert window.col_off <= piece.col_off
            assert piece.col_end <= window.col_end
