"""TensorBoard's event files, where they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geodinoseg.legend import Legend
    from geodinoseg.training.history import EpochScore


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
