"""The model card: classes, data, recipe, scores and limits of a model, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geodinoseg.model.parameters import head_name
from geodinoseg.model.segmentor import Segmentor

_HEADS = {"linear": "linear", "cnn": "CNN", "fused": "fused"}


def model_card(segmentor: Segmentor) -> str:
    """The text of the model card."""
    sections = [
        "# A geodinoseg model",
        "Segments scenes into land-cover classes: `geodinoseg segment SCENE --model THIS_FOLDER "
        "-o OUT.tif`.",
        _section("Classes", _classes(segmentor)),
        _section("Input", _input(segmentor)),
        _section("Network", _facts(_network_facts(segmentor))),
        _section("Training", _training(segmentor) or "Not recorded."),
        _section("Scores", _scores(segmentor) or "Not measured."),
        _section("Confidence", _confidence(segmentor)),
        _section("Limits", _limits(segmentor)),
    ]
    return "\n\n".join(sections) + "\n"


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _classes(segmentor: Segmentor) -> str:
    rows = [f"| {c.class_id} | {c.name} | {c.color} |" for c in segmentor.legend]
    return "\n".join(["| id | name | colour |", "| --- | --- | --- |", *rows])


def _input(segmentor: Segmentor) -> str:
    names = segmentor.band_names or ("",) * len(segmentor.bands)
    described = zip(segmentor.bands, names, strict=True)
    bands = ", ".join(f"{band} ({name})" if name else f"{band}" for band, name in described)
    resolution = (
        "unknown ground resolution"
        if segmentor.pixel_size_m is None
        else f"{segmentor.pixel_size_m:.3g} m on the ground per pixel"
    )
    units = segmentor.statistics.units
    stored = (
        f" Bands have {units}; the values of scenes with others are converted." if units else ""
    )
    return (
        f"Bands {bands} of {segmentor.statistics.dtype} scenes, {resolution}, tiles of "
        f"{segmentor.trained_tile_px} px. Tiles of scenes of another resolution are resampled."
        f"{stored}"
    )


def _network_facts(segmentor: Segmentor) -> dict[str, Any]:
    network = segmentor.network
    settings = network.settings
    if not network.has_backbone:
        return {"backbone": "none", "head": _HEADS[head_name(settings)]}
    named = "in the folder `backbone`" if network.source_is_folder else network.source
    facts: dict[str, Any] = {
        "backbone": f"{named}, patches of {network.patch_px} px",
        "head": _HEADS[head_name(settings)],
    }
    head = () if head_name(settings) != "cnn" else ("n_block", "channels", "k_size", "activation")
    wanted = (*head, "n_features", "quantize", "peft")
    return facts | {name: settings[name] for name in wanted}


def _training(segmentor: Segmentor) -> str:
    """Which stage was kept, in a sentence; then everything that is recorded."""
    facts = dict(segmentor.training)
    sentence = facts.pop("outcome", None)
    listed = _facts({n: v for n, v in facts.items() if n != "fingerprint"})
    parts = [f"{sentence[:1].upper()}{sentence[1:]}."] if sentence else []
    if facts.get("finished") is False:
        parts.insert(0, "**Unfinished**: its training was interrupted; resume it with `--resume`.")
    return "\n\n".join([*parts, listed])


def _confidence(segmentor: Segmentor) -> str:
    """How well confidence matches accuracy."""
    found = segmentor.scores.get("calibration")
    if not isinstance(found, Mapping):
        return "Not calibrated: predictions of 80% confidence need not be correct in 80% of cases."
    before, after = (
        _in_words(found.get(side, {}).get("expected_calibration_error"))
        for side in ("before", "after")
    )
    return (
        f"Logits are divided by a temperature of {segmentor.temperature:.3g}, fitted on validation "
        f"pixels. Expected calibration error there: {before} before, {after} after "
        f"(`reliability.png`). It holds for similar land."
    )


def _scores(segmentor: Segmentor) -> str:
    """Single values as a list, values by class as a table with the confusion matrix."""
    classes = len(segmentor.legend)
    scores = dict(segmentor.scores)
    matrix = scores.pop("confusion_matrix", None)
    scores.pop("calibration", None)
    by_class = {n: v for n, v in scores.items() if isinstance(v, list) and len(v) == classes}
    listed = _facts({name: value for name, value in scores.items() if name not in by_class})
    if not by_class:
        return listed
    columns: dict[str, Sequence[Any]] = dict(by_class)
    if matrix:
        # Rows are the reference, columns the prediction.
        transposed = zip(*matrix, strict=True)
        columns |= {f"as {n}": v for n, v in zip(segmentor.legend.names, transposed, strict=True)}
    head = ["class", *columns]
    rows = [
        [name, *(_in_words(values[index]) for values in columns.values())]
        for index, name in enumerate(segmentor.legend.names)
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
    text = "The columns `as ...` count the pixels of each class by their predicted class."
    return "\n\n".join([listed, table, text] if matrix else [listed, table])


def _facts(facts: Mapping[str, Any]) -> str:
    return "\n".join(
        f"- {str(name).replace('_', ' ')}: {_in_words(value)}" for name, value in facts.items()
    )


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not given"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _limits(segmentor: Segmentor) -> str:
    return (
        "The scores hold for land like that of the training scenes: same sensor, season and "
        f"region. What to keep was chosen by them, so they are slightly optimistic; assess an "
        f"accuracy to publish with an independent sample. Land of none of the "
        f"{len(segmentor.legend)} classes is mapped as one of them."
    )
