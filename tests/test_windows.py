"""Windows: rectangles of whole pixels."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from geodinoseg.errors import GridError
from geodinoseg.windows import Window, windows_over

sizes = st.integers(1, 700)


@given(height=sizes, width=sizes, rows=sizes, cols=sizes)
def test_windows_over_a_raster_partition_it(height, width, rows, cols):
    total = sum(
        w.width * w.height
        for w in windows_over(height=height, width=width, rows=max(rows, 20), cols=max(cols, 20))
    )
    assert total == height * width


@pytest.mark.parametrize("change", [{"width": 0}, {"height": -1}, {"col_off": -1}, {"row_off": -2}])
def test_a_window_without_pixels_is_refused(change):
    with pytest.raises(GridError):
        Window(**({"col_off": 0, "row_off": 0, "width": 3, "height": 2} | change))


@given(col=sizes, row=sizes, width=sizes, height=sizes, px=st.integers(0, 90))
def test_a_buffered_and_clipped_window_holds_the_pixels_within_reach(col, row, width, height, px):
    raster = {"height": row + height + 7, "width": col + width + 3}
    window = Window(col_off=col, row_off=row, width=width, height=height)
    found = window.buffered(px).clipped_to(**raster)
    assert (found.col_off, found.row_off) == (max(0, col - px), max(0, row - px))
    assert found.col_end == min(raster["width"], window.col_end + px)
    assert found.row_end == min(raster["height"], window.row_end + px)


def test_an_intersection_is_what_lies_in_both():
    first = Window(col_off=2, row_off=1, width=5, height=7)
    second = Window(col_off=4, row_off=5, width=9, height=9)
    assert first.intersection(second) == Window(col_off=4, row_off=5, width=3, height=3)
    assert first.intersection(Window(col_off=7, row_off=1, width=1, height=1)) is None
