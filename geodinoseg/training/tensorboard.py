"""The course of a training for TensorBoard, an extra: pip install geodinoseg[tensorboard]."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from geodinoseg.errors import ModelError
from geodinoseg.legend import Legend
from geodinoseg.training.history import EpochScore


class EventLog:
    """Scalars of each epoch in an event file. Use as a context manager, or close it.

    Epochs keep their numbers, so that a training that is resumed goes on in the same curves.
    """

    def __init__(self, folder: Path, *, names: Sequence[str] = ()) -> None:
        """Open an event file.

        Args:
            folder: to hold it; made where it is not there.
            names: of the classes in channel order, for the score of each.

        Raises:
            ModelError: TensorBoard is not installed, or the folder cannot be written.
        """
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
        """Write what is left and close the file."""
        self._writer.close()


def check_event_log() -> None:
    """Say at once that TensorBoard is missing, before anything is trained.

    Raises:
        ModelError: it is not installed.
    """
    _writer_class()


def _writer(folder: Path) -> Any:
    writer = _writer_class()
    try:
        return writer(str(folder))
    except OSError as error:
        raise ModelError(
            f"{folder}: the TensorBoard log cannot be written there ({error.strerror}); give "
            f"another folder."
        ) from error


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an extra, and slow)
    except ImportError as error:
        raise ModelError(
            "TensorBoard is not installed: pip install geodinoseg[tensorboard]."
        ) from error
    return SummaryWriter


@contextmanager
def opened_event_log(
    folder: str | os.PathLike[str] | None, legend: Legend
) -> Iterator[Callable[[EpochScore], None]]:
    """What to tell every epoch; with no folder, nobody listens.

    Args:
        folder: of the event files.
        legend: names of the classes.

    Raises:
        ModelError: TensorBoard is not installed, or the folder cannot be written.
    """
    if folder is None:
        yield lambda _: None
        return
    from geodinoseg.training.tensorboard import EventLog  # noqa: PLC0415 (TensorBoard is an extra)

    log = EventLog(Path(folder), names=legend.names)
    try:
        yield log.epoch
    finally:
        log.close()
