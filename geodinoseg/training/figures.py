"""Figures of a trained model: its reliability, and predictions of validation tiles.

Built without pyplot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from numpy.typing import NDArray

from geodinoseg.evaluation.calibration import Reliability
from geodinoseg.files.atomic import PathLike, atomic_file, check_output
from geodinoseg.legend import Legend
from geodinoseg.plots.layout import (
    DPI,
    FAINT,
    FRAME,
    INK,
    save_figure,
    shortened,
)
from geodinoseg.plots.preview import stretched

LARGEST_PANEL = 8
"""Rows of a panel at most."""

_BAR, _GAP, _GAP_LINE, _MODEST_LINE = "#4477aa", "#f8c9ad", "#ee7733", "#cfe2f3"
_TILE_IN, _SPACE_IN, _EDGE_IN, _HEAD_IN, _LINE_IN, _FOOT_IN = 2.2, 0.08, 0.25, 0.4, 0.27, 0.55
_TILE_PX = round(_TILE_IN * DPI)
_COLUMNS = ("Image", "Labels", "Prediction", "Confidence")
_IN_A_LINE, _LONGEST_NAME = 4, 22
_WHITE, _GREY, _STRIPE_GREY, _ERROR = 255, 236, 205, (20, 20, 20)
_STRIPE_PX = 18
"""From one stripe to the next, in pixels of the picture."""
_FADED = 0.55
"""Fraction of white over predictions without a label."""
_CONFIDENCE_COLORS = "viridis"


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelSample:
    """One tile of a validation panel."""

    pixels: NDArray[Any]
    """(bands, height, width), raw; the first three bands are shown as red, green and blue."""
    valid: NDArray[np.bool_]
    """(height, width), True where the scene holds data."""
    labels: NDArray[Any]
    """(height, width) class index, below 0 where there is no label."""
    predicted: NDArray[Any]
    """(height, width) class index."""
    confidence: NDArray[Any]
    """(height, width) probability of the predicted class, 0 to 1."""


def reliability_diagram(before: Reliability, after: Reliability, output_png: PathLike) -> Path:
    """Draw accuracy by confidence before and after calibration, in bins of the same width."""
    layout = ConstrainedLayoutEngine(wspace=0.06)
    figure = Figure(figsize=(8.6, 4.8), dpi=DPI, facecolor="white", layout=layout)
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(4, 1))
    for column, (title, bins) in enumerate(
        (("Before calibration", before), ("After calibration", after))
    ):
        _draw_bins(axes[0, column], title, bins)
        _draw_counts(axes[1, column], bins)
    axes[0, 0].set_ylabel("fraction correct", color=FAINT)
    axes[1, 0].set_ylabel("pixels", color=FAINT)
    handles = [
        Patch(facecolor=_BAR, label="fraction correct"),
        Patch(facecolor=_GAP, hatch="///", edgecolor=_GAP_LINE, label="gap, overconfident"),
        Patch(facecolor=_BAR, hatch="\\\\\\", edgecolor=_MODEST_LINE, label="gap, underconfident"),
    ]
    axes[0, 0].legend(handles=handles, frameon=False, labelcolor=INK, loc="upper left")
    return _saved(figure, output_png)


def validation_panel(samples: Sequence[PanelSample], legend: Legend, output_png: PathLike) -> Path:
    """Draw tiles in rows: image, labels, prediction with striped errors, confidence.

    Predictions without a label are faded, unlabelled pixels are hatched in grey, missing ones are
    white. The first 8 samples are shown; there is at least one.
    """
    shown = samples[:LARGEST_PANEL]
    handles = _legend_handles(legend)
    lines = -(-len(handles) // _IN_A_LINE)
    width = 2 * _EDGE_IN + len(_COLUMNS) * _TILE_IN + (len(_COLUMNS) - 1) * _SPACE_IN
    pictures = [_tiles(sample, legend) for sample in shown]
    rows_in = [tiles[0].shape[0] / DPI for tiles in pictures]
    body = sum(rows_in) + len(rows_in) * _SPACE_IN
    height = _HEAD_IN + body + _FOOT_IN + lines * _LINE_IN + _EDGE_IN
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    lefts = [_EDGE_IN + column * (_TILE_IN + _SPACE_IN) for column in range(len(_COLUMNS))]
    for left, title in zip(lefts, _COLUMNS, strict=True):
        figure.text(left / width, 1 - (_HEAD_IN - 0.1) / height, title, fontsize=11, color=INK)
    top = height - _HEAD_IN
    for tiles, row_in in zip(pictures, rows_in, strict=True):
        for left, colors in zip(lefts, tiles, strict=True):
            place = (left / width, (top - row_in) / height, _TILE_IN / width, row_in / height)
            _draw_tile(figure, place, colors)
        top -= row_in + _SPACE_IN
    bar = (lefts[-1] / width, (top - 0.12) / height, _TILE_IN / width, 0.1 / height)
    _add_confidence_bar(figure, bar)
    _add_legend(figure, handles, (_EDGE_IN / width, (top - 0.42) / height))
    return _saved(figure, output_png)


def _saved(figure: Figure, output_png: PathLike) -> Path:
    target = check_output(output_png, overwrite=True, suffixes=(".png",))
    with atomic_file(target) as path:
        save_figure(figure, path)
    return target


def _draw_bins(axes: Axes, title: str, bins: Reliability) -> None:
    edges = np.linspace(0, 1, len(bins.count) + 1)
    left, width = edges[:-1], 1 / len(bins.count)
    full = bins.count > 0
    accuracy, confidence = bins.accuracy[full], bins.confidence[full]
    style: dict[str, Any] = {"width": width, "align": "edge", "linewidth": 0.8}
    axes.bar(left[full], accuracy, color=_BAR, edgecolor="white", **style)
    over: dict[str, Any] = {"color": _GAP, "hatch": "///", "edgecolor": _GAP_LINE}
    # Where the model is underconfident the gap lies within the bar, which stays visible.
    under = {"fill": False, "hatch": "\\\\\\", "edgecolor": _MODEST_LINE}
    for is_kind, look in ((confidence > accuracy, over), (confidence < accuracy, under)):
        bottom = np.minimum(accuracy, confidence)[is_kind]
        height = np.abs(confidence - accuracy)[is_kind]
        axes.bar(left[full][is_kind], height, bottom=bottom, **look, **style)
    axes.plot((0, 1), (0, 1), color=INK, linewidth=1, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    error = f"{100 * bins.ece:.1f} %" if np.isfinite(bins.ece) else "unknown"
    axes.set_title(f"calibration error {error}", loc="right", color=FAINT, fontsize=10)
    _dress(axes)


def _draw_counts(axes: Axes, bins: Reliability) -> None:
    edges = np.linspace(0, 1, len(bins.count) + 1)
    percent = 100 * bins.count / max(int(bins.count.sum()), 1)
    axes.bar(
        edges[:-1],
        percent,
        width=1 / len(percent),
        align="edge",
        color=FRAME,
        edgecolor="white",
        linewidth=0.8,
    )
    axes.set_xlabel("confidence", color=FAINT)
    axes.yaxis.set_major_formatter("{x:.0f} %")
    _dress(axes)


def _dress(axes: Axes) -> None:
    axes.tick_params(colors=FAINT)
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=FRAME, linewidth=0.5, alpha=0.6)
    for side, spine in axes.spines.items():
        spine.set(color=FRAME, visible=side in {"left", "bottom"})


def _tiles(sample: PanelSample, legend: Legend) -> list[NDArray[np.uint8]]:
    """The four pictures of a sample, (rows, columns, 3) uint8 in pixels of the page."""
    rows, cols = _page_pixels(sample.valid.shape)
    valid, labels = sample.valid[np.ix_(rows, cols)], sample.labels[np.ix_(rows, cols)]
    predicted = sample.predicted[np.ix_(rows, cols)]
    labelled = valid & (labels >= 0)
    stripes = np.add.outer(np.arange(len(rows)), np.arange(len(cols))) % _STRIPE_PX
    table = np.array([entry.rgb for entry in legend], dtype=np.uint8)

    image = _image(sample)[np.ix_(rows, cols)]
    known = np.where(stripes[..., None] < 3, _STRIPE_GREY, _GREY) * np.ones(3, dtype=np.int64)
    known[labelled] = table[labels[labelled]]
    colors = table[predicted].astype(np.float64)
    colors[~labelled] += _FADED * (_WHITE - colors[~labelled])
    wrong = labelled & (labels != predicted)
    colors[wrong & (stripes < _STRIPE_PX // 2)] = _ERROR
    sure = np.clip(sample.confidence[np.ix_(rows, cols)].astype(np.float64), 0, 1)
    shades = 255 * mpl.colormaps[_CONFIDENCE_COLORS](sure)[..., :3]
    tiles = []
    for picture in (image, known, colors, shades):
        tile = np.asarray(picture).round().astype(np.uint8)
        tile[~valid] = _WHITE
        tiles.append(tile)
    return tiles


def _page_pixels(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the sample under each pixel of the page; its shape is kept."""
    scale = _TILE_PX / max(shape)
    rows, cols = (
        np.minimum(np.arange(max(1, round(side * scale))) / scale, side - 1).astype(np.int64)
        for side in shape
    )
    return rows, cols


