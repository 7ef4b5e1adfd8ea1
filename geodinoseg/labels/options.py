"""How label files are read: plain values, checked when built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from geodinoseg.errors import LabelError

Unlabelled = Literal["ignore", "background"]
"""What pixels without a label are: unknown, or a class of their own."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How label files are read; see `labels.open_labels`."""

    class_field: str | None = None
    """Column that holds the class."""
    unlabelled: Unlabelled = "ignore"
    """What pixels under no polygon are."""
    ignore_classes: tuple[str, ...] = ()
    """Classes whose polygons are left out of training."""
    extent: str | None = None
    """File of polygons within which labelling is complete: there the rest is background."""
    legend_file: str | None = None
    """File with numbers, names and colours of classes; see `read_legend_file`."""
    allow_external: bool = False
    """Whether labels, and image chips, may be of any kind that GDAL knows; see `open_scene`."""

    def __post_init__(self) -> None:
        """Refuse an unknown choice.

        Raises:
            LabelError: unlabelled is neither.
        """
        if self.unlabelled not in get_args(Unlabelled):
            raise LabelError(f"unlabelled={self.unlabelled!r}: give ignore or background.")
