"""An evaluation as plain values: JSON facts, and a tidy table of one row a measure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.evaluation.accuracy import json_number
from geodinoseg.evaluation.calibration import Reliability
from geodinoseg.evaluation.compare import RegionEvaluation
from geodinoseg.evaluation.evaluate import MapEvaluation
from geodinoseg.evaluation.sampling.areas import Estimate
from geodinoseg.evaluation.sampling.evaluate import SampleEvaluation
from geodinoseg.legend import Legend
from geodinoseg.redaction import printable, printable_name

COLUMNS = (
    "source",
    "region",
    "class_id",
    "class",
    "measure",
    "unit",
    "value",
    "standard_error",
    "low",
    "high",
)
"""Of the tidy table; low and high are the ends of the 95% interval."""
Row = tuple[Any, ...]


def map_facts(evaluation: MapEvaluation) -> dict[str, Any]:
    """A comparison with labels as JSON holds it; None where a measure is undefined."""
    return {
        "class_raster": printable_name(evaluation.path),
        "labels": printable(evaluation.labels),
        "classes": evaluation.legend.to_json(),
        "boundary_tolerance": str(evaluation.tolerance),
        **_region_facts(evaluation.whole),
        "regions": [
            {"name": region.name, **_region_facts(region)} for region in evaluation.regions
        ],
    }


def sample_facts(evaluation: SampleEvaluation) -> dict[str, Any]:
    """Estimates from a sample as JSON holds them; None where the sample says nothing."""
    estimates = evaluation.estimates
    return {
        "class_raster": printable_name(evaluation.path),
        "points": evaluation.points_path,
        "classes": [
            {"class_id": entry.class_id, "name": entry.name, "color": entry.color}
            for entry in evaluation.classes
        ],
        "counts": estimates.counts.tolist(),
        "proportions": estimates.proportions.tolist(),
        "drawn": evaluation.drawn.tolist(),
        "unanswered": evaluation.unanswered.tolist(),
        "mapped_area_m2": estimates.mapped_area_m2.tolist(),
        "overall_accuracy": _estimate_facts(estimates.overall),
        "users_accuracy": _estimate_facts(estimates.users),
        "producers_accuracy": _estimate_facts(estimates.producers),
        "area_m2": _estimate_facts(estimates.areas_m2),
    }


def map_rows(evaluation: MapEvaluation) -> Iterator[Row]:
    """The measures of the whole map and of each region, `all` first."""
    for region in (evaluation.whole, *evaluation.regions):
        yield from _region_rows(region, evaluation.legend)


def sample_rows(evaluation: SampleEvaluation) -> Iterator[Row]:
    """The estimates with their standard errors and intervals."""
    estimates = evaluation.estimates
    yield _estimate_row(("", ""), "overall_accuracy", "share", estimates.overall, ())
    measures = (
        ("users_accuracy", "share", estimates.users),
        ("producers_accuracy", "share", estimates.producers),
        ("area", "m2", estimates.areas_m2),
    )
    for index, entry in enumerate(evaluation.classes):
        who = (entry.class_id, entry.name)
        if index < len(evaluation.drawn):
            area = json_number(float(estimates.mapped_area_m2[index]))
            yield ("sample", "all", *who, "mapped_area", "m2", area, None, None, None)
            count = int(estimates.counts[index].sum())
            yield ("sample", "all", *who, "points", "points", count, None, None, None)
        for measure, unit, estimate in measures:
            yield _estimate_row(who, measure, unit, estimate, index)


def _region_facts(region: RegionEvaluation) -> dict[str, Any]:
    boundary = region.boundary
    facts = region.accuracy.to_json() | {
        "boundary_f_score": _plain_list(boundary.f_score),
        "boundary_precision": _plain_list(boundary.precision),
        "boundary_recall": _plain_list(boundary.recall),
        "mean_boundary_f_score": json_number(boundary.mean_f_score),
    }
    if region.reliability is not None:
        facts["reliability"] = _reliability_facts(region.reliability)
    return facts


def _reliability_facts(reliability: Reliability) -> dict[str, Any]:
    return {
        "expected_calibration_error": json_number(reliability.ece),
        "pixels": reliability.count.tolist(),
        "confidence": _plain_list(reliability.confidence),
        "accuracy": _plain_list(reliability.accuracy),
    }


def _estimate_facts(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": _plain_list(estimate.value),
        "standard_error": _plain_list(estimate.standard_error),
        "low": _plain_list(estimate.value - estimate.margin),
        "high": _plain_list(estimate.value + estimate.margin),
    }


def _region_rows(region: RegionEvaluation, legend: Legend) -> Iterator[Row]:
    accuracy, boundary = region.accuracy, region.boundary
    whole = {
        "overall_accuracy": accuracy.overall,
        "mean_iou": accuracy.mean_iou,
        "mean_boundary_f_score": boundary.mean_f_score,
    }
    if region.reliability is not None:
        whole["expected_calibration_error"] = region.reliability.ece
    for measure, value in whole.items():
        yield _label_row(region.name, ("", ""), measure, json_number(value))
    measures = {
        "precision": accuracy.precision,
        "recall": accuracy.recall,
        "f1": accuracy.f1,
        "iou": accuracy.iou,
        "boundary_f_score": boundary.f_score,
    }
    reference, mapped = accuracy.matrix.sum(axis=1), accuracy.matrix.sum(axis=0)
    for index, entry in enumerate(legend):
        who = (entry.class_id, entry.name)
        for measure, values in measures.items():
            yield _label_row(region.name, who, measure, json_number(values[index]))
        for measure, pixels in (("reference_pixels", reference), ("mapped_pixels", mapped)):
            yield _label_row(region.name, who, measure, int(pixels[index]), unit="pixels")


def _label_row(
    region: str, who: tuple[Any, str], measure: str, value: float | None, *, unit: str = "share"
) -> Row:
    return ("labels", region, *who, measure, unit, value, None, None, None)


def _estimate_row(
    who: tuple[Any, str], measure: str, unit: str, estimate: Estimate, index: Any
) -> Row:
    value, margin = float(estimate.value[index]), float(estimate.margin[index])
    numbers = (value, float(estimate.standard_error[index]), value - margin, value + margin)
    return ("sample", "all", *who, measure, unit, *map(json_number, numbers))


def _plain_list(values: NDArray[np.float64]) -> Any:
    """Nested as the array is: a number for ()."""
    flat = [json_number(value) for value in np.ravel(values)]
    return flat if np.ndim(values) else flat[0]
