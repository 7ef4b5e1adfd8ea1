"""Training and validation crops: which windows of the scenes they are cut from.

A training crop is a function of the seed and of its number alone, so a run can be repeated.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray

from geodinoseg.errors import LabelError
from geodinoseg.labels.classes import IGNORE
from geodinoseg.prefetch import prefetch
from geodinoseg.rasters.scene import Scene, SceneReader
from geodinoseg.rasters.source import GDAL_SETTINGS
from geodinoseg.training.crops import Crop, default_jitter, draw_jitter, padded, resized, turned
from geodinoseg.training.settings import Augmentation
from geodinoseg.training.split.crop_shape import crop_shape
from geodinoseg.training.split.split import SplitScene
from geodinoseg.windows import Window, windows_over

_TRIES = 20
"""Windows drawn before one within the block is taken, which shows nothing held out."""
_OPEN_SCENES = 32
"""Scenes that are kept open: hundreds of image chips would exhaust the process's file handles."""
_CACHE_BYTES = 512 << 20
"""For decoded blocks: those with labels are read repeatedly."""
_CACHED_BLOCKS = 64
"""Blocks whose labels are cached: 0.4 MB each with crops of 224 px."""

_READING = threading.Lock()
"""One thread at a time opens rasters and burns polygons: rasterio suppresses a warning meanwhile,
and all threads share Python's warning filters."""


