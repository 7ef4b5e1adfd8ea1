"""Bands that are few, many, constant, empty or of odd scales: trained, or refused in one line."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import rasterio
from rasters import read_raster, write_raster
from trainings import color_channels, color_pixels, no_pictures, quick, write_squares

from geodinoseg.errors import LabelError, ModelError, SceneError
from geodinoseg.model.backbone import patch_embedding
from geodinoseg.model.folder import load_model
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.training.train import train_model

CHANNELS = color_channels(112, 126)
COLORS = color_pixels(CHANNELS).astype(np.float32)
NETWORKS = {
    "linear": {"linear_head": True},
    "fused": {"fused_head": True},
    "none": {"backbone": "none"},
}
MODELS = [("linear", "pca"), ("linear", "widen"), ("fused", "pca"), ("none", "pca")]


def holed(value):
    """Colours with this value in some rows of one band."""
    pixels = COLORS.copy()
    pixels[1, ::4] = value
    return pixels


def second(value, dtype=np.float32):
    """Colours with this value throughout the second band."""
    pixels = COLORS.astype(dtype)
    pixels[1] = value
    return pixels


def scaled(*factors, dtype=np.float32):
    return COLORS.astype(dtype) * np.array(factors, dtype)[:, None, None]


@pytest.fixture(scope="module")
def train(backbone, tmp_path_factory):
    """Train for an instant on pixels, and load the model."""
    folder = tmp_path_factory.mktemp("bad")
    labels = write_squares(folder / "labels.gpkg", CHANNELS, count=40)

    def run(pixels, model="none", projection="pca", *, nodata=None, names=(), **changes):
        scene = write_raster(folder / "s.tif", pixels, nodata=nodata)
        if names:
            with rasterio.open(scene, "r+") as dataset:
                dataset.descriptions = names
        bands = changes.pop("bands", None)
        settings = {"epochs": 1, "steps_per_epoch": 2, "crop_px": 28, "cached_crops": 8}
        settings |= {"backbone_learning_rate": None, "band_projection": projection}
        settings |= {"validation_share": 0.0}
        train_model(
            scene,
            labels,
            folder / "m.model",
            settings=quick(**settings | changes),
            network={"backbone": backbone} | NETWORKS[model],
            bands=bands,
            device="cpu",
            overwrite=True,
        )
        return scene, load_model(folder / "m.model", device="cpu")

    return run


@pytest.fixture(scope="module")
def trained(train):
    return train(COLORS)[1]


@pytest.fixture(scope="module", autouse=True)
def _no_pictures():
    with pytest.MonkeyPatch.context() as monkeypatch:
        no_pictures(monkeypatch)
        yield


ODD = {
    "one": (COLORS[:1], None),
    "two": (COLORS[:2], None),
    "200": (np.tile(COLORS, (67, 1, 1))[:200], None),
    "constant": (np.concatenate([COLORS, second(7)[1:2]]), None),
    "scales": (scaled(1e-6, 1, 1e6), None),
    "far scales": (scaled(1e-30, 1, 1e30), None),
    "holes": (holed(np.nan), None),
    "infinity": (holed(np.inf), None),
    "-infinity": (holed(-np.inf), None),
    "nodata": (second(0, np.uint8), 0),
}
FAST = {("fused", "one"), ("none", "constant"), ("fused", "scales"), ("linear", "infinity")}


def odd_cases():
    for model, projection in MODELS:
        for name, (pixels, nodata) in ODD.items():
            is_fast = projection == "pca" and (model, name) in FAST
            marks = () if is_fast else pytest.mark.slow
            yield pytest.param(
                model, projection, pixels, nodata, id=f"{model}-{projection}-{name}", marks=marks
            )


@pytest.mark.parametrize(("model", "projection", "pixels", "nodata"), list(odd_cases()))
def test_odd_bands_are_trained_without_nan(
    model, projection, pixels, nodata, train, tmp_path, caplog
):
    scene, trained = train(pixels, model, projection, nodata=nodata, validation_share=0.2)
    tensors = trained.network.state_dict().values()
    assert all(t.isfinite().all() for t in tensors if t.is_floating_point())
    segment_scene(scene, trained, tmp_path / "m.tif", probabilities=tmp_path / "p.tif")
    with rasterio.open(tmp_path / "p.tif") as dataset:
        sums = dataset.read().astype(int).sum(axis=0)
    is_data = np.isfinite(pixels).all(axis=0)
    assert (np.abs(sums[is_data] - 250) <= 2).all()
    assert ((read_raster(tmp_path / "m.tif") < 255) == is_data).all()
    assert "far from" not in caplog.text


@pytest.mark.parametrize(
    ("pixels", "nodata", "error", "text"),
    [
        (second(np.nan), None, SceneError, "s.tif: band 2 holds no data"),
        (second(np.inf), None, SceneError, "s.tif: band 2 holds no data"),
        (second(-9999), -9999, SceneError, "s.tif: band 2 holds no data"),
        (np.full_like(COLORS, np.nan), None, LabelError, "holds no data where"),
        (np.ones_like(COLORS), None, SceneError, "every labelled pixel has the same value"),
        (scaled(1, 1e36, 1), None, SceneError, "s.tif: band 2 holds values from .* rescale it"),
        (scaled(1, 1, 1e300, dtype=float), None, SceneError, "band 3 holds values from"),
        (scaled(1e-300, 1, 1, dtype=float), None, SceneError, "band 1 holds values from"),
    ],
)
def test_bands_that_cannot_be_used_are_refused_in_one_line(pixels, nodata, error, text, train):
    for model, projection in MODELS:
        with pytest.raises(error, match=text) as refusal:
            train(pixels, model, projection, nodata=nodata)
        assert "\n" not in str(refusal.value)


def test_a_constant_band_is_named_and_has_no_effect(train, tmp_path, caplog):
    scene, trained = train(np.concatenate([COLORS, second(7)[1:2]]))
    assert "s.tif: the model does not use band 4, which has one value" in caplog.text
    assert "--bands 1,2,3." in caplog.text
    other = write_raster(tmp_path / "o.tif", np.concatenate([COLORS, COLORS[:1]]))
    for path, name in ((scene, "a.tif"), (other, "b.tif")):
        segment_scene(path, trained, tmp_path / name)
    assert (read_raster(tmp_path / "a.tif") == read_raster(tmp_path / "b.tif")).all()


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (second(np.nan), "band 2 holds no data (NaN, infinity or nodata), and a pixel"),
        (second(1e300, float), "band 2 holds values far from those that the model"),
        (second(0), "band 2 holds values far from those that the model"),
    ],
)
def test_a_scene_with_a_bad_band_is_said_to_have_one(pixels, text, trained, tmp_path, caplog):
    scene = write_raster(tmp_path / "o.tif", pixels)
    with caplog.at_level(logging.WARNING):
        segment_scene(scene, trained, tmp_path / "m.tif")
    assert text in caplog.text
    assert set(np.unique(read_raster(tmp_path / "m.tif"))) <= {1, 2, 3, 255}


NAMES = ("Blue", "Green", "Red", "NIR")
FOUR = np.concatenate([COLORS, COLORS[:1]])


@pytest.mark.parametrize(
    ("model", "bands", "seen"),
    [
        ("fused", None, (2, 1, 0)),
        ("linear", (4, 1, 3, 2), (2, 3, 1)),
        ("linear", (1, 2, 3), (2, 1, 0)),
    ],
)
def test_the_backbone_sees_the_bands_called_red_green_and_blue(model, bands, seen, train, backbone):
    _, trained = train(FOUR, model, "rgb", names=NAMES, bands=bands)
    own = load_backbone_filters(backbone)
    filters = patch_embedding(trained.network.base_backbone).weight
    assert (filters[:, list(seen)] == own).all()
    others = [band for band in range(filters.shape[1]) if band not in seen]
    assert not filters[:, others].any()
    assert trained.training["rgb_bands"] == [3, 2, 1]


def load_backbone_filters(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")["embeddings.patch_embeddings.projection.weight"]


@pytest.mark.parametrize("bands", [None, (1, 2, 4)])
def test_bands_without_names_of_colours_are_refused_in_one_line(bands, train):
    with pytest.raises(SceneError, match=r"s\.tif: which bands are red.*--band-projection pca\."):
        train(FOUR, "linear", "rgb", bands=bands, names=NAMES if bands else ())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"stage": "lora"}, "stage='lora': without a backbone there is nothing"),
        ({"stage": "full"}, "stage='full': without a backbone there is nothing"),
        ({"projection": "rgb"}, "band_projection='rgb': without a backbone"),
    ],
)
def test_without_a_backbone_settings_of_one_are_refused(changes, text, train):
    with pytest.raises(ModelError, match=text):
        train(COLORS, **changes)


def test_without_a_backbone_the_head_is_the_only_stage(train):
    _, trained = train(COLORS, stage=None)
    assert (trained.training["stage"], trained.training["kept"]) == ("head", "head")
    assert "band_projection" not in trained.training
