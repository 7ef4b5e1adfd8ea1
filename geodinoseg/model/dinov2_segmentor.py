"""DinoV2Segmentor, the network of the method: a DINOv2 backbone and a segmentation head.

Brondolo and Beaussant, "DINOv2 rocks geological image analysis" (2024), arXiv:2407.18100.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from geodinoseg.errors import ModelError
from geodinoseg.model.backbone import (
    load_backbone,
    patch_embedding,
    rgb_selection,
    widen_patch_embedding,
    with_lora,
)
from geodinoseg.model.fused_head import FusedHead
from geodinoseg.model.heads import CnnHead, Detail, Head, LinearHead
from geodinoseg.model.hub import published_commit
from geodinoseg.model.parameters import (
    DEFAULT_BLOCKS,
    DEFAULT_CHANNELS,
    DEFAULT_SIZE,
    HUB_NAMES,
    Activation,
    Size,
    check_backbone_source,
    check_parameters,
    has_backbone,
)
from geodinoseg.model.pickling import portable_state, prepare_process
from geodinoseg.model.quantization import is_quantized, quantized_layers


class DinoV2Segmentor(nn.Module):
    """A semantic segmentation network on DINOv2 features; the method's names and defaults.

    Takes normalized pixels of any height and width and gives logits of the same height and width.

    Args:
        n_block: number of convolutional blocks of the CNN head.
        channels: channels of the CNN head's first layer.
        k_size: kernel size of the CNN head's convolutions, odd.
        linear_head: use the linear head; the CNN head if False.
        n_features: number of last transformer layers whose features the head sees.
        quantize: hold the backbone's linear layers in 4 bit. On a CPU this costs time and accuracy;
            `train_model` does it on a GPU only unless told otherwise.
        peft: train LoRA in a frozen backbone; if False the whole backbone can be trained.
        size: `small`, `base` or `large`, the published DINOv2 backbone of that size.
        num_classes: number of classes.
        activation: activation of the CNN head: `relu`, `leakyrelu`, `sigmoid` or `tanh`.
        r: rank of LoRA.
        lora_alpha: LoRA's updates are scaled by lora_alpha / sqrt(r).
        lora_dropout: dropout in front of LoRA while training.
        backbone: in place of size, a name on the hub or a folder; or `none`, for the fused head
            alone, without features. There is nothing to quantize or to adapt then.
        bands: bands of the input.
        revision: branch, tag or commit of the backbone on the hub.
        fused_head: use the fused head, which sees the bands at every pixel as well, in place of
            the linear or CNN head.
        components: (components, bands) float: what the backbone sees of the bands if it has
            another number of them; its filters are widened without.
        rgb: positions of red, green and blue among the bands, from 0: in place of components, the
            backbone sees these bands, the head all.

    Raises:
        ModelError: a value is invalid, or the backbone cannot be loaded.
    """

    def __init__(  # noqa: PLR0917 (the method's own parameters, in its order)
        self,
        n_block: int = DEFAULT_BLOCKS,
        channels: int = DEFAULT_CHANNELS,
        k_size: int = 3,
        linear_head: bool = True,  # noqa: FBT002 (the method's)
        n_features: int = 1,
        quantize: bool = True,  # noqa: FBT002
        peft: bool = True,  # noqa: FBT002
        size: Size = DEFAULT_SIZE,
        num_classes: int = 3,
        activation: Activation = "relu",
        r: int = 32,
        lora_alpha: int = 32,
        lora_dropout: float = 0.1,
        *,
        backbone: str | Path | None = None,
        bands: int = 3,
        revision: str | None = None,
        fused_head: bool = False,
        components: NDArray[np.float32] | None = None,
        rgb: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.has_backbone = has_backbone(backbone)
        if not self.has_backbone:
            quantize = peft = False
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
        if fused_head:
            self.settings |= {"fused_head": True}
        check_parameters(self.settings | {"bands": bands, "backbone": backbone})
        self.bands = bands
        source = HUB_NAMES[size] if backbone is None else backbone
        check_backbone_source(source)
        self.source_is_folder = self.has_backbone and Path(source).is_dir()
        self.source = str(Path(source).resolve() if self.source_is_folder else source)
        loaded = load_backbone(source, n_features=n_features, quantize=quantize, revision=revision)
        # The commit, so that a saved model finds these weights again when the branch has moved on.
        self.revision = published_commit(source, revision) if self.has_backbone else None
        self.patch_px = int(loaded.config.patch_size)
        # Set after training or merging: then the weights must be saved, not referred to.
        self.backbone_differs_from_source = False
        self.backbone: Any = self._prepared(loaded, components, rgb)
        self._in_channels = int(loaded.config.hidden_size) * n_features
        self.head = self._new_head()

    @property
    def base_backbone(self) -> PreTrainedModel:
        """The backbone itself, without the LoRA around it."""
        base = self.backbone.get_base_model() if self.settings["peft"] else self.backbone
        assert isinstance(base, PreTrainedModel)
        return base

    def train(self, mode: bool = True) -> Self:  # noqa: FBT002 (torch's own signature)
        """Switch between training and evaluation, as any module."""
        super().train(mode)
        # On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks 4-bit weights for the first batch in
        # evaluation mode, and packed ones fail in training: the epoch after a validation would
        # raise. The mode means nothing else to these layers.
        if any(parameter.requires_grad for parameter in self.parameters()):
            for layer in quantized_layers(self.backbone):
                layer.train()
        return self

    def replace_head(self, *, fused: bool) -> None:
        """Take a new, untrained head: the fused one, or the linear or CNN head of the settings."""
        where = next(self.head.parameters()).device
        self.settings.pop("fused_head", None)
        self.settings |= {"fused_head": True} if fused else {}
        self.head = self._new_head().to(where)

    def __getstate__(self) -> dict[str, Any]:
        """The whole network with its weights, for a pickle or a copy."""
        return portable_state(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a network, also in a process that has built none."""
        nn.Module.__setstate__(self, state)  # type: ignore[no-untyped-call]
        prepare_process(self.base_backbone)

    def add_lora(self) -> None:
        """Add LoRA to a backbone that has none; its results stay the same.

        Everything else in the backbone is frozen except a widened patch embedding.
        """
        assert not self.settings["peft"]
        where = next(self.head.parameters()).device
        base = self.backbone
        self.backbone = self._in_lora(base).to(where)
        self.settings |= {"peft": True}
        if self._is_widened:
            patch_embedding(base).requires_grad_(requires_grad=True)

    def merge_lora(self) -> None:
        """Add LoRA's updates to the weights: same results, no extra work per tile.

        Does nothing without LoRA, or if the weights are quantized. The merged weights keep their
        dtype, and stay frozen as they were under LoRA.
        """
        if not self.settings["peft"] or is_quantized(self.backbone):
            return
        self.backbone = self.backbone.merge_and_unload()
        self.settings |= {"peft": False, "quantize": False}
        self.backbone_differs_from_source = True

    def enable_gradient_checkpointing(self) -> None:
        """Compute each layer's activations twice in training instead of keeping them.

        Less memory for more time; results and gradients are the same.
        """
        base: Any = self.base_backbone
        # transformers renamed it within version 5.
        enable = getattr(base, "activation_checkpointing_enable", None)
        enable = enable or base.gradient_checkpointing_enable
        # Not reentrant: that kind gives no gradients where the input needs none, as under LoRA.
        enable({"use_reentrant": False})

    def features(self, pixels_BNHW: torch.Tensor) -> torch.Tensor:
        """Features of the last layers, concatenated.

        Args:
            pixels_BNHW: (batch, bands, height, width) float, normalized; height and width are
                multiples of the patch size.

        Returns:
            (batch, n_features * hidden size, height / patch, width / patch).
        """
        maps = self.backbone(pixels_BNHW).feature_maps
        return torch.cat([features_BDhw.to(pixels_BNHW.dtype) for features_BDhw in maps], dim=1)

    def forward(
        self, pixels_BNHW: torch.Tensor, valid_BHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits per pixel.

        Args:
            pixels_BNHW: (batch, bands, height, width) float, normalized; any height and width.
                If these are not multiples of the patch size, the last row and column are
                repeated up to the next multiple and the logits cropped.
            valid_BHW: (batch, height, width) bool, True where the scene holds data; everywhere by
                default.

        Returns:
            (batch, classes, height, width) logits.

        Raises:
            ModelError: the number of bands or dimensions is wrong.
        """
        if pixels_BNHW.ndim != 4 or pixels_BNHW.shape[1] != self.bands:
            raise ModelError(
                f"pixels of shape {tuple(pixels_BNHW.shape)}: the network takes (batch, "
                f"{self.bands} bands, height, width)."
            )
        height, width = pixels_BNHW.shape[-2:]
        bottom, right = -height % self.patch_px, -width % self.patch_px
        detail = self.detail(pixels_BNHW, valid_BHW)
        if bottom or right:
            pixels_BNHW = functional.pad(pixels_BNHW, (0, right, 0, bottom), mode="replicate")
            detail = Detail(
                functional.pad(detail.pixels, (0, right, 0, bottom)),
                functional.pad(detail.valid, (0, right, 0, bottom)),
            )
        padded_px = (height + bottom, width + right)
        logits_BCHW: torch.Tensor = self.head(self.features(pixels_BNHW), padded_px, detail)
        return logits_BCHW[..., :height, :width]

    @staticmethod
    def detail(pixels_BNHW: torch.Tensor, valid_BHW: torch.Tensor | None = None) -> Detail:
        """What a head sees beside the features; arguments as those of `forward`."""
        if valid_BHW is None:
            valid_BHW = torch.ones_like(pixels_BNHW[:, 0], dtype=torch.bool)
        return Detail(pixels_BNHW, valid_BHW)

    def _new_head(self) -> Head:
        return make_head(
            self.settings,
            in_channels=self._in_channels,
            patch_px=self.patch_px,
            bands=self.bands,
        )

    def _prepared(
        self,
        loaded: PreTrainedModel,
        components: NDArray[np.float32] | None,
        rgb: tuple[int, int, int] | None,
    ) -> Any:
        """The backbone for these bands, with LoRA if asked for, and frozen accordingly."""
        self._is_widened = False
        if not self.has_backbone:
            return loaded
        if rgb is not None:
            components = rgb_selection(loaded, rgb, self.bands)
        in_order = rgb is None or rgb == tuple(range(self.bands))
        self._is_widened = self.bands != loaded.config.num_channels or not in_order
        if self._is_widened:
            widen_patch_embedding(loaded, self.bands, components)
        prepared: Any = loaded
        if self.settings["peft"]:
            prepared = self._in_lora(loaded)
        elif is_quantized(loaded):
            loaded.requires_grad_(requires_grad=False)  # 4-bit weights cannot be trained
        if self._is_widened:
            # Its filters for these bands are a guess, so they are trained even if the rest of the
            # backbone is frozen.
            patch_embedding(loaded).requires_grad_(requires_grad=True)
        return prepared

    def _in_lora(self, backbone: PreTrainedModel) -> Any:
        names = ("r", "lora_alpha", "lora_dropout")
        return with_lora(backbone, **{name: self.settings[name] for name in names})


NETWORK_DEFAULTS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(DinoV2Segmentor).parameters.items()
}
"""Of all arguments of `DinoV2Segmentor`."""


def make_head(settings: Mapping[str, Any], *, in_channels: int, patch_px: int, bands: int) -> Head:
    """The head that `DinoV2Segmentor.settings` describe.

    in_channels are those of the features, n_features * hidden size.
    """
    if settings.get("fused_head", False):
        return FusedHead(in_channels, settings["num_classes"], bands=bands)
    if settings["linear_head"]:
        return LinearHead(in_channels, settings["num_classes"])
    names = ("n_block", "channels", "k_size", "activation")
    return CnnHead(
        in_channels,
        settings["num_classes"],
        patch_px=patch_px,
        **{name: settings[name] for name in names},
    )
