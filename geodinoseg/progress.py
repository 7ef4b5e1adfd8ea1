"""How long work tells how far it is: a callable that is given a fraction and a short message."""

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Called with the fraction done in [0, 1] and a short message; may raise to stop the work."""


def no_progress(fraction: float, message: str) -> None:
    """Tell nobody."""


def part_of(progress: Progress, start: float, end: float) -> Progress:
    """A progress for one stage of a longer work: its 0 to 1 become start to end."""

    def stage(fraction: float, message: str) -> None:
        progress(start + (end - start) * fraction, message)

    return stage
