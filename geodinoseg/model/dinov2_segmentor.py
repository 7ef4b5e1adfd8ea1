"""DinoV2Segmentor, the network of the method: a DINOv2 backbone and a segmentation head.

Brondolo and Beaussant, "DINOv2 rocks geological image analysis" (2024), arXiv:2407.18100.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from geodinoseg.errors import ModelError
from geodinoseg.model.backbone import (
    HUB_NAMES,
    is_quantized,
    load_backbone,
    patch_embedding,
    with_lora,
)
from geodinoseg.model.heads import Activation, CnnHead, LinearHead

Size = Literal["small", "base", "large"]


class DinoV2Segmentor(nn.Module):
    """A semantic segmentation network on DINOv2 features; the method's names and defaults.

    Takes normalized pixels of any height and width and gives logits of the same height and width.

    Args:
        n_block: number of convolutional blocks of the CNN head.
        channels: channels of the CNN head's first layer.
        k_size: kernel size of the CNN head's convolutions, odd.
        linear_head: a linear head; the CNN head where False.
        n_features: number of last transformer layers whose features the head sees.
        quantize: hold the backbone's linear layers in 4 bit.
        peft: train LoRA in a frozen backbone; where False the whole backbone can be trained.
        size: `small`, `base` or `large`, the published DINOv2 backbone of that size.
        num_classes: number of classes.
        activation: activation of the CNN head: `relu`, `leakyrelu`, `sigmoid` or `tanh`.
        r: rank of LoRA.
        lora_alpha: LoRA's updates are scaled by lora_alpha / sqrt(r).
        lora_dropout: dropout in front of LoRA while training.
        backbone: in place of size, a name on the hub or a folder.
        bands: bands of the input.
        revision: branch, tag or commit of the backbone on the hub.

    Raises:
        ModelError: a value that cannot be, or a backbone that cannot be loaded.
    """

    def __init__(
        self,
        n_block: int = 4,
        channels: int = 512,
        k_size: int = 3,
        linear_head: bool = True,
        n_features: int = 1,
        quantize: bool = True,
        peft: bool = True,
        size: Size = "base",
        num_classes: int = 3,
        activation: Activation = "relu",
        r: int = 32,
        lora_alpha: int = 32,
        lora_dropout: float = 0.1,
        *,
        backbone: str | Path | None = None,
        bands: int = 3,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        _check_counts(
            n_block=n_block,
            channels=channels,
            k_size=k_size,
            n_features=n_features,
            num_classes=num_classes,
            r=r,
            lora_alpha=lora_alpha,
            bands=bands,
        )
        _check_choices(k_size=k_size, size=size, activation=activation, lora_dropout=lora_dropout)
        source = HUB_NAMES[size] if backbone is None else backbone
        loaded = load_backbone(
            source, n_features=n_features, bands=bands, quantize=quantize, revision=revision
        )
        config = loaded.config
        self.settings: dict[str, Any] = {
            "n_block": n_block,
            "channels": channels,
            "k_size": k_size,
            "linear_head": linear_head,
            "n_features": n_features,
            "quantize": quantize,
            "peft": peft,
            "size": size,
            "num_classes": num_classes,
            "activation": activation,
            "r": r,
            "lora_alpha": lora_alpha,
            "lora_dropout": lora_dropout,
        }
        self.source = str(source)
        self.revision = revision or getattr(config, "_commit_hash", None)
        self.bands = bands
        self.patch_px = int(patch_embedding(loaded).kernel_size[0])
        self.backbone: Any = loaded
        # Set by whoever trains or merges: then the weights must be saved, not referred to.
        self.backbone_differs_from_source = False
        if peft:
            self.backbone = with_lora(loaded, r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout)
        elif is_quantized(loaded):
            loaded.requires_grad_(False)  # 4-bit weights cannot be trained
        in_channels = int(config.hidden_size) * n_features
        self.head: LinearHead | CnnHead
        if linear_head:
            self.head = LinearHead(in_channels, num_classes)
        else:
            self.head = CnnHead(
                in_channels,
                num_classes,
                patch_px=self.patch_px,
                n_block=n_block,
                channels=channels,
                k_size=k_size,
                activation=activation,
            )

    @property
    def base_backbone(self) -> PreTrainedModel:
        """The backbone itself, without the LoRA around it."""
        base = self.backbone.get_base_model() if self.settings["peft"] else self.backbone
        assert isinstance(base, PreTrainedModel)
        return base

    def merge_lora(self) -> None:
        """Add LoRA's updates to the weights: same results, no extra work per tile.

        Nothing happens where there is no LoRA, or where the weights are held in 4 bit.
        """
        if not self.settings["peft"] or is_quantized(self.backbone):
            return
        self.backbone = self.backbone.merge_and_unload()
        self.settings["peft"] = False
        self.backbone_differs_from_source = True

    def features(self, pixels_BNHW: torch.Tensor) -> torch.Tensor:
        """Features of the last layers, concatenated.

        Args:
            pixels_BNHW: (batch, bands, height, width) float, normalized; height and width are
                multiples of the patch.

        Returns:
            (batch, n_features * hidden size, height / patch, width / patch).
        """
        maps = self.backbone(pixels_BNHW).feature_maps
        return torch.cat([features_BDhw.to(pixels_BNHW.dtype) for features_BDhw in maps], dim=1)

    def forward(self, pixels_BNHW: torch.Tensor) -> torch.Tensor:
        """Logits per pixel.

        Args:
            pixels_BNHW: (batch, bands, height, width) float, normalized; any height and width.
                Where these are no multiples of the patch, the last row and column are repeated
                up to the next one and the logits cropped.

        Returns:
            (batch, classes, height, width) logits.

        Raises:
            ModelError: another number of bands or dimensions.
        """
        if pixels_BNHW.ndim != 4 or pixels_BNHW.shape[1] != self.bands:
            raise ModelError(
                f"pixels of shape {tuple(pixels_BNHW.shape)}: the network takes (batch, "
                f"{self.bands} bands, height, width)."
            )
        height, width = pixels_BNHW.shape[-2:]
        bottom, right = -height % self.patch_px, -width % self.patch_px
        if bottom or right:
            pixels_BNHW = functional.pad(pixels_BNHW, (0, right, 0, bottom), mode="replicate")
        padded_px = (height + bottom, width + right)
        logits_BCHW: torch.Tensor = self.head(self.features(pixels_BNHW), padded_px)
        return logits_BCHW[..., :height, :width]


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(f"{name}={value!r}: give a whole number of at least 1.")


def _check_choices(*, k_size: int, size: str, activation: str, lora_dropout: float) -> None:
    if k_size % 2 == 0:
        raise ModelError(f"k_size={k_size}: give an odd number, so that the shape is kept.")
    for name, value, choices in (
        ("size", size, get_args(Size)),
        ("activation", activation, get_args(Activation)),
    ):
        if value not in choices:
            raise ModelError(f"{name}={value!r}: give one of {', '.join(choices)}.")
    if not 0 <= lora_dropout < 1:
        raise ModelError(f"lora_dropout={lora_dropout!r}: give a share from 0 to below 1.")
