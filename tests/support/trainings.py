"""Things to train on in tests: a small backbone, a scene of colours, its labels, a small model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import shapely
import torch
from affine import Affine
from rasters import ROTATED, write_raster
from transformers import Dinov2Backbone, Dinov2Config
from transformers.utils import logging as transformers_logging

from geodinoseg.evaluation.accuracy import Accuracy
from geodinoseg.legend import Legend
from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.training.comparison import BlockLosses
from geodinoseg.training.settings import TrainingSettings

NAMES = ("field", "roof", "water")
COLORS = np.array([[60, 190, 70], [200, 60, 50], [50, 70, 200]])
HEIGHT, WIDTH, CROP_PX = 260, 300, 56


@dataclass(frozen=True)
class ColorField:
    """A scene whose classes show by colour, and polygons in some of it."""

    scene: Path
    labels: Path
    """Polygons for a cross-validation."""
    many_labels: Path
    """Smaller ones in more places: enough to hold some out for good, with crops of 28 px."""
    channels: np.ndarray
    """(height, width), the class of every pixel as an index of NAMES."""


def write_backbone(folder: Path) -> Path:
    """A DINOv2 of two layers with random weights, as transformers saves it."""
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Dinov2Backbone(config).save_pretrained(folder)
    transformers_logging.enable_progress_bar()
    return folder


def color_channels(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Three areas with straight borders, none of them the same size."""
    rows, cols = np.mgrid[:height, :width]
    return np.where(cols < 0.45 * width, 0, np.where(rows < 0.55 * height, 1, 2))


def color_pixels(channels: np.ndarray, *, noise: float = 20, seed: int = 0) -> np.ndarray:
    """(3, height, width) uint8, never 0."""
    grain = np.random.default_rng(seed).normal(0, noise, (3, *channels.shape))
    return (np.moveaxis(COLORS[channels], -1, 0) + grain).clip(1, 255).astype(np.uint8)


def write_color_field(folder: Path) -> ColorField:
    """A scene on a rotated grid, its labels as squares in longitude and latitude."""
    channels = color_channels()
    scene = write_raster(folder / "scene.tif", color_pixels(channels))
    labels = write_squares(folder / "labels.gpkg", channels, count=60)
    many = write_squares(folder / "many.gpkg", channels, count=120, side=8)
    return ColorField(scene=scene, labels=labels, many_labels=many, channels=channels)


def write_squares(
    path: Path, channels: np.ndarray, *, count: int, side: int = 18, transform: Affine = ROTATED
) -> Path:
    """Squares at random places that lie in one class, in another CRS than the scene's."""
    rng = np.random.default_rng(1)
    height, width = channels.shape
    corners = [(rng.integers(height - side), rng.integers(width - side)) for _ in range(count)]
    kept = [(r, c) for r, c in corners if np.ptp(channels[r : r + side, c : c + side]) == 0]
    squares = np.array([shapely.box(c, r, c + side, r + side) for r, c in kept], dtype=object)
    frame = geopandas.GeoDataFrame(
        {"class": [NAMES[channels[r, c]] for r, c in kept]},
        geometry=list(
            shapely.transform(squares, lambda xy: np.column_stack(transform @ tuple(xy.T)))
        ),
        crs="EPSG:32633",
    )
    frame.to_crs(4326).to_file(path)
    return path


def squares_with_two_classes(
    channels: np.ndarray, corners: list[tuple[int, int]]
) -> geopandas.GeoDataFrame:
    """Squares of 15 px at corners (row, column): `class` as in the middle, and `other`, a or b."""
    boxes = [shapely.box(c + 0.2, r, c + 15.2, r + 15) for r, c in corners]
    return geopandas.GeoDataFrame(
        {
            "class": [NAMES[channels[r + 7, c + 7]] for r, c in corners],
            "other": [["a", "b"][i % 2] for i in range(len(corners))],
        },
        geometry=[shapely.affinity.affine_transform(b, ROTATED.to_shapely()) for b in boxes],
        crs="EPSG:32633",
    )


def write_few_squares(path: Path) -> Path:
    """Ten squares of two classes, too few for a validation part of their own."""
    channels = color_channels()
    corners = [(20 + 8 * i, 100 + 12 * i) for i in range(5)]
    corners += [(130, 100 + 20 * i) for i in range(5)]
    squares = [shapely.box(c, r, c + 14, r + 14) for r, c in corners]
    frame = geopandas.GeoDataFrame(
        {"class": ["field" if channels[r + 8, c + 8] == 0 else "roof" for r, c in corners]},
        geometry=[shapely.affinity.affine_transform(s, ROTATED.to_shapely()) for s in squares],
        crs="EPSG:32633",
    )
    frame.to_file(path)
    return path


LINEAR = {"linear_head": True}
"""Arguments of the network; without them the fused head is tried too, which takes longer."""


def quick(**changes: object) -> TrainingSettings:
    """Settings that learn three colours in a second or two."""
    values = {
        "stage": "head",
        "epochs": 2,
        "steps_per_epoch": 8,
        "batch_size": 4,
        "crop_px": 28,
        "learning_rate": 0.02,
        "backbone_learning_rate": 1e-3,
    }
    return TrainingSettings(**(values | changes))


def no_pictures(monkeypatch: object) -> None:
    """Let trainings draw nothing: a file with the picture's name and nothing in it."""
    from geodinoseg.training import curves, figures

    def nothing(*arguments: object) -> None:
        Path(str(arguments[-1])).touch()

    monkeypatch.setattr(curves, "training_curves", nothing)
    monkeypatch.setattr(figures, "reliability_diagram", nothing)
    monkeypatch.setattr(figures, "validation_panel", nothing)


def small_segmentor(backbone: Path, *, bands: int = 3) -> Segmentor:
    """A model that was never trained: right in form, wrong in all it says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DinoV2Segmentor(
            backbone=backbone, quantize=False, peft=False, num_classes=3, bands=bands
        )
    network.requires_grad_(requires_grad=False).eval()
    return Segmentor(
        network=network,
        legend=Legend.of_names(dict(enumerate(NAMES))),
        statistics=BandStatistics(
            mean=(110.0,) * bands,
            std=(60.0,) * bands,
            low=(10.0,) * bands,
            high=(240.0,) * bands,
            dtype="uint8",
        ),
        bands=tuple(range(1, bands + 1)),
        trained_tile_px=CROP_PX,
        pixel_size_m=0.59,
    )


class ToldScorer:
    """A scorer that has made up its mind."""

    loss = 0.5

    def __init__(self, right):
        # The IoU of both classes is a / (a + 2 b).
        a, b = round(2000 * right), round(1000 * (1 - right))
        self.accuracy = Accuracy(np.array([[a, b], [b, a]]))
        pixels = np.array([100.0, 300.0, 200.0])
        self.losses = BlockLosses(sums=(1 - right) * pixels, pixels=pixels)


def tell_scores(monkeypatch, stage, scores):
    """Let a stage be scored with these, and collect the head's weights at each."""
    told, seen = iter(scores), []

    def validate(stage):
        weights = [t for name, t in stage.tensors().items() if name.endswith("classify.weight")]
        seen.append(weights[0].detach().clone())
        return ToldScorer(next(told))

    monkeypatch.setattr(stage, "validate", validate)
    return seen
