"""Progress reports: a callable that receives a fraction and a short message; logged steps."""

import logging
from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Called with the fraction done in [0, 1] and a short message; may raise to cancel the work."""


def no_progress(fraction: float, message: str) -> None:
    """Ignore the report."""


def log_step(logger: logging.Logger, message: str, *args: object) -> None:
    """Log a step of the work at INFO, such as an epoch or a finished part.

    Commands print steps with --verbose only; other messages at INFO, such as what became of a
    resumed run, they always print.
    """
    logger.info(message, *args, extra={"is_step": True}, stacklevel=2)


def part_of(progress: Progress, start: float, end: float) -> Progress:
    """The progress of one stage of a longer task: its 0 to 1 become start to end."""

    def stage(fraction: float, message: str) -> None:
        progress(start + (end - start) * fraction, message)

    return stage
