"""Which blocks of a labelled scene train a model and which validate it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from geodinoseg.grid import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geodinoseg.legend import Legend
    from geodinoseg.scene import Scene

_FEWEST_LABELLED_BLOCKS = 10
"""Below that, blocks are halved: a split of few blocks is far from the share that was asked for."""

_ROUNDS = 3
"""Times that each block is looked at; the second and third only polish."""


class SceneLabels(Protocol):
    """What training asks of labels; see `labels.open_labels`."""

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
    """The pixels."""
    labels: SceneLabels
    """What is known of them."""
    block_px: int
    """Side of a block; the last ones end at the scene's edge."""
    counts: NDArray[np.int64]
    """(block rows, block columns, classes) labelled pixels."""
    is_validation: NDArray[np.bool_]
    """(block rows, block columns), True where a block is kept for validation."""

    def block(self, row: int, col: int) -> Window:
        """The pixels of a block."""
        return Window(
            col_off=col * self.block_px,
            row_off=row * self.block_px,
            width=min(self.block_px, self.scene.width - col * self.block_px),
            height=min(self.block_px, self.scene.height - row * self.block_px),
        )

    def in_validation(self, window: Window) -> NDArray[np.bool_]:
        """(height, width), True for the pixels of a window that lie in a validation block."""
        rows = np.arange(window.row_off, window.row_end) // self.block_px
        cols = np.arange(window.col_off, window.col_end) // self.block_px
        return self.is_validation[np.ix_(rows, cols)]

    def touches_validation(self, window: Window) -> bool:
        """Whether any pixel of a window lies in a validation block."""
        rows = slice(window.row_off // self.block_px, (window.row_end - 1) // self.block_px + 1)
        cols = slice(window.col_off // self.block_px, (window.col_end - 1) // self.block_px + 1)
        return bool(self.is_validation[rows, cols].any())

    def pixels_of(self, *, validation: bool) -> NDArray[np.int64]:
        """(classes,) labelled pixels of one side of the split."""
        pixels: NDArray[np.int64] = self.counts[self.is_validation == validation].sum(axis=0)
        return pixels


def split_scene(
    scene: Scene, labels: SceneLabels, *, crop_px: int, share: float, seed: int
) -> SplitScene:
    """Cut a scene into blocks of two crops a side, or smaller where few of those have labels.

    Args:
        scene: the scene.
        labels: on its grid.
        crop_px: side of a training crop.
        share: share of each class's labelled pixels to keep for validation, 0 to 0.5.
        seed: of the choice of blocks.
    """
    block_px = 2 * crop_px
    counts = labels.class_blocks(block_px)
    while counts.any(axis=2).sum() < _FEWEST_LABELLED_BLOCKS and block_px > max(crop_px // 4, 1):
        block_px //= 2
        counts = labels.class_blocks(block_px)
    chosen = validation_blocks(counts, share=share, seed=seed)
    return SplitScene(
        scene=scene, labels=labels, block_px=block_px, counts=counts, is_validation=chosen
    )


def validation_blocks(counts: NDArray[np.int64], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Choose blocks for validation so that every class has about its share of pixels there.

    Blocks are taken in a random order where that brings the classes closer to their shares, and
    given back in later rounds where that does; never is more than half of a class taken.

    Args:
        counts: (block rows, block columns, classes) labelled pixels.
        share: share of each class's pixels to keep for validation, 0 to 0.5.
        seed: of the random order.

    Returns:
        (block rows, block columns) bool, True for validation; all False where there are too few
        labelled blocks to split.
    """
    flat = counts.reshape(-1, counts.shape[-1])
    totals = flat.sum(axis=0)
    wanted = share * totals

    def distance(pixels: NDArray[np.int64]) -> float:
        """From what is wanted: squares, so that no class is far off for the others' sake."""
        return float((((pixels - wanted) / np.maximum(totals, 1)) ** 2).sum())

    taken = np.zeros_like(totals)
    chosen = np.zeros(len(flat), dtype=np.bool_)
    order = np.random.default_rng(seed).permutation(len(flat))
    for block in np.tile(order, _ROUNDS):
        after = taken - flat[block] if chosen[block] else taken + flat[block]
        if (after <= totals / 2).all() and distance(after) < distance(taken):
            taken = after
            chosen[block] = not chosen[block]
    return chosen.reshape(counts.shape[:2])