class Sampler:
    """Draws training crops with class balance, and reads validation crops.

    Use as a context manager: it keeps scenes open. Belongs to one thread at a time.
    """

    def __init__(
        self,
        scenes: Sequence[SplitScene],
        *,
        crop_px: int,
        augmentation: Augmentation,
        seed: int,
        fold: int | None = 0,
    ) -> None:
        """Take scenes with the same classes; fold None trains on everything. Opens nothing yet."""
        self._scenes = scenes
        self._crop_px = crop_px
        self._augmentation = augmentation
        self._seed = seed
        self._fold = fold
        self._readers: OrderedDict[int, tuple[SceneReader, ExitStack]] = OrderedDict()
        self._settings = rasterio.Env(**(GDAL_SETTINGS | {"GDAL_CACHEMAX": _CACHE_BYTES}))
        self._classes = _training_blocks(scenes, fold)
        self._block_labels = lru_cache(_CACHED_BLOCKS)(self._read_block)

    def __enter__(self) -> Self:
        """Open scenes from now on, when a crop needs them."""
        self._settings.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the scenes."""
        while self._readers:
            self._close_oldest()
        self._settings.__exit__()

    def batch(self, first: int, count: int) -> list[Crop]:
        """Training crops number first to first + count - 1.

        Each is drawn over a labelled pixel of a class, all classes being equally likely, scaled,
        turned, flipped and jittered. No pixel of a held-out block is labelled in it.
        """
        return [self._crop(np.random.default_rng((self._seed, first + i))) for i in range(count)]

    def validation_pieces(self) -> list[tuple[int, Window]]:
        """(scene, window) of the labelled blocks that validate, in pieces no larger than a crop."""
        found = []
        for index, split in enumerate(self._scenes):
            rows, cols = crop_shape(split.scene.geobox, self._crop_px)
            for block in (split.block(*at) for at in _held_out_with_labels(split, self._fold)):
                pieces = windows_over(height=block.height, width=block.width, rows=rows, cols=cols)
                found += [
                    (index, piece.shifted_by(rows=block.row_off, cols=block.col_off))
                    for piece in pieces
                ]
        return found

    def validation_crop(self, index: int, piece: Window) -> Crop:
        """A crop without augmentation around a piece of a scene, labelled only in the piece."""
        scene = self._scenes[index].scene
        shape = rows, cols = crop_shape(scene.geobox, self._crop_px)
        window = _window_at(
            scene,
            row_off=piece.row_off - (rows - piece.height) // 2,
            col_off=piece.col_off - (cols - piece.width) // 2,
            shape=shape,
        )
        crop = self._read(index, window)
        outside = np.ones_like(crop.valid)
        outside[piece.shifted_by(rows=-window.row_off, cols=-window.col_off).slices] = False
        crop.labels[outside] = IGNORE
        return resized(padded(crop, shape), self._crop_px)

    def _crop(self, rng: np.random.Generator) -> Crop:
        index, window, shape = self._draw_window(rng)
        crop = self._read(index, window)
        # Only if blocks are smaller than a crop: nothing held out is trained on.
        crop.labels[self._scenes[index].in_held_out(window, self._fold)] = IGNORE
        crop = turned(resized(padded(crop, shape), self._crop_px), rng)
        bands = len(crop.pixels)
        default = default_jitter(bands, len(self._scenes))
        jitter = draw_jitter(bands, self._augmentation, rng, default=default)
        return replace(crop, jitter=jitter)

    def _draw_window(self, rng: np.random.Generator) -> tuple[int, Window, tuple[int, int]]:
        """Scene and window of a crop, and its rows and columns, which may exceed a small scene."""
        class_index, blocks, chances = self._classes[rng.integers(len(self._classes))]
        for _ in range(_TRIES):
            index, block_row, block_col = blocks[rng.choice(len(blocks), p=chances)].tolist()
            split = self._scenes[index]
            side = self._crop_px * self._augmentation.scale ** rng.uniform(-1, 1)
            shape = rows, cols = crop_shape(split.scene.geobox, side)
            row, col = self._draw_pixel(index, block_row, block_col, class_index, rng)
            window = _window_at(
                split.scene,
                row_off=row - int(rng.integers(rows)),
                col_off=col - int(rng.integers(cols)),
                shape=shape,
            )
            if not split.touches(window, self._fold):
                return index, window, shape
        shape = rows, cols = crop_shape(split.scene.geobox, self._crop_px)
        window = _window_in(
            split.scene,
            split.block(block_row, block_col),
            row_off=row - int(rng.integers(rows)),
            col_off=col - int(rng.integers(cols)),
            shape=shape,
        )
        return index, window, shape

    def _draw_pixel(
        self, index: int, row: int, col: int, class_index: int, rng: np.random.Generator
    ) -> tuple[int, int]:
        """Row and column in the scene of a random pixel of a class in a block."""
        at = np.flatnonzero(self._block_labels(index, row, col) == class_index)
        block = self._scenes[index].block(row, col)
        rows, cols = divmod(int(at[rng.integers(len(at))]), block.width)
        return block.row_off + rows, block.col_off + cols

    def _read_block(self, index: int, row: int, col: int) -> NDArray[Any]:
        return self._read_labels(index, self._scenes[index].block(row, col))

    def _read_labels(self, index: int, window: Window) -> NDArray[Any]:
        with _READING:
            return self._scenes[index].labels.read(window)

    def _read(self, index: int, window: Window) -> Crop:
        pixels, valid = self._scenes[index].read(self._reader(index), window)
        labels = np.where(valid, self._read_labels(index, window), IGNORE)
        return Crop(
            pixels=pixels, valid=valid, labels=labels.astype(np.int64), scene=index, window=window
        )

    def _reader(self, index: int) -> SceneReader:
        """The open scene; the least recently used one is closed for it."""
        if index in self._readers:
            self._readers.move_to_end(index)
            return self._readers[index][0]
        if len(self._readers) == _OPEN_SCENES:
            self._close_oldest()
        exits = ExitStack()
        with _READING:
            reader = exits.enter_context(self._scenes[index].scene.reader())
        self._readers[index] = reader, exits
        return reader

    def _close_oldest(self) -> None:
        _, (_, exits) = self._readers.popitem(last=False)
        exits.close()


def read_ahead(
    sampler: Sampler, *, steps: range, batch_size: int
) -> Generator[list[Crop], None, None]:
    """The batches of these steps, read two ahead in a thread."""

    def batches() -> Generator[list[Crop], None, None]:
        with sampler:
            for step in steps:
                yield sampler.batch(step * batch_size, batch_size)

    yield from prefetch(batches, ahead=2)


def _training_blocks(
    scenes: Sequence[SplitScene], fold: int | None
) -> list[tuple[int, NDArray[np.int64], NDArray[np.float64]]]:
    """For each class with training labels its index, its blocks, and the probability of each.

    Blocks are (blocks, 3) of scene, block row and block column.
    """
    found = []
    for class_index in range(scenes[0].counts.shape[-1]):
        where, weights = [], []
        for index, split in enumerate(scenes):
            counts = np.where(split.trains(fold), split.counts[..., class_index], 0)
            blocks = np.argwhere(counts > 0)
            where.append(np.insert(blocks, 0, index, axis=1))
            weights.append(counts[counts > 0])
        chances = np.concatenate(weights).astype(np.float64)
        if len(chances):
            found.append((class_index, np.concatenate(where), chances / chances.sum()))
    if not found:
        raise LabelError(
            f"{scenes[0].scene.path}: no labelled block is left to train on; label more of the "
            f"scene, or keep a smaller --validation-share."
        )
    return found


def _held_out_with_labels(split: SplitScene, fold: int | None) -> list[list[int]]:
    """Row and column of the blocks that validate and hold labels."""
    at: list[list[int]] = np.argwhere(split.held_out(fold) & split.counts.any(2)).tolist()
    return at


def _window_at(scene: Scene, *, row_off: int, col_off: int, shape: tuple[int, int]) -> Window:
    """A window at a corner, shifted to be inside the scene; clipped if the scene is smaller."""
    height, width = min(shape[0], scene.height), min(shape[1], scene.width)
    return Window(
        col_off=min(max(col_off, 0), scene.width - width),
        row_off=min(max(row_off, 0), scene.height - height),
        width=width,
        height=height,
    )


def _window_in(
    scene: Scene, block: Window, *, row_off: int, col_off: int, shape: tuple[int, int]
) -> Window:
    """A window at a corner, shifted to be inside a block.

    Only a last block can be smaller than the window, which then extends from its end back into the
    block before. That one is on the same side of the split.
    """
    return _window_at(
        scene,
        row_off=min(max(row_off, block.row_off), block.row_end - shape[0]),
        col_off=min(max(col_off, block.col_off), block.col_end - shape[1]),
        shape=shape,
    )
