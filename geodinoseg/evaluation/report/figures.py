"""Pictures of a report: the map, where it is right, and the points of a sample on it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from geodinoseg.evaluation.agreement import LONGEST_PX, Agreement
from geodinoseg.evaluation.boundaries import pixel_step_m
from geodinoseg.evaluation.report.html_elements import add, add_picture
from geodinoseg.evaluation.sampling.evaluate import SampleEvaluation
from geodinoseg.geobox import GeoBox
from geodinoseg.legend import LegendClass
from geodinoseg.plots.preview import class_colors, decimated, small_class_ids
from geodinoseg.rasters.class_raster import ClassRaster

# Blue and red differ to colour-blind readers too; what was not compared stays pale.
_RIGHT, _WRONG, _UNKNOWN = (143, 184, 222), (203, 24, 29), (240, 242, 244)
_LONGEST_KEY = 16


def add_map_figure(parent: ET.Element, raster: ClassRaster) -> ET.Element:
    """The map in its colours, with a key; returns the picture's box.

    Raises:
        SceneError: the map cannot be read.
    """
    figure = add(parent, "figure")
    small = decimated(raster.geobox, longest_px=LONGEST_PX)
    colors = class_colors(small_class_ids(raster, small), raster.legend, nodata=raster.nodata)
    box = add_picture(figure, colors, alt="The map", aspect=_aspect(raster.geobox))
    caption = add(figure, "figcaption")
    _add_key(caption, _shown_classes(raster.legend.classes))
    return box


def add_agreement_figure(parent: ET.Element, agreement: Agreement) -> None:
    """Where the map has the label's class: blue where right, the redder the more is wrong."""
    figure = add(parent, "figure")
    colors = agreement_colors(agreement)
    alt = "Where the map is right and where it is wrong"
    add_picture(figure, colors, alt=alt, aspect=_aspect(agreement.geobox))
    caption = add(figure, "figcaption")
    keys = (("right", _RIGHT), ("wrong", _WRONG), ("not compared", _UNKNOWN))
    _add_key(caption, [(name, "#{:02x}{:02x}{:02x}".format(*color)) for name, color in keys])
    if agreement.compared.max(initial=0) > 1:
        add(
            caption,
            "div",
            "A pixel of the picture stands for several of the map: the redder, the "
            "more of them are wrong.",
        )


def agreement_colors(agreement: Agreement) -> NDArray[np.uint8]:
    """(height, width, 3) uint8."""
    compared = agreement.compared > 0
    share = np.zeros(compared.shape, dtype=np.float64)
    np.divide(agreement.wrong, agreement.compared, out=share, where=compared)
    # The root lifts small shares: on a large map a pixel stands for thousands.
    blend = np.sqrt(share)[..., None]
    colors = np.rint((1 - blend) * np.array(_RIGHT) + blend * np.array(_WRONG))
    colors[~compared] = _UNKNOWN
    return np.asarray(colors, dtype=np.uint8)


def add_points(box: ET.Element, evaluation: SampleEvaluation, raster: ClassRaster) -> None:
    """The answered points over the picture of the map; those that are wrong lie on top."""
    width, height = 100 * _aspect(raster.geobox), 100.0
    box.set("class", "picture pale")
    svg = add(
        box,
        "svg",
        viewBox=f"0 0 {width:.2f} {height:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label="Points of the sample",
    )
    order = np.argsort(~evaluation.right, kind="stable")
    for index in order.tolist():
        row, col = evaluation.pixels[index].tolist()
        add(
            svg,
            "circle",
            class_="right" if evaluation.right[index] else "wrong",
            cx=f"{width * (col + 0.5) / raster.width:.2f}",
            cy=f"{height * (row + 0.5) / raster.height:.2f}",
            r="0.9",
            stroke="#fff",
            stroke_width="0.25",
        )


def _shown_classes(classes: Sequence[LegendClass]) -> list[tuple[str, str]]:
    keys = [(entry.name, entry.color) for entry in classes[:_LONGEST_KEY]]
    further = len(classes) - len(keys)
    return keys + ([(f"and {further} more", "#ffffff")] if further else [])


def _add_key(caption: ET.Element, entries: Iterable[tuple[str, str]]) -> None:
    key = add(caption, "span", class_="key")
    for name, color in entries:
        entry = add(key, "span")
        add(entry, "span", class_="swatch", style=f"background:{color}")
        add(entry, "span", name)


def _aspect(geobox: GeoBox) -> float:
    """Width to height on the ground, whatever the number of pixels."""
    across, down = np.linalg.norm(pixel_step_m(geobox), axis=0)
    return float(geobox.width * across / (geobox.height * down))
