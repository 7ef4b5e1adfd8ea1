"""The fused head: the bands at every pixel beside the features of every patch.

A patch of 14 px cannot show the spectrum of a pixel. Two members see both: the first adds logits of
features and of the pixels around, the second also those of a wider neighbourhood at a quarter and
an eighth of the resolution. The mean of their probabilities is better than either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from geodinoseg.model.heads import Detail, Head, LinearHead, at_least_float32, pointwise, upsampled

WIDTH = 24
"""Channels of all convolutions."""
REACH_PX = 35
"""Pixels further away than this change no logit, apart from those that the backbone sees."""

_CELL_PX = 4
"""Side of the cells of the wider neighbourhood's first level."""
_COARSEST_PX = 2 * _CELL_PX
_LEAST_VARIANCE = 1e-4
_DROPOUT = 0.1
_LEAST_PROBABILITY = 1e-12
"""So that logarithms are finite."""

Mask: TypeAlias = torch.Tensor | None
"""(batch, 1, rows, columns), 1 where valid and 0 elsewhere; None if all is valid."""


class FusedHead(Head):
    """The mean of the probabilities of two members.

    Works for any number of bands and any size of the input, and without features (0 channels), of
    the pixels alone. Invalid pixels are masked in every layer, as pixels beyond the edge of a tile
    are.
    """

    sees_pixels = True

    def __init__(self, in_channels: int, num_classes: int, *, bands: int) -> None:
        super().__init__()
        self.fine = _Member(in_channels, num_classes, bands=bands, dropout=0.0)
        self.wide = _Member(in_channels, num_classes, bands=bands, dropout=_DROPOUT)
        self.context = _Context(bands, num_classes)
        # On CPUs the convolutions take half the time so.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, features_BDhw: torch.Tensor, size_px: tuple[int, int], detail: Detail | None = None
    ) -> torch.Tensor:
        """Logarithms of the mean of the members' probabilities, as in `LinearHead.forward`.

        The softmax of the result is that mean.
        """
        with _same_rounding(features_BDhw.device):
            members = self.members(features_BDhw, size_px, detail)
            # In one thread PyTorch's softmax always rounds alike; `heads.softmax` takes longer.
            fine, wide = (torch.softmax(at_least_float32(logits), dim=1) for logits in members)
            return torch.log(((fine + wide) / 2).clamp(min=_LEAST_PROBABILITY))

    def members(
        self, features_BDhw: torch.Tensor, size_px: tuple[int, int], detail: Detail | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Logits of both members."""
        assert detail is not None
        mask = _mask_of(detail)
        pixels = _masked(detail.pixels, mask).contiguous(memory_format=torch.channels_last)
        return (
            self.fine(features_BDhw, size_px, pixels, mask),
            self.wide(features_BDhw, size_px, pixels, mask) + self.context(pixels, mask),
        )


class _Member(nn.Module):
    """The sum of logits of the features, if there are any, and of the pixels around."""

    def __init__(self, in_channels: int, num_classes: int, *, bands: int, dropout: float) -> None:
        super().__init__()
        self.tokens = LinearHead(in_channels, num_classes) if in_channels else None
        self.pixels = _Branch(bands, layers=3)
        self.classify = _Classifier(num_classes, dropout=dropout)

    def forward(
        self,
        features_BDhw: torch.Tensor,
        size_px: tuple[int, int],
        pixels_BNHW: torch.Tensor,
        mask_B1HW: Mask,
    ) -> torch.Tensor:
        logits: torch.Tensor = self.classify(self.pixels(pixels_BNHW, mask_B1HW))
        return logits if self.tokens is None else logits + self.tokens(features_BDhw, size_px)


class _Context(nn.Module):
    """Logits of means and deviations of cells of 4 px, and of their neighbourhood at 8 px."""

    def __init__(self, bands: int, num_classes: int) -> None:
        super().__init__()
        self.cells = _Branch(2 * bands, layers=2)
        self.pairs = _Branch(WIDTH, layers=2)
        self.classify_cells = _Classifier(num_classes, dropout=_DROPOUT)
        self.classify_pairs = _Classifier(num_classes, dropout=_DROPOUT)

    def forward(self, pixels_BNHW: torch.Tensor, mask_B1HW: Mask) -> torch.Tensor:
        height, width = pixels_BNHW.shape[-2:]
        bottom, right = -height % _COARSEST_PX, -width % _COARSEST_PX
        pixels, mask = pixels_BNHW, mask_B1HW
        if bottom or right:
            mask = torch.ones_like(pixels[:, :1]) if mask is None else mask
            pixels, mask = (functional.pad(maps, (0, right, 0, bottom)) for maps in (pixels, mask))
        size_px = (height + bottom, width + right)
        moments, mask = _moments(pixels, mask)
        cells = self.cells(moments, mask)
        of_pairs = None if mask is None else functional.max_pool2d(mask, 2)
        pairs = self.pairs(functional.avg_pool2d(cells, 2), of_pairs)
        logits = upsampled(self.classify_cells(cells), size_px)
        logits = logits + upsampled(self.classify_pairs(pairs), size_px)
        return logits[..., :height, :width]


class _Branch(nn.Module):
    """3 x 3 convolutions with batch norm and GELU."""

    def __init__(self, in_channels: int, *, layers: int) -> None:
        super().__init__()
        inputs = (in_channels, *(WIDTH for _ in range(layers - 1)))
        self.layers = nn.ModuleList(_MaskedConv(channels) for channels in inputs)

    def forward(self, maps_BCHW: torch.Tensor, mask_B1HW: Mask) -> torch.Tensor:
        for layer in self.layers:
            maps_BCHW = layer(maps_BCHW, mask_B1HW)
        return maps_BCHW


class _Classifier(nn.Module):
    """Dropout of channels, and a 1 x 1 convolution to the classes."""

    def __init__(self, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(WIDTH, num_classes, kernel_size=1)

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        return pointwise(self.classify, self.dropout(maps_BCHW))


class _MaskedConv(nn.Module):
    """Convolution, batch norm, GELU; 0 where masked."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, WIDTH, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward(self, maps_BCHW: torch.Tensor, mask_B1HW: Mask) -> torch.Tensor:
        if self.training:
            maps_BCHW = self.norm(self.conv(maps_BCHW))
        else:
            maps_BCHW = functional.conv2d(maps_BCHW, *self._folded(), padding=1)
        return _masked(functional.gelu(maps_BCHW), mask_B1HW)

    def _folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of a convolution that does the work of the batch norm too."""
        norm = self.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return self.conv.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def _mask_of(detail: Detail) -> Mask:
    """None on a CPU if all pixels are valid: to mask takes a tenth of the time of the head there.

    A GPU would have to wait for the answer.
    """
    if detail.valid.device.type == "cpu" and bool(detail.valid.all()):
        return None
    return detail.valid[:, None].to(detail.pixels.dtype)


def _masked(maps_BCHW: torch.Tensor, mask_B1HW: Mask) -> torch.Tensor:
    return maps_BCHW if mask_B1HW is None else maps_BCHW * mask_B1HW


def _moments(pixels_BNHW: torch.Tensor, mask_B1HW: Mask) -> tuple[torch.Tensor, Mask]:
    """Mean and deviation of the valid pixels of each cell (batch, 2 bands, ...), and its mask."""
    mean = functional.avg_pool2d(pixels_BNHW, _CELL_PX)
    square = functional.avg_pool2d(pixels_BNHW * pixels_BNHW, _CELL_PX)
    mask = None
    if mask_B1HW is not None:
        share = functional.avg_pool2d(mask_B1HW, _CELL_PX)
        mask = (share > 0).to(share.dtype)
        share = share + (1 - mask)
        mean, square = mean / share, square / share
    variance = (square - mean * mean).clamp(min=0)
    deviation = torch.sqrt(variance + _LEAST_VARIANCE)
    return _masked(torch.cat([mean, deviation], dim=1), mask), mask


@contextmanager
def _same_rounding(device: torch.device) -> Iterator[None]:
    """One thread on a CPU: the rounding of convolutions and logarithms depends on their number."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
