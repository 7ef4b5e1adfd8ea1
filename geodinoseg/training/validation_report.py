"""The report on a finished model from validation pixels: temperature, reliability, a panel."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geodinoseg.evaluation.calibration import Reliability, reliability
from geodinoseg.labels.classes import IGNORE
from geodinoseg.legend import Legend
from geodinoseg.model.heads import Detail
from geodinoseg.training.batches import CropSource, ValidationCrops
from geodinoseg.training.budget import PANEL_CROPS, REPORTED_CROPS
from geodinoseg.training.crops import Crop

_MOST_PIECES = REPORTED_CROPS - PANEL_CROPS
_MOST_PIXELS = 200_000

Predict = Callable[[Detail, int], torch.Tensor]
"""Logits of a crop from a network that never saw the blocks of a fold."""


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """Calibration of a model, and examples of its predictions."""

    temperature: float
    """Divides the logits."""
    before: Reliability
    """Of probabilities without the temperature."""
    after: Reliability
    """Of probabilities with it, on the same pixels."""
    panel: tuple[tuple[Crop, NDArray[np.float32]], ...]
    """Crops with the most labelled pixels, and their probabilities (classes, side, side)."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the scores of a model."""
        return {
            "calibration": {
                "temperature": self.temperature,
                "before": self.before.to_json(),
                "after": self.after.to_json(),
            }
        }

    def write(self, folder: Path, legend: Legend) -> None:
        """Write `reliability.png` and `validation.png`."""
        from geodinoseg.training.figures import (  # noqa: PLC0415 (matplotlib is slow to import)
            PanelSample,
            reliability_diagram,
            validation_panel,
        )

        reliability_diagram(self.before, self.after, folder / "reliability.png")
        samples = [
            PanelSample(
                pixels=crop.pixels,
                valid=crop.valid,
                labels=crop.labels,
                predicted=probabilities.argmax(axis=0),
                confidence=probabilities.max(axis=0),
            )
            for crop, probabilities in self.panel
        ]
        validation_panel(samples, legend, folder / "validation.png")


@torch.no_grad()
def validation_report(
    source: CropSource, validation: ValidationCrops, predict: Predict
) -> ValidationReport | None:
    """The report from the first validation crops; None if there are none.

    predict is that of the finished network or, in cross-validation, of the heads of the folds.
    """
    logits, labels = [], []
    most: list[tuple[int, int, Crop, int]] = []
    quota = max(_MOST_PIXELS // max(min(len(validation.pieces), _MOST_PIECES), 1), 1)
    crops = ((p, c) for batch in validation.batches(most=_MOST_PIECES) for p, c in batch)
    for number, (piece, crop) in enumerate(crops):
        found = _logits(source, predict, crop, piece.fold)
        rng = np.random.default_rng((source.settings.seed, 3, number))
        known = rng.permutation(np.flatnonzero(crop.labels != IGNORE))
        chosen = known[:quota]
        logits.append(found.reshape(len(found), -1)[:, chosen].T)
        labels.append(crop.labels.reshape(-1)[chosen])
        # The number breaks ties, so that crops are never compared.
        entry = (len(known), -number, crop, piece.fold)
        (heapq.heappush if len(most) < PANEL_CROPS else heapq.heappushpop)(most, entry)
    if not logits:
        return None
    pixels, truth = np.concatenate(logits), np.concatenate(labels)
    temperature = fit_temperature(pixels, truth)
    panel = [
        (crop, _softmax(_logits(source, predict, crop, fold) / temperature, axis=0))
        for _, _, crop, fold in sorted(most, reverse=True, key=lambda entry: entry[:2])
    ]
    return ValidationReport(
        temperature=temperature,
        before=_reliability(pixels, truth),
        after=_reliability(pixels / temperature, truth),
        panel=tuple(panel),
    )


def _logits(source: CropSource, predict: Predict, crop: Crop, fold: int) -> NDArray[np.float32]:
    """(classes, side, side)."""
    values, valid, _ = source.tensors([crop])
    with source.autocast():
        logits_BCHW = predict(Detail(values, valid), fold)
    logits: NDArray[np.float32] = logits_BCHW[0].float().cpu().numpy()
    return logits


def _reliability(logits: NDArray[Any], labels: NDArray[Any]) -> Reliability:
    probabilities = _softmax(logits, axis=1)
    return reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def _softmax(logits: NDArray[Any], *, axis: int) -> NDArray[np.float32]:
    weights = np.exp(logits - logits.max(axis=axis, keepdims=True))
    probabilities: NDArray[np.float32] = weights / weights.sum(axis=axis, keepdims=True)
    return probabilities


LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.05, 20.0
"""Bounds of the search: that of a model that is always right has none."""

_STEPS = 40
"""Of bisection: each halves the logarithm of the bracket, 6 at first."""


def fit_temperature(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """The T > 0 for which softmax(logits / T) has the least negative log-likelihood.

    Guo et al. (2017), On calibration of modern neural networks. In b = 1 / T the mean of
    log sum_c exp(b z_c) - b z_label is convex, so its slope is bisected.

    Args:
        logits: (pixels, classes), finite.
        labels: (pixels,) class index, below 0 where a pixel does not count.

    Returns:
        T from 0.05 to 20; 1 if nothing is labelled or the logits distinguish no classes.
    """
    known = np.asarray(labels) >= 0
    # In float64: differences far below the largest logit would be lost in float32.
    z = np.asarray(logits, dtype=np.float64)[known]
    if not z.size or not np.ptp(z, axis=1).any():
        return 1.0
    z = z - z.max(axis=1, keepdims=True)
    at_label = z[np.arange(len(z)), np.asarray(labels)[known].astype(np.int64)].mean()

    def slope(sharpness: float) -> float:
        """Of the negative log-likelihood: mean of E[z] under softmax(b z), less z of the label."""
        weights = np.exp(sharpness * z)
        expected = (weights * z).sum(axis=1) / weights.sum(axis=1)
        return float(expected.mean() - at_label)

    low, high = 1 / LARGEST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    if slope(low) >= 0:
        return LARGEST_TEMPERATURE
    if slope(high) <= 0:
        return LEAST_TEMPERATURE
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)
