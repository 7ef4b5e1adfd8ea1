"""Loss and confusion matrix of batches, added up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from geodinoseg.evaluation.accuracy import Accuracy, confusion_matrix
from geodinoseg.training.losses import segmentation_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Scorer:
    """Takes what a network says of labelled pixels, and comes to a score."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._matrix: NDArray[np.int64] = np.zeros((classes, classes), dtype=np.int64)
        self._losses: list[float] = []

    def add(self, logits_BCHW: torch.Tensor, labels_BHW: torch.Tensor) -> None:
        """Count a batch.

        Args:
            logits_BCHW: (batch, classes, height, width) float32.
            labels_BHW: (batch, height, width) int64, IGNORE where there is no label.
        """
        predicted = logits_BCHW.argmax(dim=1).cpu().numpy()
        self._matrix += confusion_matrix(labels_BHW.cpu().numpy(), predicted, self._classes)
        self._losses.append(float(segmentation_loss(logits_BCHW, labels_BHW)))

    @property
    def loss(self) -> float:
        """Mean over the batches; NaN without any."""
        return float(np.mean(self._losses)) if self._losses else math.nan

    @property
    def accuracy(self) -> Accuracy | None:
        """Of all pixels; None without a batch."""
        return Accuracy(self._matrix) if self._losses else None
