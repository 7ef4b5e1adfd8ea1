"""The model card: what a person wants to know before trusting a model, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geodinoseg.model.segmentor import Segmentor


def model_card(segmentor: Segmentor) -> str:
    """A page on the model: classes, data, recipe, scores, limits."""
    sections = [
        "# A geodinoseg model",
        "Segments scenes into land-cover classes: `geodinoseg segment SCENE --model THIS_FOLDER "
        "-o OUT.tif`.",
        _section("Classes", _classes(segmentor)),
        _section("Input", _input(segmentor)),
        _section("Network", _facts(_network_facts(segmentor))),
        _section("Training", _facts(segmentor.training) or "Not recorded."),
        _section("Scores", _scores(segmentor) or "Not measured."),
        _section("Limits", _limits(segmentor)),
    ]
    return "\n\n".join(sections) + "\n"


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _classes(segmentor: Segmentor) -> str:
    rows = [f"| {c.class_id} | {c.name} | {c.color} |" for c in segmentor.legend]
    return "\n".join(["| id | name | colour |", "| --- | --- | --- |", *rows])


def _input(segmentor: Segmentor) -> str:
    bands = ", ".join(str(band) for band in segmentor.bands)
    resolution = (
        "unknown ground resolution"
        if segmentor.pixel_size_m is None
        else f"{segmentor.pixel_size_m:.3g} m on the ground per pixel"
    )
    return (
        f"Bands {bands} of {segmentor.statistics.dtype} scenes, {resolution}, tiles of "
        f"{segmentor.trained_tile_px} px. Scenes of another resolution are resampled on the way."
    )


def _network_facts(segmentor: Segmentor) -> dict[str, Any]:
    settings = segmentor.network.settings
    wanted = ("n_features", "quantize", "peft")
    head = ("n_block", "channels", "k_size", "activation")
    facts: dict[str, Any] = {"head": "linear" if settings["linear_head"] else "CNN"}
    if not settings["linear_head"]:
        facts |= {name: settings[name] for name in head}
    return facts | {name: settings[name] for name in wanted}


def _facts(facts: dict[str, Any]) -> str:
    return "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items())


def _scores(segmentor: Segmentor) -> str:
    return _facts(
        {
            name: f"{value:.3f}" if isinstance(value, float) else value
            for name, value in segmentor.scores.items()
        }
    )


def _limits(segmentor: Segmentor) -> str:
    return (
        "The scores hold for land like that of the training scenes: same sensor, season and "
        f"region. Whatever is none of the {len(segmentor.legend)} classes is put into one of them."
    )
