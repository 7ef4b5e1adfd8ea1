"""Scenes and labels in memory, for what asks for nothing of a file."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from geodinoseg.geobox import GeoBox
from geodinoseg.labels.classes import IGNORE
from geodinoseg.legend import Legend
from geodinoseg.windows import windows_over


class ArrayScene:
    """A scene in memory whose pixels say where they are: their row, and their column."""

    path = "array.tif"

    def __init__(self, valid, *, transform=None, crs=None):
        self.height, self.width = valid.shape
        self.geobox = GeoBox(
            crs=None if crs is None else CRS.from_user_input(crs),
            transform=transform or Affine.identity(),
            width=self.width,
            height=self.height,
        )
        self.valid = valid
        self.pixels = np.mgrid[: self.height, : self.width].astype(np.float32)
        self.windows = []

    @contextmanager
    def reader(self):
        yield self

    def read(self, window):
        self.windows.append(window)
        return self.pixels[:, *window.slices].copy(), self.valid[window.slices].copy()


class ArrayLabels:
    """Labels in memory, on the grid of a scene."""

    source = None

    def __init__(self, channels, classes=3):
        self.channels = channels
        self.legend = Legend.of_names({i: f"class {i}" for i in range(classes)})

    def read(self, window):
        return self.channels[window.slices].copy()

    def class_blocks(self, block_px):
        height, width = self.channels.shape
        counts = np.zeros((-(-height // block_px), -(-width // block_px), len(self.legend)), int)
        for block in windows_over(height=height, width=width, rows=block_px, cols=block_px):
            known = self.read(block)
            counts[block.row_off // block_px, block.col_off // block_px] = np.bincount(
                known[known != IGNORE], minlength=len(self.legend)
            )
        return counts


def patchy(height, width, *, seed, hole=False):
    """A scene with labels in rectangles of three classes, half of it unlabelled."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-3, 3, (-(-height // 5), -(-width // 7))).clip(IGNORE)
    coarse.flat[:3] = (0, 1, 2)[: coarse.size]
    channels = coarse.repeat(5, axis=0).repeat(7, axis=1)[:height, :width]
    valid = np.ones((height, width), dtype=bool)
    if hole:
        valid[: height // 3, : width // 2] = False
    return ArrayScene(valid), ArrayLabels(channels)


def squares(height, width, *, count, side, classes=3, seed=0, **place):
    """A scene with few labels: squares of one class each, at random places."""
    rng = np.random.default_rng(seed)
    channels = np.full((height, width), IGNORE)
    for number in range(count):
        row, col = rng.integers(max(height - side, 1)), rng.integers(max(width - side, 1))
        channels[row : row + side, col : col + side] = number % classes
    return ArrayScene(np.ones((height, width), dtype=bool), **place), ArrayLabels(channels, classes)
