"""Progress reports: a callable that receives a fraction and a short message."""

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Called with the fraction done in [0, 1] and a short message; may raise to cancel the work."""


def no_progress(fraction: float, message: str) -> None:
    """Ignore the report."""


def part_of(progress: Progress, start: float, end: float) -> Progress:
    """The progress of one stage of a longer task: its 0 to 1 become start to end."""

    def stage(fraction: float, message: str) -> None:
        progress(start + (end - start) * fraction, message)

    return stage
