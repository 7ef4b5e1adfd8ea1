"""The page of a map picture: two panels, legend, scale bar and caption, laid out in inches."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from geodinoseg.geobox import GeoBox
from geodinoseg.legend import Legend, LegendClass
from geodinoseg.transformations import degrees_per_unit

DPI = 200
"""Pixels per inch."""
PANEL_IN = 5.0
"""Width of a panel, unless it would be too tall."""
INK, FAINT, FRAME = "#222222", "#666666", "#bbbbbb"

_TALLEST_PANEL_IN, _SMALLEST_PANEL_IN = 6.5, 1.5
_MARGIN_IN, _GAP_IN = 0.35, 0.2
_HEAD_IN, _FOOT_IN, _CAPTION_LINE_IN = 1.0, 0.6, 0.19
_LEGEND_IN, _LEGEND_LINE_IN = 3.0, 0.28
# A longer list would be taller than the map; the smallest classes share one line.
_LARGEST_LEGEND = 20
_LONGEST_NAME, _LONGEST_TITLE = 24, 90
_CAPTION_LETTERS_PER_IN = 14
_LARGEST_SCALE_BAR = 0.35
_METRES_IN_KM = 1000


class MapPage:
    """A page laid out for a map; parts are added, then it is saved."""

    def __init__(self, geobox: GeoBox, *, classes: int, caption: str | None) -> None:
        """Lay out the page.

        Args:
            geobox: of the pixels that the panels show.
            classes: number of classes in the legend.
            caption: text below the panels, wrapped into as many lines as needed.
        """
        self._geobox = geobox
        self._pixel_aspect = _pixel_aspect(geobox)
        aspect = geobox.height * self._pixel_aspect / geobox.width
        # The map keeps its aspect ratio inside the panel.
        self._panel_width = max(min(PANEL_IN, _TALLEST_PANEL_IN / aspect), _SMALLEST_PANEL_IN)
        self._panel_height = max(min(PANEL_IN * aspect, _TALLEST_PANEL_IN), _SMALLEST_PANEL_IN)
        self._legend_left = _MARGIN_IN + 2 * (self._panel_width + _GAP_IN)
        self._width = self._legend_left + _LEGEND_IN + _MARGIN_IN
        letters = int((self._width - 2 * _MARGIN_IN) * _CAPTION_LETTERS_PER_IN)
        self._caption = textwrap.wrap(caption or "", letters)
        legend_height = (min(classes, _LARGEST_LEGEND + 1) + 0.5) * _LEGEND_LINE_IN
        self._foot_top = _HEAD_IN + max(self._panel_height, legend_height)
        self._height = self._foot_top + _FOOT_IN + len(self._caption) * _CAPTION_LINE_IN
        self._figure = Figure(figsize=(self._width, self._height), dpi=DPI, facecolor="white")

    def add_title(self, title: str) -> None:
        """The line above the panels."""
        text = shortened(title, _LONGEST_TITLE)
        self._add_text(_MARGIN_IN, 0.45, text, fontsize=15, color=INK, fontweight="bold")

    def add_panel(self, position: int, name: str, colors: NDArray[np.uint8]) -> None:
        """A panel: position 0 = left, 1 = right; colors (height, width, 3 or 4) uint8."""
        left = _MARGIN_IN + position * (self._panel_width + _GAP_IN)
        bottom = self._height - _HEAD_IN - self._panel_height
        axes = self._figure.add_axes(
            (
                left / self._width,
                bottom / self._height,
                self._panel_width / self._width,
                self._panel_height / self._height,
            )
        )
        axes.imshow(colors, interpolation="nearest", aspect=self._pixel_aspect)
        axes.set(xticks=[], yticks=[], anchor="NW")
        for spine in axes.spines.values():
            spine.set(color=FRAME, linewidth=0.8)
        self._add_text(left, _HEAD_IN - 0.1, name, fontsize=11, color=FAINT)

    def add_legend(self, legend: Legend, fractions: Mapping[int, float]) -> None:
        """Names, colours and fractions of the mapped area, 0 to 1, by class id."""
        right = self._legend_left + _LEGEND_IN
        self._add_text(self._legend_left, _HEAD_IN - 0.1, "Class", fontsize=11, color=FAINT)
        self._add_text(right, _HEAD_IN - 0.1, "Share of area", fontsize=11, color=FAINT, ha="right")
        listed, rest = _largest_classes(legend, fractions)
        lines = [(entry.name, fractions[entry.class_id], entry.color) for entry in listed]
        if rest:
            fraction = sum(fractions[entry.class_id] for entry in rest)
            lines.append((f"{len(rest)} smaller classes", fraction, "white"))
        for line, (name, fraction, color) in enumerate(lines):
            self._add_legend_line(_HEAD_IN + (line + 0.5) * _LEGEND_LINE_IN, name, fraction, color)

    def add_scale_bar(self, pixel_size_m: float | None) -> None:
        """A bar of a round length below the left panel; none where the scale is unknown.

        Args:
            pixel_size_m: side of a square of a pixel's area.
        """
        if pixel_size_m is None:
            return
        pixel_width_m = pixel_size_m / math.sqrt(self._pixel_aspect)
        inches_per_px = min(
            self._panel_width / self._geobox.width,
            self._panel_height / (self._geobox.height * self._pixel_aspect),
        )
        metres_per_inch = pixel_width_m / inches_per_px
        length_m = _round_length(_LARGEST_SCALE_BAR * self._panel_width * metres_per_inch)
        end = _MARGIN_IN + length_m / metres_per_inch
        y = _HEAD_IN + self._panel_height + 0.22
        for x, depth in ((_MARGIN_IN, 0.05), (end, 0.05)):
            self._add_line((x, x), (y - depth, y + depth))
        self._add_line((_MARGIN_IN, end), (y, y))
        self._add_text(
            end + 0.1, y, _length_text(length_m), fontsize=10, color=INK, va="center_baseline"
        )

    def add_caption(self) -> None:
        """The text below the panels."""
        for line, text in enumerate(self._caption):
            y = self._foot_top + _FOOT_IN + line * _CAPTION_LINE_IN
            self._add_text(_MARGIN_IN, y, text, fontsize=8.5, color=FAINT)

    def save(self, path: Path) -> None:
        """Write the page as a PNG."""
        save_figure(self._figure, path)

    def _add_legend_line(self, y: float, name: str, fraction: float, color: str) -> None:
        swatch = Rectangle(
            (self._legend_left / self._width, 1 - (y + 0.08) / self._height),
            0.26 / self._width,
            0.16 / self._height,
            facecolor=color,
            edgecolor=FRAME,
            linewidth=0.6,
        )
        self._figure.add_artist(swatch)
        style = {"fontsize": 10.5, "color": INK, "va": "center_baseline"}
        self._add_text(self._legend_left + 0.36, y, shortened(name, _LONGEST_NAME), **style)
        right = self._legend_left + _LEGEND_IN
        self._add_text(right, y, _percent_text(fraction), ha="right", **style)

    def _add_text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Text at inches from the left and from the top; a dollar sign does not start a formula."""
        self._figure.text(x / self._width, 1 - y / self._height, text, parse_math=False, **style)

    def _add_line(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        line = Line2D(
            [value / self._width for value in x],
            [1 - value / self._height for value in y],
            color=INK,
            linewidth=1.4,
            solid_capstyle="butt",
        )
        self._figure.add_artist(line)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, on a canvas of its own."""
    with warnings.catch_warnings():
        # The font may lack the script of a class name: boxes in the picture, no warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasAgg(figure).print_png(path)


def shortened(text: str, letters: int) -> str:
    """Text of at most `letters` letters, with an ellipsis where truncated."""
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def _pixel_aspect(geobox: GeoBox) -> float:
    """Height of a pixel over its width, on the ground."""
    transform = geobox.transform
    narrowing = 1.0
    if geobox.is_geographic:
        _, latitude = transform @ (geobox.width / 2, geobox.height / 2)
        degrees = degrees_per_unit(pyproj.CRS.from_user_input(geobox.crs))
        narrowing = max(math.cos(math.radians(latitude * degrees)), 0.01)
    width = math.hypot(transform.a * narrowing, transform.d)
    return math.hypot(transform.b * narrowing, transform.e) / width


def _largest_classes(
    legend: Legend, fractions: Mapping[int, float]
) -> tuple[list[LegendClass], list[LegendClass]]:
    """The largest classes, in the legend's order, and the others."""
    by_area = sorted(legend, key=lambda entry: -fractions[entry.class_id])
    listed = set(by_area[:_LARGEST_LEGEND])
    return [e for e in legend if e in listed], by_area[_LARGEST_LEGEND:]


def _round_length(longest_m: float) -> float:
    """The longest of 1, 2 and 5 times a power of ten that fits."""
    power = 10.0 ** math.floor(math.log10(longest_m))
    return max(step * power for step in (1, 2, 5) if step * power <= longest_m)


def _length_text(length_m: float) -> str:
    return f"{length_m / _METRES_IN_KM:g} km" if length_m >= _METRES_IN_KM else f"{length_m:g} m"


def _percent_text(fraction: float) -> str:
    percent = 100 * fraction
    return f"{percent:.1f} %" if percent == 0 or percent >= 0.05 else "< 0.1 %"
