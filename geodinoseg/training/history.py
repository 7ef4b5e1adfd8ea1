"""The scores of a training by epoch: as values, as a table and as a picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geodinoseg.evaluation.accuracy import Accuracy
from geodinoseg.training.comparison import BlockLosses
from geodinoseg.training.settings import StageName


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochScore:
    """The result of one epoch."""

    epoch: int
    """From 1, over all stages."""
    stage: StageName
    train_loss: float
    """Mean over the steps of the epoch."""
    val_loss: float
    """Mean over the validation batches; NaN without validation."""
    accuracy: Accuracy | None
    """On the validation pixels; None without any."""
    losses: BlockLosses | None = None
    """Log loss on the validation blocks; None without any."""

    @property
    def mean_iou(self) -> float:
        """On the validation pixels; NaN without any."""
        return math.nan if self.accuracy is None else self.accuracy.mean_iou

    @property
    def log_loss(self) -> float:
        """On the validation pixels; NaN without any."""
        return math.nan if self.losses is None else self.losses.mean

    def row(self) -> dict[str, float | str]:
        """As a row of `history.csv`."""
        return {
            "epoch": self.epoch,
            "stage": self.stage,
            "train_loss": self.train_loss,
            "val_loss": self.val_loss,
            "log_loss": self.log_loss,
            "mean_iou": self.mean_iou,
        }


def write_history(history: Sequence[EpochScore], folder: Path) -> None:
    """Write `history.csv` and `curves.png`."""
    from geodinoseg.training.curves import training_curves  # noqa: PLC0415 (matplotlib)

    rows = [score.row() for score in history]
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    training_curves(rows, folder / "curves.png")
