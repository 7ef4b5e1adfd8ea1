"""Dropout whose masks depend on a seed and the sample, not on how a batch is split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class DropoutSeed:
    """The numbers that determine the masks of a forward pass."""

    seed: int
    """Seed of the training."""
    step: int
    """Step of the training; each step has different masks."""
    first: int = 0
    """Index in the batch of the first sample."""


class SampleDropout(nn.Module):
    """Dropout that gives a sample the same mask in a batch and in any part of it.

    A batch that is split to save memory then gives the same update. Without a seed it is the same
    as torch's dropout, with torch's random numbers.
    """

    def __init__(self, p: float, layer: int) -> None:
        """Take the probability that a value is dropped, and the number of the layer."""
        super().__init__()
        self.p = p
        self.layer = layer
        self.seed: DropoutSeed | None = None

    def forward(self, values_BTD: torch.Tensor) -> torch.Tensor:
        """Values of the same shape, some 0 and the others scaled by 1 / (1 - p); in training."""
        if not self.training or self.p == 0:
            return values_BTD
        if self.seed is None:
            return functional.dropout(values_BTD, self.p)
        kept_BTD = self._masks(self.seed, values_BTD)
        # Not a product, which would store the masks as floats for the backward pass.
        return torch.where(kept_BTD, values_BTD / (1 - self.p), 0.0)

    def _masks(self, seed: DropoutSeed, values_BTD: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, channels) bool, True where a value is kept."""
        sequence = np.random.SeedSequence((seed.seed, seed.step, self.layer))
        first = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)) + seed.first
        generator = torch.Generator(values_BTD.device)
        masks = []
        for sample in range(len(values_BTD)):
            generator.manual_seed(first + sample)
            random_TD = torch.rand(
                values_BTD.shape[1:], generator=generator, device=values_BTD.device
            )
            masks.append(random_TD >= self.p)
        return torch.stack(masks)


def use_sample_dropout(lora: nn.Module) -> None:
    """Replace the dropout in front of each LoRA layer of a network by SampleDropout."""
    layers = [module for module in lora.modules() if hasattr(module, "lora_dropout")]
    for number, layer in enumerate(layers):
        dropouts: Any = layer.lora_dropout
        for name, dropout in dropouts.items():
            if isinstance(dropout, nn.Dropout):
                dropouts[name] = SampleDropout(dropout.p, number)


def seed_dropout(network: nn.Module, seed: DropoutSeed | None) -> None:
    """Set the seed of the masks of the next forward passes; None for torch's random numbers."""
    for module in network.modules():
        if isinstance(module, SampleDropout):
            module.seed = seed
