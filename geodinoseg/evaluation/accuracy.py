"""How well a map agrees with reference labels: the confusion matrix and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.legend import Legend


def confusion_matrix(
    reference: NDArray[Any], predicted: NDArray[Any], classes: int
) -> NDArray[np.int64]:
    """How many pixels of each reference class were given each class.

    Matrices of parts of a map add up to that of the whole.

    Args:
        reference: channels 0 to classes - 1, any shape, whole numbers; below 0 not counted.
        predicted: as `reference`, of the same shape.
        classes: number of classes.

    Returns:
        (classes, classes): rows are the reference, columns the prediction.

    Raises:
        ValueError: the shapes differ, or a channel is not below `classes`.
    """
    if reference.shape != predicted.shape:
        raise ValueError(f"reference is {reference.shape}, predicted {predicted.shape}.")
    counted = (reference >= 0) & (predicted >= 0)
    # int64, as row times classes overflows the int16 of labels from 182 classes on.
    rows, columns = reference[counted].astype(np.int64), predicted[counted].astype(np.int64)
    if max(rows.max(initial=0), columns.max(initial=0)) >= classes:
        raise ValueError(f"a channel is not below {classes}.")
    pairs = np.bincount(rows * classes + columns, minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64)


def ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """Quotient as float64, NaN where the whole is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    quotient = np.full(whole.shape, np.nan, dtype=np.float64)
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient


@dataclass(frozen=True, eq=False)
class Accuracy:
    """The usual measures of a confusion matrix n, rows the reference, columns the prediction.

    Per class i: what is right, n_ii; what the reference has of it, n_i+ (the sum of row i); what
    the map has of it, n_+i (the sum of column i). A measure without a pixel to stand on is NaN.
    Sources: Congalton (1991), Remote Sensing of Environment 37, for overall, user's and
    producer's accuracy; van Rijsbergen (1979), Information Retrieval, for F1; Everingham et al.
    (2010), International Journal of Computer Vision 88, for intersection over union.
    """

    matrix: NDArray[np.int64]
    """(classes, classes)."""

    @property
    def pixels(self) -> int:
        """Number of pixels compared."""
        return int(self.matrix.sum())

    @property
    def overall(self) -> float:
        """Overall accuracy, the share of pixels that are right: sum_i n_ii / n."""
        return float(ratio(np.trace(self.matrix), self.matrix.sum()))

    @cached_property
    def precision(self) -> NDArray[np.float64]:
        """User's accuracy, (classes,): n_ii / n_+i, how much of what the map shows is there."""
        return ratio(self._right, self.matrix.sum(axis=0))

    @cached_property
    def recall(self) -> NDArray[np.float64]:
        """Producer's accuracy, (classes,): n_ii / n_i+, how much of what is there is shown."""
        return ratio(self._right, self.matrix.sum(axis=1))

    @cached_property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall, (classes,): 2 n_ii / (n_i+ + n_+i)."""
        return ratio(2 * self._right, self._either + self._right)

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union, (classes,): n_ii / (n_i+ + n_+i - n_ii)."""
        return ratio(self._right, self._either)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that the reference or the map has; NaN without one."""
        occurring = self.iou[np.isfinite(self.iou)]
        return float(occurring.mean()) if len(occurring) else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain values, in channel order; None where a measure is NaN, which JSON lacks."""
        return {
            "pixels": self.pixels,
            "overall_accuracy": plain(self.overall),
            "mean_iou": plain(self.mean_iou),
            "precision": [plain(value) for value in self.precision],
            "recall": [plain(value) for value in self.recall],
            "f1": [plain(value) for value in self.f1],
            "iou": [plain(value) for value in self.iou],
            "confusion_matrix": self.matrix.tolist(),
        }

    def table(self, legend: Legend, *, boundary_f_score: NDArray[np.float64] | None = None) -> str:
        """The measures as text for a terminal, a line a class, then overall and mean.

        Args:
            legend: names of the channels.
            boundary_f_score: (classes,) a further column, where it is known.
        """
        columns = {
            "precision": self.precision,
            "recall": self.recall,
            "F1": self.f1,
            "IoU": self.iou,
        }
        if boundary_f_score is not None:
            columns["boundary F"] = boundary_f_score
        measures = zip(*columns.values(), strict=True)
        pixels = self.matrix.sum(axis=1)
        lines = [("class", *columns, "pixels")] + [
            (name, *map(shown, values), f"{count:,}")
            for name, values, count in zip(legend.names, measures, pixels, strict=True)
        ]
        summary = f"overall accuracy {shown(self.overall)}, mean IoU {shown(self.mean_iou)}"
        return "\n".join([aligned(lines), summary])

    @property
    def _right(self) -> NDArray[np.int64]:
        return np.diagonal(self.matrix)

    @property
    def _either(self) -> NDArray[np.int64]:
        """Pixels that the reference or the map gives to the class."""
        sums: NDArray[np.int64] = self.matrix.sum(axis=0) + self.matrix.sum(axis=1)
        return sums - self._right


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Cells as a table for a terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [first.ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        )
        for first, *rest in lines
    )


def plain(value: float) -> float | None:
    """A number as JSON holds it: None for NaN, which JSON lacks."""
    return float(value) if np.isfinite(value) else None


def shown(value: float) -> str:
    """A share for a person: three decimals, or a dash for NaN."""
    return f"{value:.3f}" if np.isfinite(value) else "-"
