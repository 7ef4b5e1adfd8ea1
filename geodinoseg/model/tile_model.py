"""What segmentation needs of a model: class probabilities of a batch of tiles. Nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from geodinoseg.legend import Legend

if TYPE_CHECKING:
    import torch


class TileModel(Protocol):
    """A model that can segment scenes; `Segmentor` is ours, others need only this.

    A model may also have `tile_px: int`, its preferred side of tiles, and `fingerprint: str`, which
    changes when its predictions do. Without a fingerprint an interrupted run cannot be resumed,
    since nothing tells whether the model is the same.
    """

    @property
    def legend(self) -> Legend:
        """Its classes, in the order of its channels."""

    @property
    def bands(self) -> tuple[int, ...]:
        """Bands of the scene that it reads, numbered from 1, in its order."""

    @property
    def tile_multiple(self) -> int:
        """Sides of tiles must be multiples of this many pixels."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    def probabilities(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Class probabilities of every pixel of a batch of tiles.

        Args:
            pixels: raw values as the scene stores them, (n, bands, T, T), on the device.
            valid: (n, T, T) bool, True where the scene holds data.

        Returns:
            (n, classes, T, T) float32, 0 to 1, summing to 1 over the classes; where valid is
            False they are ignored.
        """
