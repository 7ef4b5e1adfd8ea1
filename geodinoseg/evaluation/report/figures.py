"""Pictures and charts of a report as plain values, which the template draws."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from geodinoseg.evaluation.agreement import LONGEST_PX, Agreement
from geodinoseg.evaluation.boundaries import pixel_step_m
from geodinoseg.evaluation.calibration import BINS, Reliability
from geodinoseg.evaluation.sampling.evaluate import SampleEvaluation
from geodinoseg.geobox import GeoBox
from geodinoseg.plots.preview import class_colors, decimated
from geodinoseg.plots.small_map import read_small_map
from geodinoseg.rasters.class_raster import ClassRaster

# Blue and red are distinct to colour-blind readers too; pixels not compared stay pale.
_RIGHT, _WRONG, _NOT_COMPARED = (143, 184, 222), (203, 24, 29), (240, 242, 244)
_LONGEST_KEY = 16
_M2_IN_HA = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A raster picture that is part of the page."""

    source: str
    """A PNG as a `data:` URL."""
    aspect: float
    """Width over height on the ground."""
    key: tuple[tuple[str, str], ...]
    """Names and their colours, such as #1b9e4b."""


def map_picture(raster: ClassRaster) -> Picture:
    """The map in its colours."""
    small = decimated(raster.geobox, longest_px=LONGEST_PX)
    colors = class_colors(
        read_small_map(raster, small).class_ids, raster.legend, nodata=raster.nodata
    )
    key = [(entry.name, entry.color) for entry in raster.legend.classes[:_LONGEST_KEY]]
    further = len(raster.legend) - len(key)
    if further:
        key.append((f"and {further} more", "#ffffff"))
    return Picture(source=_png_url(colors), aspect=_aspect(raster.geobox), key=tuple(key))


def agreement_picture(agreement: Agreement) -> Picture:
    """Where the map has the label's class: blue = correct, the redder the more is incorrect."""
    keys = (("correct", _RIGHT), ("incorrect", _WRONG), ("not compared", _NOT_COMPARED))
    return Picture(
        source=_png_url(agreement_colors(agreement)),
        aspect=_aspect(agreement.geobox),
        key=tuple((name, "#{:02x}{:02x}{:02x}".format(*color)) for name, color in keys),
    )


def agreement_colors(agreement: Agreement) -> NDArray[np.uint8]:
    """(height, width, 3) uint8."""
    compared = agreement.compared > 0
    fraction = np.zeros(compared.shape, dtype=np.float64)
    np.divide(agreement.wrong, agreement.compared, out=fraction, where=compared)
    # The root lifts small fractions: on a large map a pixel covers thousands.
    blend = np.sqrt(fraction)[..., None]
    colors = np.rint((1 - blend) * np.array(_RIGHT) + blend * np.array(_WRONG))
    colors[~compared] = _NOT_COMPARED
    return np.asarray(colors, dtype=np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointMark:
    """A point of a sample on the picture of the map."""

    across: float
    """0 at the left edge of the map to 1 at the right one."""
    down: float
    """0 at its upper edge to 1 at the lower one."""
    right: bool
    """Whether the map has the reference class there."""


def point_marks(evaluation: SampleEvaluation, raster: ClassRaster) -> list[PointMark]:
    """The answered points, those that are right first, so that wrong ones are drawn over them."""
    return [
        PointMark(across=(col + 0.5) / raster.width, down=(row + 0.5) / raster.height, right=right)
        for right in (True, False)
        for row, col in evaluation.pixels[evaluation.right == right].tolist()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBar:
    """A bin of confidence that holds pixels."""

    start: float
    """Lowest confidence of the bin, 0 to 1."""
    accuracy: float
    """Fraction of its pixels that are right."""
    opacity: float
    """0.35 to 1; pale where the bin holds few pixels."""
    pixels: int
    confidence: float
    """Mean of its pixels."""


def reliability_bars(reliability: Reliability) -> list[ReliabilityBar]:
    """The bins that hold pixels, from low confidence to high."""
    most = int(reliability.count.max())
    return [
        ReliabilityBar(
            start=index / BINS,
            accuracy=float(reliability.accuracy[index]),
            opacity=0.35 + 0.65 * math.sqrt(pixels / most),
            pixels=pixels,
            confidence=float(reliability.confidence[index]),
        )
        for index, pixels in enumerate(reliability.count.tolist())
        if pixels
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaLine:
    """The areas of a class along an axis: 0 at its start to 1 at its end."""

    name: str
    color: str
    low: float
    """Lower end of the 95% interval."""
    high: float
    estimate: float
    mapped: float | None
    """None where the class is not on the map."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaChart:
    """Areas of all classes on one axis."""

    ticks: tuple[tuple[float, str], ...]
    """Positions along the axis, and hectares."""
    lines: tuple[AreaLine, ...]


def area_chart(evaluation: SampleEvaluation) -> AreaChart:
    """Estimated areas with their intervals, and mapped areas."""
    areas = evaluation.estimates.areas_m2.times(1 / _M2_IN_HA)
    mapped = evaluation.estimates.mapped_area_m2 / _M2_IN_HA
    high = areas.value + areas.margin
    longest = float(max(high.max(), mapped.max()))
    step = _round_step(longest / 4)
    end = step * math.ceil(longest / step - 1e-9)

    def along(hectares: NDArray[np.float64]) -> list[float]:
        positions: list[float] = np.clip(hectares / end, 0.0, 1.0).tolist()
        return positions

    estimated = zip(*map(along, (areas.value - areas.margin, high, areas.value)), strict=True)
    on_map = [*along(mapped), *[None] * (len(evaluation.classes) - len(mapped))]
    ticks = np.arange(round(end / step) + 1) * step
    return AreaChart(
        ticks=tuple((tick / end, f"{tick:,.6g}") for tick in ticks.tolist()),
        lines=tuple(
            AreaLine(
                name=entry.name,
                color=entry.color,
                low=lowest,
                high=highest,
                estimate=estimate,
                mapped=position,
            )
            for entry, (lowest, highest, estimate), position in zip(
                evaluation.classes, estimated, on_map, strict=True
            )
        ),
    )


def _round_step(least: float) -> float:
    """The next of 1, 2, 5, 10, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least * (1 - 1e-9))


def _png_url(pixels: NDArray[np.uint8]) -> str:
    """Pixels (height, width, 3 or 4) as a `data:` URL."""
    buffer = io.BytesIO()
    # Without it the file names the library's version: the same pixels give the same bytes.
    unnamed: dict[str, Any] = {"Software": None}
    imsave(buffer, pixels, format="png", metadata=unnamed)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _aspect(geobox: GeoBox) -> float:
    """Width over height on the ground, whatever the number of pixels."""
    across, down = np.linalg.norm(pixel_step_m(geobox), axis=0)
    return float(geobox.width * across / (geobox.height * down))
