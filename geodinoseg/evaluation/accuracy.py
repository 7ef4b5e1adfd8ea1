"""Accuracy of a map against reference labels: the confusion matrix and measures derived from it."""

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
    """Count the pixels of each pair of reference and predicted class.

    Matrices of parts of a map add up to that of the whole.

    Args:
        reference: class indices 0 to classes - 1, any shape, integer; below 0 = not counted.
        predicted: as `reference`, of the same shape.
        classes: number of classes.

    Returns:
        (classes, classes): rows are the reference, columns the prediction.
    """
    if reference.shape != predicted.shape:
        raise ValueError(f"reference is {reference.shape}, predicted {predicted.shape}.")
    counted = (reference >= 0) & (predicted >= 0)
    # int64, as row times classes overflows the int16 of labels from 182 classes on.
    rows, columns = reference[counted].astype(np.int64), predicted[counted].astype(np.int64)
    if max(rows.max(initial=0), columns.max(initial=0)) >= classes:
        raise ValueError(f"a class index is not below {classes}.")
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
    """Measures of a confusion matrix n, rows the reference, columns the prediction.

    Per class i: correct pixels, n_ii; pixels of the reference, n_i+ (the sum of row i); pixels of
    the map, n_+i (the sum of column i). A measure without any pixel is NaN.
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
        """Overall accuracy, the fraction of correct pixels: sum_i n_ii / n."""
        return float(ratio(np.trace(self.matrix), self.matrix.sum()))

    @cached_property
    def precision(self) -> NDArray[np.float64]:
        """User's accuracy, (classes,): n_ii / n_+i."""
        return ratio(self._correct, self.matrix.sum(axis=0))

    @cached_property
    def recall(self) -> NDArray[np.float64]:
        """Producer's accuracy, (classes,): n_ii / n_i+."""
        return ratio(self._correct, self.matrix.sum(axis=1))

    @cached_property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall, (classes,): 2 n_ii / (n_i+ + n_+i)."""
        return ratio(2 * self._correct, self._either + self._correct)

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union, (classes,): n_ii / (n_i+ + n_+i - n_ii)."""
        return ratio(self._correct, self._either)

    @cached_property
    def in_reference(self) -> NDArray[np.bool_]:
        """(classes,) True for classes that occur in the reference."""
        return np.asarray(self.matrix.sum(axis=1) > 0)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur in the reference; NaN if there are none.

        A class that occurs only in the map would add an IoU of 0, even with a single pixel. Its
        pixels still count as errors of the classes that they belong to in the reference.
        """
        scored = self.iou[self.in_reference]
        return float(scored.mean()) if len(scored) else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain values, in order of the class index; None for NaN, which JSON lacks."""
        return {
            "pixels": self.pixels,
            "overall_accuracy": json_number(self.overall),
            "mean_iou": json_number(self.mean_iou),
            "precision": [json_number(value) for value in self.precision],
            "recall": [json_number(value) for value in self.recall],
            "f1": [json_number(value) for value in self.f1],
            "iou": [json_number(value) for value in self.iou],
            "confusion_matrix": self.matrix.tolist(),
        }

    def table(self, legend: Legend, *, boundary_f_score: NDArray[np.float64] | None = None) -> str:
        """The measures as text for a terminal: one line per class, then overall and mean.

        Classes that do not occur in the reference are listed last; they are not in the mean.

        Args:
            legend: names of the classes.
            boundary_f_score: (classes,) a further column, where known.
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
            (name, *map(format_measure, values), f"{count:,}")
            for name, values, count in zip(legend.names, measures, pixels, strict=True)
            if count
        ]
        overall, mean_iou = format_measure(self.overall), format_measure(self.mean_iou)
        text = f"{format_table(lines)}\noverall accuracy {overall}, mean IoU {mean_iou}"
        others = self.not_in_reference(legend)
        if others:
            listed = ", ".join(
                f"{name} ({count:,} px in the map)" for name, count in others.items()
            )
            text += f" of these {len(lines) - 1} classes\nnot in the labels: {listed}"
        return text

    def not_in_reference(self, legend: Legend) -> dict[str, int]:
        """Pixels in the map, by class name, of each class that does not occur in the reference."""
        mapped = self.matrix.sum(axis=0).tolist()
        return {
            name: count
            for name, count, is_in in zip(legend.names, mapped, self.in_reference, strict=True)
            if not is_in
        }

    @property
    def _correct(self) -> NDArray[np.int64]:
        return np.diagonal(self.matrix)

    @property
    def _either(self) -> NDArray[np.int64]:
        """Pixels of the class in the reference or the map."""
        sums: NDArray[np.int64] = self.matrix.sum(axis=0) + self.matrix.sum(axis=1)
        return sums - self._correct


def format_table(lines: Sequence[tuple[str, ...]]) -> str:
    """Cells as a text table: the first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [first.ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        )
        for first, *rest in lines
    )


def json_number(value: float) -> float | None:
    """None for NaN, which JSON lacks."""
    return float(value) if np.isfinite(value) else None


def format_measure(value: float) -> str:
    """Three decimals, or a dash for NaN."""
    return f"{value:.3f}" if np.isfinite(value) else "-"
