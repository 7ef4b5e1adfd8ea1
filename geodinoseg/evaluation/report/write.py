"""Reports on the accuracy of a map: a web page, JSON or CSV, by the suffix of the file."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodinoseg.errors import OutputError
from geodinoseg.evaluation.accuracy import json_number
from geodinoseg.evaluation.calibration import Reliability
from geodinoseg.evaluation.compare import RegionEvaluation
from geodinoseg.evaluation.evaluate import MapEvaluation
from geodinoseg.evaluation.report.page import report_page
from geodinoseg.evaluation.sampling.areas import Estimate
from geodinoseg.evaluation.sampling.evaluate import SampleEvaluation
from geodinoseg.files.arguments import output_path
from geodinoseg.files.atomic import PathLike, atomic_file, check_output
from geodinoseg.legend import Legend
from geodinoseg.progress import log_step
from geodinoseg.redaction import redact_name, redact_path

_log = logging.getLogger(__name__)

_SUFFIXES = (".html", ".json", ".csv")
# Columns of the CSV; low and high are the ends of the 95% interval.
_COLUMNS = (
    *("source", "region", "class_id", "class", "measure", "unit"),
    *("value", "standard_error", "low", "high"),
)
_Row = tuple[Any, ...]


def check_reports(
    outputs: Sequence[PathLike], *, overwrite: bool, inputs: Iterable[PathLike] = ()
) -> None:
    """Check before any work whether reports can be written."""
    sources = list(inputs)
    seen = set()
    for output in outputs:
        target = check_output(output, overwrite=overwrite, suffixes=_SUFFIXES, inputs=sources)
        if target.resolve() in seen:
            raise OutputError(f"{output}: two reports cannot be one file; give another name.")
        seen.add(target.resolve())


def write_report(
    output: PathLike,
    by_labels: MapEvaluation | None,
    by_sample: SampleEvaluation | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a report on the accuracy of a map; the same evaluations give the same bytes.

    Args:
        output: `.html`, one page with tables and pictures that needs no network; `.json`; `.csv`,
            one row per measure.
        by_labels: the result of `evaluate_map`.
        by_sample: the result of `evaluate_sample`, of the same map.
        overwrite: whether an existing file may be replaced.

    Returns:
        The path of the report.

    Raises:
        OutputError: the file cannot be written there.
        SceneError: the map cannot be read for its picture.
        ValueError: no evaluation is given, or the two are of different maps.
    """
    output_path(output)
    if by_labels is None and by_sample is None:
        raise ValueError("a report needs an evaluation by labels, by a sample, or both.")
    if by_labels and by_sample and not _is_same(by_labels.path, by_sample.path):
        raise ValueError(
            f"{by_labels.path} and {by_sample.path} are different maps; write two reports."
        )
    target = check_output(output, overwrite=overwrite, suffixes=_SUFFIXES)
    log_step(_log, "writing the report %s.", target)
    write = {".html": report_page, ".json": _json_text, ".csv": _csv_text}[target.suffix.lower()]
    text = write(by_labels, by_sample)
    with atomic_file(target) as path:
        path.write_text(text, "utf-8", newline="")
    return target


def report_facts(
    by_labels: MapEvaluation | None, by_sample: SampleEvaluation | None
) -> dict[str, Any]:
    """The content of a `.json` report, as plain values.

    The evaluation with labels is at the top level, that with a sample under `sample`. Undefined
    measures are None.
    """
    facts: dict[str, Any] = {} if by_labels is None else _map_facts(by_labels)
    if by_sample is not None:
        facts["sample"] = _sample_facts(by_sample)
    return facts


def _is_same(first: Path | str, second: Path | str) -> bool:
    if isinstance(first, Path) and isinstance(second, Path):
        return first.resolve() == second.resolve()
    return first == second


def _json_text(by_labels: MapEvaluation | None, by_sample: SampleEvaluation | None) -> str:
    facts = report_facts(by_labels, by_sample)
    return json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _csv_text(by_labels: MapEvaluation | None, by_sample: SampleEvaluation | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([] if by_labels is None else _map_rows(by_labels))
    writer.writerows([] if by_sample is None else _sample_rows(by_sample))
    return text.getvalue()


def _map_facts(evaluation: MapEvaluation) -> dict[str, Any]:
    """An evaluation by labels for JSON; None where a measure is undefined."""
    return {
        "class_raster": redact_name(evaluation.path),
        "labels": redact_path(evaluation.labels),
        "classes": evaluation.legend.to_json(),
        "boundary_tolerance": str(evaluation.tolerance),
        **_region_facts(evaluation.whole, evaluation.legend),
        "regions": [
            {"name": region.name, **_region_facts(region, evaluation.legend)}
            for region in evaluation.regions
        ],
    }


def _sample_facts(evaluation: SampleEvaluation) -> dict[str, Any]:
    """Estimates from a sample for JSON; None where the sample gives none."""
    estimates = evaluation.estimates
    return {
        "class_raster": redact_name(evaluation.path),
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


def _map_rows(evaluation: MapEvaluation) -> Iterator[_Row]:
    """Measures of the whole map, then of each region."""
    for region in (evaluation.whole, *evaluation.regions):
        yield from _region_rows(region, evaluation.legend)


def _sample_rows(evaluation: SampleEvaluation) -> Iterator[_Row]:
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


def _region_facts(region: RegionEvaluation, legend: Legend) -> dict[str, Any]:
    boundary, accuracy = region.boundary, region.accuracy
    facts = accuracy.to_json() | {
        "mean_iou_classes": _names_of(legend, accuracy.in_reference),
        "mean_boundary_f_score_classes": _names_of(legend, boundary.reference > 0),
        "not_in_labels": accuracy.not_in_reference(legend),
        "boundary_f_score": _plain_list(boundary.f_score),
        "boundary_precision": _plain_list(boundary.precision),
        "boundary_recall": _plain_list(boundary.recall),
        "mean_boundary_f_score": json_number(boundary.mean_f_score),
    }
    if region.reliability is not None:
        facts["reliability"] = _reliability_facts(region.reliability)
    return facts


def _names_of(legend: Legend, chosen: NDArray[np.bool_]) -> list[str]:
    return [name for name, is_chosen in zip(legend.names, chosen, strict=True) if is_chosen]


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


def _region_rows(region: RegionEvaluation, legend: Legend) -> Iterator[_Row]:
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
) -> _Row:
    return ("labels", region, *who, measure, unit, value, None, None, None)


def _estimate_row(
    who: tuple[Any, str], measure: str, unit: str, estimate: Estimate, index: Any
) -> _Row:
    value, margin = float(estimate.value[index]), float(estimate.margin[index])
    numbers = (value, float(estimate.standard_error[index]), value - margin, value + margin)
    return ("sample", "all", *who, measure, unit, *map(json_number, numbers))


def _plain_list(values: NDArray[np.float64]) -> Any:
    """A list for (n,), a number for ()."""
    flat = [json_number(value) for value in np.ravel(values)]
    return flat if np.ndim(values) else flat[0]
