"""Training and validation samples: which windows of the scenes, and how they are varied.

A window is a function of the seed and of its number alone, so a run can be repeated.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from torch.nn import functional

from geodinoseg.grid import Window
from geodinoseg.labels import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geodinoseg.legend import Legend
    from geodinoseg.scene import Scene, SceneReader


_TRIES = 20
"""Windows drawn before one that touches validation blocks is taken, without its labels there."""


class LabelSource(Protocol):
    """What the sampler asks of labels; see `labels.open_labels`."""

    @property
    def legend(self) -> Legend:
        """The classes."""

    def read(self, window: Window) -> NDArray[Any]:
        """(height, width) channel of each pixel, IGNORE where there is no label."""

    def class_blocks(self, block_px: int) -> NDArray[np.int64]:
        """(block rows, block columns, classes) labelled pixels of each class in each block."""


@dataclass(frozen=True, kw_only=True)
class SplitScene:
    """A scene with its labels, cut into square blocks for training and for validation."""

    scene: Scene
    labels: LabelSource
    block_px: int
    """Side of a block."""
    counts: NDArray[np.int64]
    """(block rows, block columns, classes) labelled pixels."""
    is_validation: NDArray[np.bool_]
    """(block rows, block columns), True where a block is kept for validation."""

    def in_validation(self, window: Window) -> NDArray[np.bool_]:
        """(height, width), True for the pixels of a window that lie in a validation block."""
        rows = np.arange(window.row_off, window.row_end) // self.block_px
        cols = np.arange(window.col_off, window.col_end) // self.block_px
        return self.is_validation[np.ix_(rows, cols)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How training windows are varied. Quarter turns and flips are always in: maps have no up."""

    scale: float = 1.4
    """A window covers 1 / scale to scale times the side of a crop."""
    gain: float = 0.2
    """Each band is multiplied by 1 - gain to 1 + gain, in units of its deviation."""
    offset: float = 0.2
    """Each band, and all bands together, are moved by up to this many deviations."""