def _image(sample: PanelSample) -> NDArray[np.uint8]:
    """(height, width, 3) uint8, each band stretched alone."""
    bands = sample.pixels[:3] if len(sample.pixels) >= 3 else sample.pixels[[0, 0, 0]]
    colors = np.full((*sample.valid.shape, 3), _WHITE, dtype=np.uint8)
    colors[sample.valid] = np.stack([stretched(band[sample.valid]) for band in bands], axis=-1)
    return colors


def _draw_tile(
    figure: Figure, place: tuple[float, float, float, float], colors: NDArray[np.uint8]
) -> None:
    axes = figure.add_axes(place)
    axes.imshow(colors, interpolation="nearest")
    axes.set(xticks=[], yticks=[], anchor="NW")
    for spine in axes.spines.values():
        spine.set(color=FRAME, linewidth=0.6)


def _legend_handles(legend: Legend) -> list[Patch]:
    handles = [
        Patch(facecolor=entry.color, edgecolor=FRAME, label=shortened(entry.name, _LONGEST_NAME))
        for entry in legend
    ]
    grey, stripe = (f"#{value:02x}{value:02x}{value:02x}" for value in (_GREY, _STRIPE_GREY))
    return [
        *handles,
        Patch(facecolor=grey, edgecolor=stripe, hatch="////", label="no label"),
        Patch(facecolor="white", edgecolor=INK, hatch="////", label="wrong"),
    ]


def _add_confidence_bar(figure: Figure, place: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(place)
    mapped = mpl.cm.ScalarMappable(Normalize(0, 100), _CONFIDENCE_COLORS)
    bar = figure.colorbar(mapped, cax=axes, orientation="horizontal", ticks=(0, 50, 100))
    bar.outline.set(color=FRAME, linewidth=0.6)
    bar.ax.tick_params(colors=FAINT, labelsize=8.5, length=2)
    bar.ax.xaxis.set_major_formatter("{x:.0f} %")


def _add_legend(figure: Figure, handles: list[Patch], upper_left: tuple[float, float]) -> None:
    drawn = figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=upper_left,
        ncols=_IN_A_LINE,
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.8,
        handleheight=1.1,
        columnspacing=1.6,
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)  # a dollar sign does not begin a formula
