"""Segmentation heads: from a grid of features to logits per pixel."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from geodinoseg.model.parameters import Activation, check_channels

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
"""Activation functions of the CNN head by name."""

DROPOUT = 0.1
"""Fraction of channels that the CNN head drops before its last convolution in training."""


class Detail(NamedTuple):
    """Pixels of the input, for heads that see them beside the features."""

    pixels: torch.Tensor
    """(batch, bands, rows, columns), normalized; 0 where not valid."""
    valid: torch.Tensor
    """(batch, rows, columns) bool, True where the scene holds data."""


class Head(nn.Module):
    """A segmentation head."""

    sees_pixels: ClassVar[bool] = False
    """Whether it needs `Detail`."""

    def members(
        self, features_BDhw: torch.Tensor, size_px: tuple[int, int], detail: Detail | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Logits of each of its members, which are trained side by side; most heads are one."""
        return (self(features_BDhw, size_px, detail),)


class LinearHead(Head):
    """Batch norm, 1 x 1 convolution, bilinear upsampling: edges no finer than the patch grid."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.classify = nn.Conv2d(in_channels, num_classes, kernel_size=1)

    def forward(
        self, features_BDhw: torch.Tensor, size_px: tuple[int, int], _: Detail | None = None
    ) -> torch.Tensor:
        """(batch, classes, rows, columns) logits of (batch, channels, patch rows, patch columns).

        size_px are rows and columns of pixels of the input.
        """
        logits_BChw = pointwise(self.classify, self.norm(features_BDhw))
        return upsampled(logits_BChw, size_px)


class CnnHead(Head):
    """Residual blocks that bring features to pixel resolution step by step.

    An input convolution to `channels`; `n_block` blocks, of which the first half follow a bicubic
    upsampling and the second half a pixel shuffle (a quarter of the channels each); activation,
    dropout, a last convolution. The first upsampling is by patch / 8, the others by 2: with four
    blocks and patches of 14 px the factors are 1.75, 2, 2, 2 = 14. Where the result is not the
    input's size, since 1.75 times the patches is not whole or n_block differs, the logits are
    resized last.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        patch_px: int,
        n_block: int,
        channels: int,
        k_size: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        check_channels(channels, n_block)
        self.enter = nn.Conv2d(in_channels, channels, k_size, padding="same")
        self.blocks = nn.ModuleList()
        for index in range(n_block):
            factor = patch_px / 8 if index == 0 else 2.0
            shuffled = index >= n_block - n_block // 2
            upsample = nn.PixelShuffle(2) if shuffled else BicubicUpsample(factor)
            channels //= 4 if shuffled else 1
            block = ResidualBlock(channels, k_size=k_size, activation=activation)
            self.blocks.append(nn.Sequential(upsample, block))
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classify = nn.Conv2d(channels, num_classes, k_size, padding="same")

    def forward(
        self, features_BDhw: torch.Tensor, size_px: tuple[int, int], _: Detail | None = None
    ) -> torch.Tensor:
        """Logits at pixel resolution, as in `LinearHead.forward`."""
        maps = self.enter(features_BDhw)
        for block in self.blocks:
            maps = block(maps)
        logits: torch.Tensor = self.classify(self.dropout(self.activation(maps)))
        if logits.shape[-2:] == size_px:
            return logits
        return upsampled(logits, size_px)


class ResidualBlock(nn.Module):
    """x + conv(act(norm(conv(x)))), each convolution followed by a batch norm."""

    def __init__(self, channels: int, *, k_size: int, activation: Activation) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, k_size, padding="same", bias=False),
            nn.BatchNorm2d(channels),
            ACTIVATIONS[activation](),
            nn.Conv2d(channels, channels, k_size, padding="same", bias=False),
            nn.BatchNorm2d(channels),
        )
        self.activation = ACTIVATIONS[activation]()

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Same shape out as in."""
        result: torch.Tensor = self.activation(maps_BCHW + self.body(maps_BCHW))
        return result


class BicubicUpsample(nn.Module):
    """Bicubic upsampling by a factor, to whole pixels rounded down."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, maps_BChw: torch.Tensor) -> torch.Tensor:
        """(batch, channels, floor(h * factor), floor(w * factor)), at least 1 x 1."""
        height, width = (max(1, int(side * self.factor)) for side in maps_BChw.shape[-2:])
        return functional.interpolate(
            maps_BChw, size=(height, width), mode="bicubic", align_corners=False
        )


# On CPUs the rounding of some operations of PyTorch depends on the number of threads, and so would
# the bytes of a map. The heads use equivalent operations that do not; the backbone needs none.


def pointwise(conv: nn.Conv2d, maps_BDhw: torch.Tensor) -> torch.Tensor:
    """A 1 x 1 convolution, (batch, classes, h, w), as a product of matrices."""
    product = functional.linear(maps_BDhw.movedim(1, -1), conv.weight.flatten(1), conv.bias)
    return product.movedim(-1, 1).contiguous()


def upsampled(maps_BChw: torch.Tensor, size_px: tuple[int, int]) -> torch.Tensor:
    """Bilinear. Upwards `antialias` changes the kernel alone, which takes no half precision."""
    on_cpu = maps_BChw.device.type == "cpu"
    if on_cpu:
        maps_BChw = at_least_float32(maps_BChw)
    return functional.interpolate(
        maps_BChw, size=size_px, mode="bilinear", align_corners=False, antialias=on_cpu
    )


def at_least_float32(maps: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, all else as it is."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def softmax(logits_BCHW: torch.Tensor) -> torch.Tensor:
    """Softmax over the classes, in float32 at least; on a CPU over the last axis."""
    logits_BCHW = at_least_float32(logits_BCHW)
    if logits_BCHW.device.type != "cpu":
        return torch.softmax(logits_BCHW, dim=1)
    return torch.softmax(logits_BCHW.movedim(1, -1), dim=-1).movedim(-1, 1).contiguous()
