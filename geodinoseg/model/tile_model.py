"""What the engine asks of a model: class probabilities of a batch of tiles. Nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from geodinoseg.legend import Legend

if TYPE_CHECKING:
    import torch


class TileModel(Protocol):
    """Any network that the engine can run; `Segmentor` is ours, others need only this.

    A model may also have `tile_px: int`, the side of the tiles that it likes best, and
    `fingerprint: str`, which changes when its answers do: without one, an interrupted run cannot be
    resumed, since nothing tells whether the model is the same.
    """

    @property
    def legend(self) -> Legend:
        """Its classes, in the order of its channels."""

    @property
    def bands(self) -> tuple[int, ...]:
        """Bands of the scene that it reads, numbered from 1, in its order."""

    @property
    def tile_multiple(self) -> int:
        """Sides of tiles that it takes are multiples of this many pixels."""

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""

    def probabilities(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Class probabilities of every pixel of a batch of tiles.

        Args:
            pixels: raw values as the scene stores them, (n, bands, T, T), on the device.
            valid: (n, T, T) bool, True where the scene holds data.

        Returns:
            (n, classes, T, T) float32, 0 to 1, summing to 1 over the classes; also where valid
            is False, where the values are not used.
        """
