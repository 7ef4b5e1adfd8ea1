"""Scores of a training for TensorBoard, an extra."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from geodinoseg.errors import ModelError
from geodinoseg.legend import Legend
from geodinoseg.training.history import EpochScore

_NOT_INSTALLED = "TensorBoard is not installed: pip install tensorboard."


class EventLog:
    """Scalars of each epoch in an event file. Use as a context manager, or close it.

    Epochs keep their numbers, so that a resumed training continues the same curves.
    """

    def __init__(self, folder: Path, *, names: Sequence[str] = ()) -> None:
        """Open an event file in a folder, made if missing; names are those of the classes."""
        self._names = tuple(names)
        self._writer = _writer(folder)

    def __enter__(self) -> Self:
        """The log itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def epoch(self, score: EpochScore) -> None:
        """Write the losses, mean IoU and the IoU of each class; what is NaN is left out."""
        values = {
            "loss/training": score.train_loss,
            "loss/validation": score.val_loss,
            "mean IoU": score.mean_iou,
        }
        if score.accuracy is not None:
            known = zip(self._names, score.accuracy.iou.tolist(), strict=False)
            values |= {f"IoU/{name}": iou for name, iou in known}
        for tag, value in values.items():
            if not math.isnan(value):
                self._writer.add_scalar(tag, value, score.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


def check_event_log() -> None:
    """Refuse to train without TensorBoard before anything is read."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ModelError(_NOT_INSTALLED)


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an extra, and slow)
    except ImportError as error:
        raise ModelError(_NOT_INSTALLED) from error
    try:
        return SummaryWriter(str(folder))
    except OSError as error:
        raise ModelError(
            f"{folder}: the TensorBoard log cannot be written there ({error.strerror}); give "
            f"another folder."
        ) from error


@contextmanager
def opened_event_log(
    folder: str | os.PathLike[str] | None, legend: Legend
) -> Iterator[Callable[[EpochScore], None]]:
    """A function to call after every epoch; it does nothing without a folder."""
    if folder is None:
        yield lambda _: None
        return
    with EventLog(Path(folder), names=legend.names) as log:
        yield log.epoch
