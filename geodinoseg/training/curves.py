"""Curves of loss and mean IoU, stage by stage."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from geodinoseg.files.atomic import PathLike, atomic_file, check_output
from geodinoseg.plots.layout import (
    DPI,
    FAINT,
    FRAME,
    INK,
    save_figure,
)

_COLUMNS = ("epoch", "train_loss", "val_loss", "mean_iou")
_TRAINING_COLOR, _VALIDATION_COLOR = "#4477aa", "#ee7733"
_FEW_EPOCHS = 10
_HEADROOM = 0.1
"""Of the height of the axes, for the names of stages."""


def training_curves(history: PathLike | Sequence[Mapping[str, Any]], output_png: PathLike) -> Path:
    """Draw loss and validation mean IoU by epoch, with the last of each stage marked.

    If rows name their stage, stages are drawn one after the other on different backgrounds.

    Args:
        history: one row per epoch, or a CSV file of them, with the columns epoch, train_loss,
            val_loss and mean_iou, and optionally stage. A missing number may be NaN or empty.
            Epochs may continue from stage to stage, or restart.
        output_png: the picture to write or replace.
    """
    stages = _stages(history)
    figure = Figure(figsize=(9, 3.6), dpi=DPI, facecolor="white", layout="constrained")
    loss_axes, iou_axes = figure.subplots(1, 2)
    _plot(loss_axes, stages, "train_loss", _TRAINING_COLOR, "training")
    _plot(loss_axes, stages, "val_loss", _VALIDATION_COLOR, "validation")
    _plot(iou_axes, stages, "mean_iou", _VALIDATION_COLOR, "validation")
    _mark_ends(iou_axes, stages)
    for axes, title in ((loss_axes, "Loss"), (iou_axes, "Mean IoU, validation")):
        _dress(axes, title)
        if len(stages) > 1:
            _show_stages(axes, stages)
    loss_axes.legend(frameon=False, labelcolor=INK)
    target = check_output(output_png, overwrite=True, suffixes=(".png",))
    with atomic_file(target) as path:
        save_figure(figure, path)
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """The epochs of one stage."""

    name: str
    """Empty if rows name none."""
    at: tuple[float, ...]
    """The position of each epoch on the axis."""
    columns: dict[str, list[float]]
    """By name, a number per epoch; NaN if missing."""


def _stages(history: PathLike | Sequence[Mapping[str, Any]]) -> list[_Stage]:
    """Runs of rows of one stage."""
    if isinstance(history, str | os.PathLike):
        with Path(history).open(newline="", encoding="utf-8") as handle:
            history = list(csv.DictReader(handle))
    stages: list[_Stage] = []
    last = 0.0
    for name, grouped in groupby(history, key=lambda row: str(row.get("stage") or "")):
        rows = list(grouped)
        columns = {key: [_number(row.get(key)) for row in rows] for key in _COLUMNS}
        # Epochs that restart continue where the previous stage ended.
        shift = last if stages and columns["epoch"][0] <= last else 0.0
        at = tuple(epoch + shift for epoch in columns["epoch"])
        stages.append(_Stage(name=name, at=at, columns=columns))
        last = at[-1]
    return stages or [_Stage(name="", at=(), columns={key: [] for key in _COLUMNS})]


def _number(value: Any) -> float:
    return math.nan if value in {None, ""} else float(value)


def _plot(axes: Axes, stages: Sequence[_Stage], name: str, color: str, label: str) -> None:
    """A line for each stage, with one entry in the legend."""
    for stage in stages:
        # A line of one epoch is invisible without a marker.
        few = sum(len(other.at) for other in stages) <= _FEW_EPOCHS or len(stage.at) == 1
        axes.plot(
            stage.at,
            stage.columns[name],
            marker="o" if few else "",
            markersize=4,
            color=color,
            label=label if stage is stages[0] else None,
        )


def _mark_ends(axes: Axes, stages: Sequence[_Stage]) -> None:
    """The last epoch of each stage, whose weights count, with its score."""
    found = False
    for stage in stages:
        scores = [
            (at, score)
            for at, score in zip(stage.at, stage.columns["mean_iou"], strict=True)
            if not math.isnan(score)
        ]
        if scores:
            found = True
            axes.plot(*scores[-1], "o", color=INK, markersize=6)
            text = f"{scores[-1][1]:.3f}"
            axes.annotate(text, scores[-1], (-8, -14), textcoords="offset points", color=INK)
    if not found:
        axes.set_yticks([])
        _note(axes, "no validation")


def _show_stages(axes: Axes, stages: Sequence[_Stage]) -> None:
    """Every other stage on a grey background, with its name at the top."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + _HEADROOM * (top - bottom))
    low, high = axes.get_xlim()
    starts = [low, *((a.at[-1] + b.at[0]) / 2 for a, b in pairwise(stages)), high]
    for number, (stage, (left, right)) in enumerate(zip(stages, pairwise(starts), strict=True)):
        if number % 2:
            axes.axvspan(left, right, color=FRAME, alpha=0.25, linewidth=0, zorder=0)
        axes.annotate(
            stage.name,
            (left, 1),
            (5, -12),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            color=FAINT,
            fontsize=9,
            parse_math=False,
        )
    axes.set_xlim(low, high)


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
