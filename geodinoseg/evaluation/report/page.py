"""The report as a web page: one file without scripts or external resources.

The page itself is `report.html.j2`; here are the values that it shows. The template escapes all
text, so that no name can become markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from geodinoseg.evaluation.accuracy import format_measure, ratio
from geodinoseg.evaluation.evaluate import MapEvaluation
from geodinoseg.evaluation.report.figures import (
    agreement_picture,
    area_chart,
    map_picture,
    point_marks,
    reliability_bars,
)
from geodinoseg.evaluation.sampling.evaluate import SampleEvaluation, with_margin
from geodinoseg.legend import LegendClass
from geodinoseg.rasters.class_raster import ClassRaster
from geodinoseg.redaction import redact_name
from geodinoseg.version import __version__

_DIAGONAL, _ERRORS = (33, 102, 172), (178, 24, 43)


def report_page(by_labels: MapEvaluation | None, by_sample: SampleEvaluation | None) -> str:
    """The HTML of the page; at least one of the evaluations is given."""
    raster = next(found.raster for found in (by_labels, by_sample) if found is not None)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            name=redact_name(raster.path),
            raster=raster,
            map=map_picture(raster),
            labels=None if by_labels is None else _label_facts(by_labels),
            sample=None if by_sample is None else _sample_facts(by_sample, raster),
            version=__version__,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "measure": format_measure,
        "count": lambda number: f"{int(number):,}",
        "percent": lambda fraction: f"{fraction:.1%}",
        "px": _coordinate,
    }
    return environment


def _label_facts(found: MapEvaluation) -> dict[str, Any]:
    """What the template shows of an evaluation by labels."""
    accuracy = found.accuracy
    measures = (accuracy.iou, accuracy.precision, accuracy.recall, accuracy.f1)
    columns = np.stack([*measures, found.boundary.f_score], axis=1).tolist()
    pixels = accuracy.matrix.sum(axis=1).tolist()
    return {
        "found": found,
        "name": _without_folders(found.labels),
        "agreement": agreement_picture(found.agreement),
        "is_summed": found.agreement.compared.max(initial=0) > 1,
        "classes": [line for line in zip(found.legend, columns, pixels, strict=True) if line[-1]],
        "others": accuracy.not_in_reference(found.legend),
        "matrix": _matrix_rows(found.legend.classes, accuracy.matrix),
        "bars": reliability_bars(found.reliability) if found.reliability else [],
    }


def _sample_facts(found: SampleEvaluation, raster: ClassRaster) -> dict[str, Any]:
    """What the template shows of an evaluation by a random sample."""
    estimates, classes = found.estimates, found.classes
    strata = classes[: len(found.drawn)]
    fractions = (estimates.areas_m2.value / estimates.total_area_m2).tolist()
    points = estimates.counts.sum(axis=1).tolist()
    totals = np.column_stack([estimates.proportions, estimates.proportions.sum(axis=1)])
    return {
        "found": found,
        "name": Path(found.points_path).name,
        "answered": sum(points),
        "drawn": int(found.drawn.sum()),
        "chart": area_chart(found),
        "areas": list(zip(classes, zip(*found.areas_ha(), strict=True), fractions, strict=True)),
        "accuracies": [
            (
                entry,
                with_margin(estimates.users, index),
                with_margin(estimates.producers, index),
                points[index] if index < len(points) else None,
            )
            for index, entry in enumerate(classes)
        ],
        "overall": with_margin(estimates.overall, ()),
        "matrix": _matrix_rows(strata, estimates.counts),
        "proportions": list(zip(strata, totals.tolist(), strict=True)),
        "totals": totals.sum(axis=0).tolist(),
        "points": point_marks(found, raster),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A cell of a matrix of counts."""

    count: int
    fraction: float
    """Of the row; 0 where the row is empty."""
    color: str
    """Blue on the diagonal, red elsewhere; the darker, the larger the fraction."""
    is_dark: bool
    """Whether its text must be white."""


def _matrix_rows(
    rows: Sequence[LegendClass], counts: NDArray[np.int64]
) -> list[tuple[LegendClass, list[_Cell]]]:
    """The class and the cells of each row of counts, (rows, columns)."""
    sums = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
    fractions = np.nan_to_num(ratio(counts, sums)).tolist()
    return [
        (entry, [_cell(*values, is_right=row == col) for col, values in enumerate(cells)])
        for row, (entry, cells) in enumerate(
            zip(rows, map(zip, counts.tolist(), fractions), strict=True)
        )
    ]


def _cell(count: int, fraction: float, *, is_right: bool) -> _Cell:
    blend = fraction**0.6
    hue = _DIAGONAL if is_right else _ERRORS
    rgb = ",".join(str(round(255 + (value - 255) * blend)) for value in hue)
    return _Cell(count=count, fraction=fraction, color=f"rgb({rgb})", is_dark=blend > 0.6)


def _without_folders(labels: str) -> str:
    """The labels without the folders of this machine: wood=a.gpkg for `wood=/data/a.gpkg`."""
    short = []
    for label in labels.split(", "):
        name, equals, path = label.partition("|")[0].rpartition("=")
        short.append(f"{name}{equals}{Path(path).name}")
    return ", ".join(short)


def _coordinate(number: float) -> str:
    """Two decimals at most, the same on every machine."""
    return f"{number:.2f}".rstrip("0").rstrip(".")
