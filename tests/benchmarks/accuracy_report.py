"""Tables and figures from the results of `accuracy.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accuracy_rows import COMMONEST, FOREST, STAGES, UNET, UNET_LONGER
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WAYS = (COMMONEST, FOREST, UNET, UNET_LONGER, *STAGES.values())
"""In the order of the tables."""
_COLORS = {
    FOREST: "#228833",
    UNET: "#aa3377",
    STAGES["head"]: "#66ccee",
    STAGES["lora"]: "#4477aa",
    STAGES["full"]: "#ee6677",
}
_DPI = 150


def tables(values: dict[str, Any]) -> str:
    """All results as Markdown."""
    sections = [_dataset_section(name, values) for name in _datasets(values)]
    sections += [_growth_section(values), _calibration_section(values), _time_section(values)]
    return "\n\n".join(section for section in sections if section) + "\n"


def draw(values: dict[str, Any], folder: Path) -> None:
    """`label_efficiency.png` and `calibration.png`, where there are results for them."""
    growth = _growth(values)
    if len(growth) > 1:
        _save(_growth_figure(growth), folder / "label_efficiency.png")
    calibrations = _calibrations(values)
    if calibrations:
        _save(_calibration_figure(calibrations), folder / "calibration.png")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _datasets(values: dict[str, Any]) -> list[str]:
    """In one order, whichever was measured first."""
    return [name for name in ("banepa", "lataseno", "deadwood") if name in values["datasets"]]


def _dataset_section(name: str, values: dict[str, Any]) -> str:
    facts, pieces = values["datasets"][name], values["pieces"]
    head = ["", "mean IoU", *(f"IoU {c}" for c in facts["classes"]), "weights", "CPU, min"]
    rows = [_row(way, pieces[f"{name}/{way}"]) for way in WAYS if f"{name}/{way}" in pieces]
    return f"### {facts['title']}\n\n{facts['about']}\n\n{markdown(head, rows)}"


def _row(way: str, piece: dict[str, Any]) -> list[str]:
    # No pixel of the class in the map and none in the labels: not 0, but nothing.
    ious = ["-" if value is None else f"{value:.3f}" for value in piece["iou"]]
    weights = f"{piece['parameters'] / 1e6:.1f} M" if "parameters" in piece else "-"
    minutes = f"{piece['cpu_s'] / 60:.1f}" if "cpu_s" in piece else "-"
    steps = f", {piece['steps']} steps" if "steps" in piece else ""
    return [way + steps, f"**{piece['mean_iou']:.3f}**", *ious, weights, minutes]


def _growth(values: dict[str, Any]) -> dict[float, dict[str, dict[str, Any]]]:
    """Pieces by share of the polygons and by way."""
    found: dict[float, dict[str, dict[str, Any]]] = {}
    for key, piece in values["pieces"].items():
        where, _, way = key.rpartition("/")
        if where.startswith("growth/"):
            found.setdefault(float(where.removeprefix("growth/")), {})[way] = piece
    ways = set().union(*found.values()) if found else set()
    whole = {way: values["pieces"].get(f"banepa/{way}") for way in ways}
    if found and all(whole.values()):
        found[1.0] = whole
    return dict(sorted(found.items()))


def _growth_section(values: dict[str, Any]) -> str:
    growth = _growth(values)
    if not growth:
        return ""
    polygons = values["polygons"]
    head = ["", *(f"{share:.0%} ({polygons[str(share)]} roofs)" for share in growth)]
    rows = [
        [way, *(f"{ways[way]['mean_iou']:.3f}" if way in ways else "-" for ways in growth.values())]
        for way in WAYS
        if any(way in ways for ways in growth.values())
    ]
    return f"### Banepa: mean IoU by the share of training polygons\n\n{markdown(head, rows)}"


def _calibrations(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of head + LoRA, by dataset."""
    keys = {name: f"{name}/{STAGES['lora']}" for name in _datasets(values)}
    pieces = values["pieces"]
    return {name: pieces[key]["calibration"] for name, key in keys.items() if key in pieces}


def _calibration_section(values: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{piece['temperature']:.2f}",
            *(f"{piece[when]['ece']:.3f}" for when in ("before", "after")),
        ]
        for name, piece in _calibrations(values).items()
    ]
    head = ["test part", "temperature", "calibration error without it", "with it"]
    return f"### Calibration\n\n{markdown(head, rows)}" if rows else ""


def _time_section(values: dict[str, Any]) -> str:
    rows = []
    for key, piece in values["pieces"].items():
        if key.startswith("time/"):
            cached, through = piece["cached"], piece["through"]
            rows.append(
                [
                    f"{key.removeprefix('time/')}, {piece['steps']} steps",
                    *(
                        f"{way[kind]:.0f}"
                        for kind in ("cpu_s", "wall_s")
                        for way in (cached, through)
                    ),
                    *(f"{through[kind] / cached[kind]:.1f}" for kind in ("cpu_s", "wall_s")),
                ]
            )
    head = [
        "head",
        "CPU s, cached",
        "CPU s, through the backbone",
        "s, cached",
        "s, through the backbone",
        "CPU ratio",
        "ratio",
    ]
    return f"### Time to train a head\n\n{markdown(head, rows)}" if rows else ""


def _growth_figure(growth: dict[float, dict[str, dict[str, Any]]]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for way, color in _COLORS.items():
        points = [(share, ways[way]["mean_iou"]) for share, ways in growth.items() if way in ways]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=way)
    axes.set_xscale("log")
    axes.set_xticks(list(growth), [f"{share:.0%}" for share in growth])
    axes.minorticks_off()
    axes.set_xlabel("share of the training polygons")
    axes.set_ylabel("mean IoU on the test part")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _calibration_figure(calibrations: dict[str, dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(4 * len(calibrations), 4), layout="constrained")
    panels = figure.subplots(1, len(calibrations), squeeze=False)[0]
    for axes, (name, piece) in zip(panels, calibrations.items(), strict=True):
        _reliability(axes, piece)
        axes.set_title(f"{name}, T = {piece['temperature']:.2f}")
    return figure


def _reliability(axes: Axes, piece: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for when, color in (("before", "#ee7733"), ("after", "#4477aa")):
        bins = piece[when]
        # A bin of a few pixels says nothing: leave it out of the line, not of the error.
        few = 0.001 * sum(bins["pixels"])
        points = [
            (said, right)
            for said, right, pixels in zip(
                bins["confidence"], bins["right"], bins["pixels"], strict=True
            )
            if pixels >= few
        ]
        label = f"{when}: error {bins['ece']:.3f}"
        axes.plot(*zip(*points, strict=True), "o-", color=color, markersize=4, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of pixels that are right")
    axes.legend(frameon=False, loc="upper left")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
