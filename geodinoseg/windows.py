"""Rectangles of whole pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from geodinoseg.errors import GridError


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle of whole pixels that contains at least one pixel."""

    col_off: int
    """First column."""
    row_off: int
    """First row."""
    width: int
    """Number of columns, at least 1."""
    height: int
    """Number of rows, at least 1."""
    col_end: int = field(init=False, repr=False, compare=False)
    """First column past the window."""
    row_end: int = field(init=False, repr=False, compare=False)
    """First row past the window."""

    def __post_init__(self) -> None:
        """Raise GridError if the window contains no pixel or has a negative offset."""
        if self.width < 1 or self.height < 1 or self.col_off < 0 or self.row_off < 0:
            raise GridError(
                f"a window of {self.width} x {self.height} px at column {self.col_off}, "
                f"row {self.row_off} is not a rectangle of pixels."
            )
        # Stored, not computed: read in every loop over rows.
        object.__setattr__(self, "col_end", self.col_off + self.width)
        object.__setattr__(self, "row_end", self.row_off + self.height)

    @property
    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((row start, row end), (col start, col end)), a window in rasterio's form."""
        return (self.row_off, self.row_end), (self.col_off, self.col_end)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices of an array that starts at pixel (0, 0)."""
        return slice(self.row_off, self.row_end), slice(self.col_off, self.col_end)

    def shifted_by(self, *, rows: int, cols: int) -> Window:
        """The window moved by an offset."""
        return Window(
            col_off=self.col_off + cols,
            row_off=self.row_off + rows,
            width=self.width,
            height=self.height,
        )

    def clipped_to(self, *, height: int, width: int) -> Window:
        """The part inside a raster of this size; the window must start inside."""
        return replace(
            self,
            width=min(self.width, width - self.col_off),
            height=min(self.height, height - self.row_off),
        )

    def buffered(self, px: int) -> Window:
        """The window enlarged by px on each side, but not before the first row or column."""
        col_off, row_off = max(0, self.col_off - px), max(0, self.row_off - px)
        return Window(
            col_off=col_off,
            row_off=row_off,
            width=self.col_end + px - col_off,
            height=self.row_end + px - row_off,
        )

    def intersection(self, other: Window) -> Window | None:
        """The pixels in both windows; None if there are none."""
        col_off, row_off = max(self.col_off, other.col_off), max(self.row_off, other.row_off)
        width = min(self.col_end, other.col_end) - col_off
        height = min(self.row_end, other.row_end) - row_off
        if width < 1 or height < 1:
            return None
        return Window(col_off=col_off, row_off=row_off, width=width, height=height)


def windows_over(*, height: int, width: int, rows: int, cols: int) -> Iterator[Window]:
    """Windows of at most rows x cols px that partition a raster, row by row."""
    for row in range(0, height, rows):
        for col in range(0, width, cols):
            window = Window(col_off=col, row_off=row, width=cols, height=rows)
            yield window.clipped_to(height=height, width=width)
