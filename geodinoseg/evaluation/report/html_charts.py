"""Charts of a report as SVG: reliability of confidence, areas with their intervals."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np

from geodinoseg.evaluation.calibration import BINS, Reliability
from geodinoseg.evaluation.report.html_elements import add
from geodinoseg.evaluation.sampling.evaluate import SampleEvaluation

_SIDE, _LEFT, _TOP, _BOTTOM = 260, 44, 12, 44
_LINE, _NAME, _PLOT = 40, 170, 470
_M2_IN_HA = 10_000


def add_reliability_chart(parent: ET.Element, reliability: Reliability) -> None:
    """Share that is right against confidence, a bar a bin; the diagonal is a map that knows."""
    width, height = _LEFT + _SIDE + 12, _TOP + _SIDE + _BOTTOM
    svg = add(
        parent,
        "svg",
        class_="chart reliability",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label="Share of pixels that are right, by the map's confidence",
    )
    for tick in range(0, 101, 20):
        x, y = _LEFT + _SIDE * tick / 100, _TOP + _SIDE * (1 - tick / 100)
        add(svg, "line", class_="grid", x1=_LEFT, x2=_LEFT + _SIDE, y1=_f(y), y2=_f(y))
        add(svg, "text", str(tick), class_="tick", x=_LEFT - 7, y=_f(y + 4), text_anchor="end")
        add(
            svg,
            "text",
            str(tick),
            class_="tick",
            x=_f(x),
            y=_TOP + _SIDE + 18,
            text_anchor="middle",
        )
    most = int(reliability.count.max())
    step = _SIDE / BINS
    for index in range(BINS):
        pixels, right = int(reliability.count[index]), float(reliability.accuracy[index])
        if not pixels:
            continue
        # Bins of few pixels are pale: they say little.
        bar = add(
            svg,
            "rect",
            class_="bar",
            x=_f(_LEFT + index * step + 1.5),
            y=_f(_TOP + _SIDE * (1 - right)),
            width=_f(step - 3),
            height=_f(_SIDE * right),
            opacity=_f(0.35 + 0.65 * math.sqrt(pixels / most)),
        )
        add(
            bar,
            "title",
            f"{pixels:,} pixels: {right:.1%} right at a mean confidence of "
            f"{reliability.confidence[index]:.1%}",
        )
    add(svg, "line", class_="diagonal", x1=_LEFT, y1=_TOP + _SIDE, x2=_LEFT + _SIDE, y2=_TOP)
    middle = _LEFT + _SIDE / 2
    add(
        svg,
        "text",
        "confidence, %",
        class_="axis",
        x=_f(middle),
        y=height - 6,
        text_anchor="middle",
    )
    add(
        svg,
        "text",
        "right, %",
        class_="axis",
        x=0,
        y=0,
        text_anchor="middle",
        transform=f"translate(13 {_TOP + _SIDE / 2:g}) rotate(-90)",
    )


def add_area_chart(parent: ET.Element, evaluation: SampleEvaluation) -> None:
    """A line a class: the estimate as a dot, its interval as a bar, the mapped area as a stroke."""
    estimates = evaluation.estimates
    areas = estimates.areas_m2
    low, high = areas.value - areas.margin, areas.value + areas.margin
    ceiling = float(max(high.max(), estimates.mapped_area_m2.max())) / _M2_IN_HA
    step = _round_step(ceiling / 4)
    most = step * math.ceil(ceiling / step - 1e-9)
    width, height = _NAME + _PLOT + 30, _LINE * len(evaluation.classes) + 52
    frame = add(parent, "div", class_="scroll")
    svg = add(
        frame,
        "svg",
        class_="chart areas",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label="Area of each class, as mapped and as estimated, with 95% intervals",
    )

    def place(area_m2: float) -> float:
        return _NAME + _PLOT * min(max(area_m2 / _M2_IN_HA / most, 0.0), 1.0)

    bottom = _LINE * len(evaluation.classes) + 8
    for tick in np.arange(round(most / step) + 1) * step:
        x = place(float(tick) * _M2_IN_HA)
        add(svg, "line", class_="grid", x1=_f(x), x2=_f(x), y1=4, y2=bottom)
        add(
            svg, "text", f"{tick:,.6g}", class_="tick", x=_f(x), y=bottom + 17, text_anchor="middle"
        )
    add(
        svg,
        "text",
        "hectares",
        class_="axis",
        x=_f(_NAME + _PLOT / 2),
        y=height - 4,
        text_anchor="middle",
    )
    for index, entry in enumerate(evaluation.classes):
        y = _LINE * (index + 0.5) + 4
        add(
            svg,
            "text",
            _shortened(entry.name),
            class_="name",
            x=_NAME - 12,
            y=_f(y + 4.5),
            text_anchor="end",
        )
        add(
            svg,
            "line",
            class_="interval",
            x1=_f(place(low[index])),
            x2=_f(place(high[index])),
            y1=_f(y),
            y2=_f(y),
            stroke=entry.color,
        )
        add(
            svg,
            "circle",
            class_="estimate",
            cx=_f(place(areas.value[index])),
            cy=_f(y),
            r=5.5,
            fill=entry.color,
        )
        if index < len(evaluation.drawn):
            x = place(float(estimates.mapped_area_m2[index]))
            add(svg, "line", class_="mapped", x1=_f(x), x2=_f(x), y1=_f(y - 12), y2=_f(y + 12))


def _round_step(least: float) -> float:
    """The next of 1, 2, 5, 10, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least * (1 - 1e-9))


def _shortened(name: str, longest: int = 22) -> str:
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"


def _f(number: float) -> str:
    """A coordinate with two decimals at most, the same on every machine."""
    return f"{number:.2f}".rstrip("0").rstrip(".")
