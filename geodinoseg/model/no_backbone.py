"""In place of a backbone: no features, for a fused head that sees the bands alone."""

from __future__ import annotations

from typing import ClassVar

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BackboneOutput


class NoBackboneConfig(PretrainedConfig):  # type: ignore[misc]
    """What the rest of the model asks of the configuration of a backbone."""

    model_type = "none"
    hidden_size: int = 0
    patch_size: int = 1
    """Side of a patch, pixels: tiles and crops of any side will do."""


class NoBackbone(PreTrainedModel):  # type: ignore[misc]
    """A backbone without weights, whose feature map has no channels."""

    config_class: ClassVar[type[PretrainedConfig]] = NoBackboneConfig

    def __init__(self, config: NoBackboneConfig) -> None:
        super().__init__(config)

    def forward(self, pixels_BNHW: torch.Tensor) -> BackboneOutput:
        """One feature map, (batch, 0, height, width)."""
        return BackboneOutput(feature_maps=(pixels_BNHW[:, :0],))
