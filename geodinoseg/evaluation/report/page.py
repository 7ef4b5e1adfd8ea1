"""The report as a web page: one file, no scripts, nothing fetched."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from geodinoseg.evaluation.accuracy import shown
from geodinoseg.evaluation.evaluate import MapEvaluation
from geodinoseg.evaluation.report.html_elements import add, page_text
from geodinoseg.evaluation.report.report_labels import add_label_sections
from geodinoseg.evaluation.report.report_sample import add_sample_sections
from geodinoseg.evaluation.report.report_style import STYLE
from geodinoseg.evaluation.sampling.evaluate import SampleEvaluation
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.redaction import printable_name
from geodinoseg.version import __version__

# Paired with what it says, so that a reader need not look measures up.
_MEASURES = (
    ("Precision", "of what the map shows as a class, how much is that class (user's accuracy)."),
    ("Recall", "of what is that class, how much the map shows (producer's accuracy)."),
    ("F1", "the harmonic mean of the two."),
    ("IoU", "what map and reference share of a class, of all that either gives to it."),
    (
        "Boundary F",
        "the same as F1 for pixels at borders between classes, each met where the "
        "other side has such a border near (Csurka et al., BMVC 2013).",
    ),
)


def report_page(by_labels: MapEvaluation | None, by_sample: SampleEvaluation | None) -> str:
    """The text of the page; at least one of the two is given.

    Raises:
        SceneError: the map can no longer be read, for its picture.
    """
    found = next(found for found in (by_labels, by_sample) if found is not None)
    raster = open_class_raster(found.path, allow_external=found.allow_external)
    root = ET.Element("html", lang="en")
    head = add(root, "head")
    add(head, "meta", charset="utf-8")
    add(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    title = f"How right is {printable_name(raster.path)}?"
    add(head, "title", title)
    add(head, "style", STYLE)
    main = add(add(root, "body"), "main")
    add(main, "h1", title)
    size = f"{raster.width:,} x {raster.height:,} pixels, {len(raster.legend)} classes"
    add(main, "p", size, class_="lead")
    _add_cards(main, by_labels, by_sample)
    if by_labels is not None:
        add_label_sections(main, by_labels, raster)
    if by_sample is not None:
        add_sample_sections(main, by_sample, raster)
    _add_footer(main, has_labels=by_labels is not None)
    return page_text(root)


def _add_cards(
    main: ET.Element, by_labels: MapEvaluation | None, by_sample: SampleEvaluation | None
) -> None:
    cards = add(main, "dl", class_="cards")
    if by_sample is not None:
        overall = by_sample.estimates.overall
        margin = f"± {shown(float(overall.margin))}"
        points = int(by_sample.estimates.counts.sum())
        _add_card(cards, "Overall accuracy by the sample", shown(float(overall.value)), margin)
        _add_card(cards, "Points answered", f"{points:,}", f"of {int(by_sample.drawn.sum()):,}")
    if by_labels is None:
        return
    accuracy = by_labels.accuracy
    _add_card(cards, "Overall accuracy by the labels", shown(accuracy.overall))
    _add_card(cards, "Mean IoU", shown(accuracy.mean_iou))
    _add_card(
        cards,
        "Mean boundary F-score",
        shown(by_labels.boundary.mean_f_score),
        f"within {by_labels.tolerance}",
    )
    if by_labels.reliability is not None:
        error = by_labels.reliability.ece
        _add_card(cards, "Calibration error", shown(error))


def _add_card(cards: ET.Element, name: str, value: str, aside: str = "") -> None:
    card = add(cards, "div", class_="card")
    add(card, "dt", name)
    shown_value = add(card, "dd", value)
    if aside:
        add(shown_value, "small", aside)


def _add_footer(main: ET.Element, *, has_labels: bool) -> None:
    footer = add(main, "footer")
    if has_labels:
        for name, meaning in _MEASURES:
            line = add(footer, "p")
            add(line, "strong", name).tail = f": {meaning}"
        add(
            footer,
            "p",
            "Scores hold only for labels that were not used in training, and that do "
            "not lie beside those that were. A dash stands where there is nothing to measure.",
        )
    add(footer, "p", f"Made by geodinoseg {__version__}.")
