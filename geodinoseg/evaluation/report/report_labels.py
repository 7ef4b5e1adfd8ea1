"""The part of a report that comes from labels."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodinoseg.evaluation.accuracy import ratio, shown
from geodinoseg.evaluation.calibration import Reliability
from geodinoseg.evaluation.compare import RegionEvaluation
from geodinoseg.evaluation.evaluate import MapEvaluation
from geodinoseg.evaluation.report.figures import add_agreement_figure, add_map_figure
from geodinoseg.evaluation.report.html_charts import add_reliability_chart
from geodinoseg.evaluation.report.html_elements import (
    NUMBER,
    add,
    add_class_name,
    add_table,
    percent,
)
from geodinoseg.legend import LegendClass
from geodinoseg.rasters.class_raster import ClassRaster


def add_label_sections(main: ET.Element, evaluation: MapEvaluation, raster: ClassRaster) -> None:
    """Pictures, classes, confusion matrix, reliability and regions.

    Raises:
        SceneError: the map cannot be read.
    """
    add(main, "h2", "Against the labels")
    name = _without_folders(evaluation.labels)
    add(
        main,
        "p",
        f"{evaluation.accuracy.pixels:,} pixels of the map have a label in {name} and "
        f"were compared with it, one by one.",
        class_="lead",
    )
    figures = add(main, "div", class_="figures")
    add_map_figure(figures, raster)
    add_agreement_figure(figures, evaluation.agreement)
    _add_classes(main, evaluation)
    add(main, "h3", "Confusion matrix")
    add(
        main,
        "p",
        "Rows are the labels, columns the map. A cell gives pixels, and their share of "
        "the row; right pixels lie on the diagonal.",
        class_="note",
    )
    classes = evaluation.legend.classes
    matrix = evaluation.accuracy.matrix
    add_matrix(main, matrix, classes, classes, corner="label \\ map", label="Confusion matrix")
    if evaluation.reliability is not None:
        _add_reliability(main, evaluation.reliability)
    if evaluation.regions:
        _add_regions(main, evaluation.regions)


def add_matrix(
    parent: ET.Element,
    counts: NDArray[np.int64],
    rows: Sequence[LegendClass],
    columns: Sequence[LegendClass],
    *,
    corner: str,
    label: str,
) -> None:
    """A matrix of counts as a heat map: blue on the diagonal, red beside it, by share of the row.

    Args:
        parent: to put it in.
        counts: (rows, columns).
        rows: their classes.
        columns: their classes; the first are those of the rows.
        corner: what rows and columns are.
        label: what the table is.
    """
    body = add_table(parent, [corner, *(entry.name for entry in columns), "total"], label=label)
    parent[-1].set("class", "scroll matrix")
    shares = ratio(counts, np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape))
    for index, entry in enumerate(rows):
        line = add(body, "tr")
        add_class_name(line, entry.name, entry.color)
        for column, count in enumerate(counts[index].tolist()):
            share = float(np.nan_to_num(shares[index, column]))
            cell = add(line, "td", f"{count:,}", style=_heat(share, right=index == column))
            if count:
                add(cell, "small", f"{share:.1%}")
        add(line, "td", f"{int(counts[index].sum()):,}", class_=NUMBER)


def _without_folders(labels: str) -> str:
    """The labels as a reader elsewhere knows them: of `wood=/data/a.gpkg` wood=a.gpkg."""
    short = []
    for label in labels.split(", "):
        name, equals, path = label.partition("|")[0].rpartition("=")
        short.append(f"{name}{equals}{Path(path).name}")
    return ", ".join(short)


def _add_classes(main: ET.Element, evaluation: MapEvaluation) -> None:
    add(main, "h3", "Classes")
    accuracy, boundary = evaluation.accuracy, evaluation.boundary
    head = ("class", "IoU", "precision", "recall", "F1", "boundary F", "pixels")
    body = add_table(main, head, label="Measures of each class")
    columns = (accuracy.precision, accuracy.recall, accuracy.f1, boundary.f_score)
    pixels = accuracy.matrix.sum(axis=1)
    for index, entry in enumerate(evaluation.legend):
        line = add(body, "tr")
        add_class_name(line, entry.name, entry.color)
        _add_bar(line, float(accuracy.iou[index]))
        for values in columns:
            add(line, "td", shown(float(values[index])), class_=NUMBER)
        add(line, "td", f"{int(pixels[index]):,}", class_=NUMBER)


def _add_reliability(main: ET.Element, reliability: Reliability) -> None:
    add(main, "h3", "Does the map know when it is right?")
    beside = add(main, "div", class_="beside")
    add_reliability_chart(beside, reliability)
    error = reliability.ece
    text = add(beside, "div")
    add(
        text,
        "p",
        f"Of pixels that the map gives 80% confidence, eight in ten should be right: "
        f"bars that end at the dashed line. Here confidence and accuracy differ by {error:.1%} in "
        f"the mean (expected calibration error, ten bins)."
        if math.isfinite(error)
        else "No compared pixel has a confidence.",
    )
    add(
        text,
        "p",
        "Bars below the line: the map is surer than it should be. Above: it is better "
        "than it says. Pale bars stand for few pixels.",
        class_="note",
    )


def _add_regions(main: ET.Element, regions: Sequence[RegionEvaluation]) -> None:
    add(main, "h3", "Regions")
    head = ("region", "overall accuracy", "mean IoU", "boundary F", "pixels")
    body = add_table(main, head, label="Measures of each region")
    for region in regions:
        line = add(body, "tr")
        add(line, "th", region.name, scope="row")
        _add_bar(line, region.accuracy.overall)
        for value in (region.accuracy.mean_iou, region.boundary.mean_f_score):
            add(line, "td", shown(value), class_=NUMBER)
        add(line, "td", f"{region.accuracy.pixels:,}", class_=NUMBER)


def _add_bar(line: ET.Element, value: float) -> None:
    cell = add(line, "td", class_=NUMBER)
    if math.isfinite(value):
        add(add(cell, "span", class_="track"), "span", style=f"width:{percent(value)}")
    add(cell, "span", shown(value))


def _heat(share: float, *, right: bool) -> str:
    """Colours of a cell; ink turns white where it is dark."""
    hue = (33, 102, 172) if right else (178, 24, 43)
    blend = share**0.6
    rgb = ",".join(str(round(255 + (channel - 255) * blend)) for channel in hue)
    ink = "#fff" if blend > 0.6 else "inherit"
    return f"background:rgb({rgb});color:{ink}"
