"""What training makes small: cross-entropy plus Dice, over labelled pixels only."""

from __future__ import annotations

import torch
from torch.nn import functional

from geodinoseg.labels.classes import IGNORE

LABEL_SMOOTHING = 0.05
"""Share of the target that cross-entropy spreads over all classes: outlines are drawn by hand."""


def segmentation_loss(logits_BCHW: torch.Tensor, labels_BHW: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus Dice.

    Cross-entropy is the mean over labelled pixels, with label smoothing. Dice is
    1 - 2 |P and L| / (|P| + |L|) with probabilities for P, averaged over the classes that the
    batch's labels hold (Milletari et al. 2016, V-Net).

    Args:
        logits_BCHW: (batch, classes, height, width) float32.
        labels_BHW: (batch, height, width) int64, IGNORE where there is no label.

    Returns:
        A scalar that gradients flow through; 0 where nothing is labelled.
    """
    labelled_BHW = labels_BHW != IGNORE
    if not labelled_BHW.any():
        return logits_BCHW.sum() * 0.0
    entropy = functional.cross_entropy(
        logits_BCHW, labels_BHW, ignore_index=IGNORE, label_smoothing=LABEL_SMOOTHING
    )
    return entropy + _dice(logits_BCHW, labels_BHW, labelled_BHW)


def _dice(
    logits_BCHW: torch.Tensor, labels_BHW: torch.Tensor, labelled_BHW: torch.Tensor
) -> torch.Tensor:
    target_BCHW = torch.zeros_like(logits_BCHW).scatter_(
        1, labels_BHW.clamp(min=0)[:, None], labelled_BHW[:, None].to(logits_BCHW.dtype)
    )
    probabilities_BCHW = torch.softmax(logits_BCHW, dim=1) * labelled_BHW[:, None]
    axes = (0, 2, 3)
    overlap_C = (probabilities_BCHW * target_BCHW).sum(axes)
    target_C = target_BCHW.sum(axes)
    sizes_C = probabilities_BCHW.sum(axes) + target_C
    present_C = target_C > 0
    return 1 - (2 * overlap_C[present_C] / sizes_C[present_C]).mean()
