"""Reports of how right a map is: a web page, JSON or a table, by the ending of the file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from geodinoseg.errors import OutputError
from geodinoseg.evaluation.evaluate import MapEvaluation
from geodinoseg.evaluation.report.facts import (
    COLUMNS,
    map_facts,
    map_rows,
    sample_facts,
    sample_rows,
)
from geodinoseg.evaluation.report.page import report_page
from geodinoseg.evaluation.sampling.evaluate import SampleEvaluation
from geodinoseg.files.atomic import check_output, written_beside

FilePath = str | os.PathLike[str]
SUFFIXES = (".html", ".json", ".csv")
"""Endings of the formats."""


def check_reports(
    outputs: Sequence[FilePath], *, overwrite: bool, inputs: Iterable[FilePath] = ()
) -> None:
    """Say before any work whether reports can be written."""
    sources = list(inputs)
    seen = set()
    for output in outputs:
        target = check_output(output, overwrite=overwrite, suffixes=SUFFIXES, inputs=sources)
        if target.resolve() in seen:
            raise OutputError(f"{output}: two reports cannot be one file; give another name.")
        seen.add(target.resolve())


def write_report(
    output: FilePath,
    by_labels: MapEvaluation | None,
    by_sample: SampleEvaluation | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write what was found of a map; the same findings give the same bytes.

    Args:
        output: `.html`, one page with tables and pictures that needs no network; `.json`; `.csv`,
            one row a measure.
        by_labels: what `evaluate_map` found.
        by_sample: what `evaluate_sample` found of the same map.
        overwrite: whether a file that is there may be replaced.

    Returns:
        The path of the report.

    Raises:
        OutputError: the file cannot be written there.
        SceneError: the map can no longer be read, for its picture.
        ValueError: there is nothing to report, or the two are of different maps.
    """
    if by_labels is None and by_sample is None:
        raise ValueError("a report needs an evaluation by labels, by a sample, or both.")
    if by_labels and by_sample and not _are_one(by_labels.path, by_sample.path):
        raise ValueError(f"{by_labels.path} and {by_sample.path} are two maps; write two reports.")
    target = check_output(output, overwrite=overwrite, suffixes=SUFFIXES)
    write = {".html": report_page, ".json": _json_text, ".csv": _csv_text}[target.suffix.lower()]
    text = write(by_labels, by_sample)
    with written_beside(target) as path:
        path.write_text(text, "utf-8", newline="")
    return target


def _are_one(first: Path | str, second: Path | str) -> bool:
    if isinstance(first, Path) and isinstance(second, Path):
        return first.resolve() == second.resolve()
    return first == second


def _json_text(by_labels: MapEvaluation | None, by_sample: SampleEvaluation | None) -> str:
    """The facts of the labels on top; those of a sample under `sample`."""
    facts: dict[str, Any] = {} if by_labels is None else map_facts(by_labels)
    if by_sample is not None:
        facts["sample"] = sample_facts(by_sample)
    return json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _csv_text(by_labels: MapEvaluation | None, by_sample: SampleEvaluation | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([] if by_labels is None else map_rows(by_labels))
    writer.writerows([] if by_sample is None else sample_rows(by_sample))
    return text.getvalue()