def validation_blocks(counts: NDArray[np.int64], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Choose blocks for validation so that every class has about its share of pixels there.

    Blocks are taken in a random order where they fill what a class still lacks, and never where
    they would take more than half of a class away from training.

    Args:
        counts: (block rows, block columns, classes) labelled pixels.
        share: share of each class's pixels to keep for validation, 0 to 0.5.
        seed: of the random order.

    Returns:
        (block rows, block columns) bool, True for validation; all False where there are too few
        labelled blocks to split.
    """
    shape = counts.shape[:2]
    flat = counts.reshape(-1, counts.shape[-1])
    totals = flat.sum(axis=0)
    wanted = share * totals
    taken = np.zeros_like(totals)
    chosen = np.zeros(len(flat), dtype=np.bool_)
    for block in np.random.default_rng(seed).permutation(len(flat)):
        fills = np.minimum(wanted - taken, flat[block]).clip(min=0) / np.maximum(totals, 1)
        spills = (taken + flat[block] - wanted).clip(min=0) / np.maximum(totals, 1)
        if (taken + flat[block] > totals / 2).any() or fills.sum() <= spills.sum():
            continue
        taken += flat[block]
        chosen[block] = True
    return chosen.reshape(shape)


class Sampler:
    """Draws training crops with class balance, and reads validation windows.

    Use as a context manager: it keeps the scenes open. Belongs to one thread at a time.
    """

    def __init__(
        self,
        scenes: Sequence[SplitScene],
        *,
        crop_px: int,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self._scenes = scenes
        self._crop_px = crop_px
        self._augmentation = augmentation
        self._seed = seed
        self._readers: list[SceneReader] = []
        self._exits = ExitStack()
        self._places = _labelled_places(scenes)

    def __enter__(self) -> Self:
        """Open the scenes."""
        self._readers = [self._exits.enter_context(s.scene.reader()) for s in self._scenes]
        return self

    def __exit__(self, *_: object) -> None:
        """Close the scenes."""
        self._exits.close()

    def batch(self, first: int, count: int) -> list[Crop]:
        """Training crops number first to first + count - 1."""
        return [self._crop(np.random.default_rng((self._seed, first + i))) for i in range(count)]

    def validation_windows(self) -> list[tuple[int, Window]]:
        """(scene, window) of the labelled validation blocks, cut into crops."""
        windows = []
        for index, split in enumerate(self._scenes):
            for row, col in np.argwhere(split.is_validation):
                windows += [
                    (index, window) for window in self._block_windows(split, int(row), int(col))
                ]
        return windows

    def validation_crop(self, index: int, window: Window) -> Crop:
        """One validation window, as it is."""
        return self._read(index, window)

    def _block_windows(self, split: SplitScene, row: int, col: int) -> Iterator[Window]:
        side, crop = split.block_px, self._crop_px
        for row_off in range(row * side, min((row + 1) * side, split.scene.height), crop):
            for col_off in range(col * side, min((col + 1) * side, split.scene.width), crop):
                yield Window(
                    col_off=col_off,
                    row_off=row_off,
                    width=min(crop, split.scene.width - col_off),
                    height=min(crop, split.scene.height - row_off),
                )

    def _crop(self, rng: np.random.Generator) -> Crop:
        index, window = self._draw_window(rng)
        crop = self._read(index, window)
        # Only where blocks are so small that no window misses them all: its labels are not used.
        crop.labels[self._scenes[index].in_validation(window)] = IGNORE
        return _turned(_resized(crop, self._crop_px), rng)

    def _draw_window(self, rng: np.random.Generator) -> tuple[int, Window]:
        """A window round a labelled block of a class drawn with equal chance for all classes."""
        places, chances = self._places[rng.integers(len(self._places))]
        window = None
        for _ in range(_TRIES):
            index, row, col = (int(v) for v in places[rng.choice(len(places), p=chances)])
            split = self._scenes[index]
            scale = self._augmentation.scale ** rng.uniform(-1, 1)
            side = round(self._crop_px * scale)
            window = _window_round(split, row, col, side, rng)
            if not split.in_validation(window).any():
                break
        assert window is not None
        return index, window

    def _read(self, index: int, window: Window) -> Crop:
        pixels, valid = self._readers[index].read(window)
        labels = np.where(valid, self._scenes[index].labels.read(window), IGNORE)
        return Crop(pixels=pixels, valid=valid, labels=labels.astype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """Pixels with their labels."""

    pixels: NDArray[Any]
    """(bands, height, width), raw."""
    valid: NDArray[np.bool_]
    """(height, width), True where the scene holds data."""
    labels: NDArray[np.int64]
    """(height, width), channel, or IGNORE."""


def jittered(
    values_BNHW: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Normalized pixels as another day's light would give them: gain and offset per band."""
    batch, bands = values_BNHW.shape[:2]

    def draw(*shape: int) -> torch.Tensor:
        return (torch.rand(*shape, 1, 1, generator=generator) * 2 - 1).to(values_BNHW.device)

    gain = 1 + augmentation.gain * draw(batch, bands)
    offset = augmentation.offset * (draw(batch, bands) + draw(batch, 1)) / 2
    return values_BNHW * gain + offset


def read_ahead(sampler: Sampler, *, steps: range, batch_size: int) -> Iterator[list[Crop]]:
    """Batches of training crops, read one ahead in a thread of their own."""
    ready: queue.Queue[list[Crop] | BaseException] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def offer(item: list[Crop] | BaseException) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def read() -> None:
        try:
            with sampler:
                for step in steps:
                    if stop.is_set():
                        return
                    offer(sampler.batch(step * batch_size, batch_size))
        except BaseException as error:  # noqa: BLE001 (raised again where the batches are awaited)
            offer(error)

    thread = threading.Thread(target=read, name="geodinoseg-samples", daemon=True)
    thread.start()
    try:
        for _ in steps:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _labelled_places(
    scenes: Sequence[SplitScene],
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """For each class with training labels: (scene, block row, block column) and its chance."""
    classes = scenes[0].counts.shape[-1]
    places = []
    for channel in range(classes):
        where, weights = [], []
        for index, split in enumerate(scenes):
            counts = np.where(split.is_validation, 0, split.counts[..., channel])
            blocks = np.argwhere(counts > 0)
            where += [(index, row, col) for row, col in blocks]
            weights += [counts[row, col] for row, col in blocks]
        if where:
            chances = np.array(weights, dtype=np.float64)
            places.append((np.array(where, dtype=np.int64), chances / chances.sum()))
    return places


def _window_round(
    split: SplitScene, row: int, col: int, side: int, rng: np.random.Generator
) -> Window:
    """A square window whose centre falls into a block, moved to lie inside the scene."""
    height, width = min(side, split.scene.height), min(side, split.scene.width)
    centre_row = (row + rng.random()) * split.block_px
    centre_col = (col + rng.random()) * split.block_px
    return Window(
        col_off=int(np.clip(centre_col - width / 2, 0, split.scene.width - width)),
        row_off=int(np.clip(centre_row - height / 2, 0, split.scene.height - height)),
        width=width,
        height=height,
    )


def _resized(crop: Crop, side: int) -> Crop:
    """The crop at side x side px: pixels averaged or interpolated, labels by nearest neighbour."""
    if crop.labels.shape == (side, side):
        return crop
    pixels = torch.from_numpy(crop.pixels.astype(np.float32))[None]
    # An invalid pixel bleeds by one into its neighbours, so these count as invalid too.
    pixels = functional.interpolate(
        torch.nan_to_num(pixels), size=(side, side), mode="bilinear", antialias=True
    )
    valid = torch.from_numpy(crop.valid.astype(np.float32))[None, None]
    valid = functional.interpolate(valid, size=(side, side), mode="bilinear", antialias=True)
    labels = torch.from_numpy(crop.labels.astype(np.float32))[None, None]
    labels = functional.interpolate(labels, size=(side, side), mode="nearest-exact")
    is_valid = valid[0, 0].numpy() > 0.999
    return Crop(
        pixels=pixels[0].numpy(),
        valid=is_valid,
        labels=np.where(is_valid, labels[0, 0].numpy().astype(np.int64), IGNORE),
    )


def _turned(crop: Crop, rng: np.random.Generator) -> Crop:
    """One of the eight ways to lay a square on itself."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))

    def turn(array: NDArray[Any]) -> NDArray[Any]:
        array = np.rot90(array, turns, axes=(-2, -1))
        return np.ascontiguousarray(array[..., ::-1] if flip else array)

    return Crop(pixels=turn(crop.pixels), valid=turn(crop.valid), labels=turn(crop.labels))
