"""The part of a report that comes from a stratified random sample."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from geodinoseg.evaluation.report.figures import add_map_figure, add_points
from geodinoseg.evaluation.report.html_charts import add_area_chart
from geodinoseg.evaluation.report.html_elements import NUMBER, add, add_class_name, add_table
from geodinoseg.evaluation.report.report_labels import add_matrix
from geodinoseg.evaluation.sampling.evaluate import SampleEvaluation, with_margin
from geodinoseg.rasters.class_raster import ClassRaster

_METHOD = (
    "Stratified estimators of Olofsson et al. (2014), Remote Sensing of Environment 148, with the "
    "map's classes as strata. ± is half a 95% interval, 1.96 standard errors; where every point of "
    "a class is right it is 0, which says that the sample is small, not that the map is perfect."
)


def add_sample_sections(
    main: ET.Element, evaluation: SampleEvaluation, raster: ClassRaster
) -> None:
    """Areas, accuracies, error matrices and the points on the map.

    Raises:
        SceneError: the map cannot be read.
    """
    add(main, "h2", "By the random sample")
    answered, drawn = int(evaluation.estimates.counts.sum()), int(evaluation.drawn.sum())
    name = Path(evaluation.points_path).name
    text = f"{answered:,} of the {drawn:,} points in {name} have a reference class."
    if answered < drawn:
        text += " The others are left out; the answered points of their class stand for them."
    add(main, "p", text, class_="lead")
    add(main, "h3", "Areas")
    add_area_chart(main, evaluation)
    add(
        main,
        "p",
        "Dot and bar: the area by the reference and its 95% interval. Stroke: the area "
        "on the map, which counts its errors, too.",
        class_="note",
    )
    _add_areas(main, evaluation)
    add(main, "h3", "Accuracy")
    _add_accuracies(main, evaluation)
    add(main, "p", _METHOD, class_="note")
    add(main, "h3", "Points, map against reference")
    add(main, "p", "Rows are the map, columns the reference.", class_="note")
    strata = evaluation.classes[: len(evaluation.drawn)]
    add_matrix(
        main,
        evaluation.estimates.counts,
        strata,
        evaluation.classes,
        corner="map \\ reference",
        label="Error matrix in points",
    )
    _add_proportions(main, evaluation)
    add(main, "h3", "Where the points lie")
    box = add_map_figure(main, raster)
    add_points(box, evaluation, raster)
    add(main, "p", "Green points are right, red ones wrong.", class_="note")


def _add_areas(main: ET.Element, evaluation: SampleEvaluation) -> None:
    estimates = evaluation.estimates
    areas = estimates.areas_m2
    head = ("class", "mapped, ha", "estimated, ha", "±, 95%", "standard error", "share of map")
    body = add_table(main, head, label="Areas")
    columns = zip(*evaluation.areas_ha(), strict=True)
    shares = areas.value / estimates.total_area_m2
    for entry, cells, share in zip(evaluation.classes, columns, shares, strict=True):
        line = add(body, "tr")
        add_class_name(line, entry.name, entry.color)
        for cell in (*cells, f"{share:.1%}"):
            add(line, "td", cell, class_=NUMBER)


def _add_accuracies(main: ET.Element, evaluation: SampleEvaluation) -> None:
    estimates = evaluation.estimates
    head = ("class", "user's accuracy", "producer's accuracy", "points")
    body = add_table(main, head, label="Accuracies")
    for index, entry in enumerate(evaluation.classes):
        line = add(body, "tr")
        add_class_name(line, entry.name, entry.color)
        for estimate in (estimates.users, estimates.producers):
            add(line, "td", with_margin(estimate, index), class_=NUMBER)
        on_map = index < len(evaluation.drawn)
        points = f"{int(estimates.counts[index].sum()):,}" if on_map else "-"
        add(line, "td", points, class_=NUMBER)
    line = add(body, "tr")
    add(line, "th", "overall", scope="row")
    add(line, "td", with_margin(estimates.overall, ()), class_="both", colspan="2")
    add(line, "td", f"{int(estimates.counts.sum()):,}", class_=NUMBER)


def _add_proportions(main: ET.Element, evaluation: SampleEvaluation) -> None:
    add(main, "h3", "Estimated shares of the area")
    proportions = evaluation.estimates.proportions
    head = ["map \\ reference", *(entry.name for entry in evaluation.classes), "total"]
    body = add_table(main, head, label="Error matrix in shares of the area")
    for index in range(len(evaluation.drawn)):
        line = add(body, "tr")
        entry = evaluation.classes[index]
        add_class_name(line, entry.name, entry.color)
        for share in (*proportions[index].tolist(), float(proportions[index].sum())):
            add(line, "td", f"{share:.4f}", class_=NUMBER)
    line = add(body, "tr")
    add(line, "th", "total", scope="row")
    for share in (*proportions.sum(axis=0).tolist(), float(proportions.sum())):
        add(line, "td", f"{share:.4f}", class_=NUMBER)
