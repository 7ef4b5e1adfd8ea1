"""Pictures of a training: every pixel of a panel says what its arrays say."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.testing import assert_array_equal

from geodinoseg.errors import OutputError
from geodinoseg.evaluation.calibration import reliability
from geodinoseg.legend import Legend
from geodinoseg.training import figures as training_figures
from geodinoseg.training.curves import _stages, training_curves
from geodinoseg.training.figures import (
    PanelSample,
    _tiles,
    reliability_diagram,
    validation_panel,
)

LEGEND = Legend.of_names(
    {0: "field", 3: "$roof$ 屋根", 7: "a name of more letters than there is room"}
)


def sample(height=44, width=61, *, bands=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 3, (height, width))
    valid = np.ones((height, width), bool)
    valid[: height // 3, : width // 4] = False
    return PanelSample(
        pixels=rng.integers(1, 250, (bands, height, width)).astype(dtype),
        valid=valid,
        labels=labels,
        predicted=np.where(rng.random((height, width)) < 0.7, labels.clip(0), 1),
        confidence=rng.random((height, width), dtype=np.float32),
    )


def at_middles(tile, shape):
    """The pixel of the page over the middle of each pixel of a sample."""
    height, width = shape
    rows = ((np.arange(height) + 0.5) * tile.shape[0] / height).astype(int)
    cols = ((np.arange(width) + 0.5) * tile.shape[1] / width).astype(int)
    return tile[np.ix_(rows, cols)]


def test_labels_stand_in_their_colours_and_missing_pixels_are_white():
    shown = sample()
    image, labels, predicted, sure = _tiles(shown, LEGEND)
    assert image.shape == labels.shape == predicted.shape == sure.shape
    colors = np.array([entry.rgb for entry in LEGEND])
    known = shown.valid & (shown.labels >= 0)
    found = at_middles(labels, known.shape)
    assert_array_equal(found[known], colors[shown.labels[known]])
    right = known & (shown.predicted == shown.labels)
    found = at_middles(predicted, known.shape)
    assert_array_equal(found[right], colors[shown.predicted[right]])
    assert_array_equal(
        at_middles(image, known.shape)[shown.valid], np.moveaxis(shown.pixels, 0, -1)[shown.valid]
    )
    for tile in (image, labels, predicted, sure):
        assert (at_middles(tile, known.shape)[~shown.valid] == 255).all()


def test_errors_are_striped_and_what_no_label_checks_is_faded():
    labels = np.full((40, 40), -1)
    labels[:, 20:] = 0
    predicted = np.full((40, 40), 2)
    everywhere = np.ones((40, 40), bool)
    shown = PanelSample(
        pixels=np.ones((1, 40, 40)),
        valid=everywhere,
        labels=labels,
        predicted=predicted,
        confidence=np.ones((40, 40)),
    )
    tile = _tiles(shown, LEGEND)[2].astype(int)
    color = np.array(LEGEND.classes[2].rgb)
    left, right = np.split(tile, 2, axis=1)
    assert (left >= color).all()
    assert len(np.unique(left.reshape(-1, 3), axis=0)) == 1
    dark = (right == 20).all(axis=-1)
    assert 0.4 < dark.mean() < 0.6
    assert_array_equal(np.unique(right[~dark], axis=0), [color])


@pytest.mark.parametrize(("bands", "dtype"), [(1, np.uint16), (2, np.float32), (9, np.int16)])
def test_a_panel_is_drawn_of_any_bands(tmp_path, bands, dtype):
    shown = sample(bands=bands, dtype=dtype)
    image = _tiles(shown, LEGEND)[0]
    red, green, _ = np.moveaxis(at_middles(image, shown.valid.shape)[shown.valid], -1, 0)
    assert (red == green).all() == (bands < 3)
    order = np.argsort(shown.pixels[0][shown.valid], kind="stable")
    assert (np.diff(red[order].astype(int)) >= 0).all()
    assert (red.min(), red.max()) == (0, 255)


def test_a_panel_has_the_same_bytes_each_time(tmp_path):
    samples = [sample(height=20 + 9 * seed, seed=seed) for seed in range(2)]
    first, second = (
        validation_panel(samples, LEGEND, tmp_path / name) for name in ("a.png", "b.png")
    )
    assert first.read_bytes() == second.read_bytes()
    assert imread(first).std() > 0.05


def test_a_panel_has_eight_rows_at_most(tmp_path, monkeypatch):
    assert training_figures.LARGEST_PANEL == 8
    monkeypatch.setattr(training_figures, "LARGEST_PANEL", 2)
    samples = [sample(9, 9, seed=n) for n in range(4)]
    few = imread(validation_panel(samples[:1], LEGEND, tmp_path / "few.png"))
    most = validation_panel(samples[:2], LEGEND, tmp_path / "most.png")
    more = validation_panel(samples, LEGEND, tmp_path / "more.png")
    assert more.read_bytes() == most.read_bytes()
    assert few.shape[1] == imread(most).shape[1]
    assert imread(most).shape[0] > 1.3 * few.shape[0]


def test_a_sample_without_any_data_is_drawn_white(tmp_path):
    empty = PanelSample(
        pixels=np.full((3, 8, 5), np.nan),
        valid=np.zeros((8, 5), bool),
        labels=np.full((8, 5), -1),
        predicted=np.zeros((8, 5), int),
        confidence=np.ones((8, 5)),
    )
    assert all((tile == 255).all() for tile in _tiles(empty, LEGEND))
    assert validation_panel([empty], LEGEND, tmp_path / "p.png").exists()


@pytest.mark.parametrize("count", [0, 900])
def test_reliability_is_drawn_the_same_each_time_and_of_nothing(tmp_path, count):
    rng = np.random.default_rng(0)
    sure = rng.random(count)
    bins = [reliability(sure, rng.random(count) < share * sure) for share in (0.7, 1)]
    first, second = (reliability_diagram(*bins, tmp_path / name) for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()
    assert imread(first).std() > 0.01


def test_a_gap_lies_over_the_bar_only_where_the_model_is_overconfident(tmp_path):
    sure = np.full(1000, 0.75)
    picked = np.arange(1000) < 500
    over, under = (reliability(sure, right) for right in (picked, np.arange(1000) < 950))
    figure = Figure()
    for bins, axes in zip((over, under), figure.subplots(1, 2), strict=True):
        training_figures._draw_bins(axes, "", bins)
        bar, gap = axes.patches
        assert bar.get_height() == pytest.approx(bins.accuracy[7])
        ends = sorted((float(bins.accuracy[7]), 0.75))
        assert [gap.get_y(), gap.get_y() + gap.get_height()] == pytest.approx(ends)
        # The bar reaches up to the fraction correct, so a gap inside it must not cover it.
        assert gap.get_fill() == (bins is over)
    assert imread(reliability_diagram(over, under, tmp_path / "a.png")).std() > 0.01


def test_pictures_are_png(tmp_path):
    bins = reliability(np.ones(3), np.ones(3, bool))
    with pytest.raises(OutputError):
        reliability_diagram(bins, bins, tmp_path / "a.jpg")
    with pytest.raises(OutputError):
        validation_panel([sample()], LEGEND, tmp_path / "a.pdf")


def rows(stage, epochs, first=1):
    return [
        {
            "stage": stage,
            "epoch": first + n,
            "train_loss": 1.0,
            "val_loss": 1.2,
            "mean_iou": 0.1 * n,
        }
        for n in range(epochs)
    ]


@pytest.mark.parametrize("first", [1, 5])
def test_stages_stand_one_after_the_other_whether_epochs_go_on_or_begin_anew(tmp_path, first):
    stages = _stages(rows("head", 4) + rows("lora", 3, first))
    assert [stage.name for stage in stages] == ["head", "lora"]
    assert [stage.at for stage in stages] == [(1, 2, 3, 4), (5, 6, 7)]
    drawn = training_curves(rows("head", 4) + rows("lora", 3, first), tmp_path / "a.png")
    plain = training_curves(rows("", 4) + rows("", 3, 5), tmp_path / "b.png")
    assert (imread(drawn) != imread(plain)).any()
