"""Pictures for people: a scene beside its map, and how a training went. PNG files by matplotlib.

Figures are built by hand, without pyplot, so that nothing of a caller's matplotlib is touched.
"""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from geodinoseg.class_rasters.class_raster import ClassRaster, open_class_raster
from geodinoseg.outputs import check_output, written_beside
from geodinoseg.pictures.map_page import DPI, FAINT, FRAME, INK, PANEL_IN, MapPage, save_figure
from geodinoseg.pictures.preview import (
    class_colors,
    class_shares,
    decimated,
    scene_colors,
    small_class_ids,
)
from geodinoseg.scene import scene_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from geodinoseg.outputs import PathLike
    from geodinoseg.scene import Scene, ScenePath

_TRAINING_COLOR, _VALIDATION_COLOR = "#4477aa", "#ee7733"
_FEW_EPOCHS = 10


def side_by_side(
    scene: ScenePath | Scene,
    class_raster: PathLike | ClassRaster,
    output_png: PathLike,
    *,
    bands: Sequence[int] | None = None,
    title: str | None = None,
    caption: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Draw a scene on the left, its map on the right, with legend, areas and scale bar.

    Scene and map are read small, so that their size does not matter; rows run as in the files.

    Args:
        scene: the scene, on the map's grid or anywhere that it overlaps.
        class_raster: the map, or its path.
        output_png: the picture.
        bands: of the scene, one or three; see `preview.scene_colors`.
        title: above all; the map's file name where not given.
        caption: below all, such as the attribution of the imagery.
        overwrite: whether a picture that is there may be replaced.

    Returns:
        The path of the picture.

    Raises:
        SceneError: scene or map cannot be read, or they do not meet.
        OutputError: the picture cannot be written there.
    """
    raster = (
        class_raster if isinstance(class_raster, ClassRaster) else open_class_raster(class_raster)
    )
    target = check_output(
        output_png, overwrite=overwrite, suffixes=(".png",), inputs=[scene_path(scene), raster.path]
    )
    small = decimated(raster.geobox, longest_px=round(PANEL_IN * DPI))
    class_ids = small_class_ids(raster, small)
    page = MapPage(small, classes=len(raster.legend), caption=caption)
    page.add_title(title or raster.path.name)
    page.add_panel(0, "Scene", scene_colors(scene, raster, small, bands=bands))
    page.add_panel(1, "Map", class_colors(class_ids, raster.legend, nodata=raster.nodata))
    page.add_legend(raster.legend, class_shares(class_ids, raster, small))
    page.add_scale_bar(small.pixel_size_m)
    page.add_caption()
    with written_beside(target) as path:
        page.save(path)
    return target


def training_curves(history: PathLike | Sequence[Mapping[str, Any]], output_png: PathLike) -> Path:
    """Draw loss and validation mean IoU by epoch, with the best epoch marked.

    Args:
        history: one row an epoch, or a CSV file of them, with the columns epoch, train_loss,
            val_loss and mean_iou. A missing number may be NaN or empty.
        output_png: the picture; replaced where it is there.

    Returns:
        The path of the picture.

    Raises:
        OutputError: the picture cannot be written there.
    """
    columns = _columns(history)
    figure = Figure(figsize=(9, 3.6), dpi=DPI, facecolor="white", layout="constrained")
    loss_axes, iou_axes = figure.subplots(1, 2)
    _plot(loss_axes, columns, "train_loss", color=_TRAINING_COLOR, label="training")
    _plot(loss_axes, columns, "val_loss", color=_VALIDATION_COLOR, label="validation")
    loss_axes.legend(frameon=False, labelcolor=INK)
    _plot(iou_axes, columns, "mean_iou", color=_VALIDATION_COLOR)
    _mark_best(iou_axes, loss_axes, columns)
    _dress(loss_axes, "Loss")
    _dress(iou_axes, "Mean IoU, validation")
    target = check_output(output_png, overwrite=True, suffixes=(".png",))
    with written_beside(target) as path:
        save_figure(figure, path)
    return target


def _columns(history: PathLike | Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    if isinstance(history, str | os.PathLike):
        with Path(history).open(newline="", encoding="utf-8") as handle:
            history = list(csv.DictReader(handle))
    names = ("epoch", "train_loss", "val_loss", "mean_iou")
    return {name: [_number(row.get(name)) for row in history] for name in names}


def _number(value: Any) -> float:
    return math.nan if value in {None, ""} else float(value)


def _plot(axes: Axes, columns: dict[str, list[float]], name: str, **style: Any) -> None:
    # A line of one epoch is invisible without its point.
    marker = "o" if len(columns["epoch"]) <= _FEW_EPOCHS else ""
    axes.plot(columns["epoch"], columns[name], marker=marker, markersize=4, **style)


def _mark_best(iou_axes: Axes, loss_axes: Axes, columns: dict[str, list[float]]) -> None:
    """The epoch of the best score, the first of equals, as a line through both panels."""
    pairs = zip(columns["mean_iou"], columns["epoch"], strict=True)
    known = [(score, -epoch) for score, epoch in pairs if not math.isnan(score)]
    if not known:
        iou_axes.set_yticks([])
        _note(iou_axes, "no validation")
        return
    score, minus_epoch = max(known)
    for axes in (iou_axes, loss_axes):
        axes.axvline(-minus_epoch, color=FAINT, linewidth=0.8, linestyle=":")
    iou_axes.plot(-minus_epoch, score, "o", color=INK, markersize=6)
    _note(iou_axes, f"best: {score:.3f} in epoch {-minus_epoch:g}")


def _note(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="right", color=INK, fontsize=10)


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel("epoch", color=FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(colors=FAINT)
    axes.grid(visible=True, color=FRAME, linewidth=0.5, alpha=0.6)
    for side, spine in axes.spines.items():
        spine.set(color=FRAME, visible=side in {"left", "bottom"})
