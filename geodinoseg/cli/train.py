"""The command `train`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.bar import progress_bar
from geodinoseg.cli.command import Command
from geodinoseg.cli.events import report_done
from geodinoseg.cli.options import (
    COUNT,
    SEED,
    Number,
    all_touched_option,
    allow_external_option,
    bands_option,
    class_field_option,
    device_option,
    extent_option,
    ignore_class_option,
    json_option,
    legend_option,
    nodata_option,
    overwrite_option,
    unlabelled_option,
)
from geodinoseg.cli.reports import report_training_plan
from geodinoseg.training.settings import TrainingSettings

_DEFAULTS = TrainingSettings()
_FILE = click.Path(path_type=Path)
_OF_NETWORK = ("size", "backbone", "channels", "n_features", "quantize")
_HEADS: dict[str, dict[str, bool]] = {
    "auto": {},
    "linear": {"linear_head": True},
    "fused": {"fused_head": True},
    "cnn": {"linear_head": False},
}
"""Arguments of the network."""
_RATE = Number(click.FloatRange(min=0, min_open=True), "rate")


@click.command(cls=Command)
@click.argument("scenes", nargs=-1, required=True, metavar="SCENE...")
@click.option(
    "--labels",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Polygons with a class column, or a label raster; once for all scenes, or once per scene. "
    "Or one file per class, as NAME=FILE, repeated, or a folder of them. Not needed if SCENE is a "
    "folder of image chips and label chips.",
)
@click.option("-o", "--output", required=True, type=_FILE, help="Model folder to write.")
@class_field_option
@unlabelled_option
@extent_option
@ignore_class_option
@all_touched_option
@legend_option
@bands_option("all except alpha")
@nodata_option
@click.option(
    "--size",
    type=click.Choice(["small", "base", "large"]),
    help="Size of the DINOv2 backbone. [default: base]",
)
@click.option(
    "--backbone",
    metavar="NAME|FOLDER|none",
    help="Backbone to use instead of --size: a name on the hub, a folder, or none: the fused head "
    "alone, a quick baseline.",
)
@click.option(
    "--head",
    type=click.Choice(["auto", "linear", "fused", "cnn"]),
    default="auto",
    show_default=True,
    help="Segmentation head: fused sees the bands at every pixel, linear and cnn the backbone's "
    "features alone; auto trains linear and fused, and keeps the better on validation blocks.",
)
@click.option("--channels", type=COUNT, help="Channels of the CNN head. [default: 512]")
@click.option(
    "--n-features", type=COUNT, help="Number of last layers that the head uses. [default: 1]"
)
@click.option(
    "--quantize/--no-quantize",
    default=None,
    help="Quantize the backbone to 4 bit. [default: only on a GPU]",
)
@click.option(
    "--stage",
    type=click.Choice(["head", "lora", "full"]),
    help="What to train after the head: nothing (head), LoRA, or all weights (full). The better "
    "model is kept. [default: lora; head without a backbone]",
)
@click.option(
    "--epochs",
    type=COUNT,
    default=_DEFAULTS.epochs,
    show_default=True,
    help="Epochs per stage, each with a validation; fewer if half of them, and 10 at least, bring "
    "no improvement.",
)
@click.option(
    "--head-epochs",
    type=Number(click.IntRange(min=0)),
    help="Epochs of stage one, the heads; 0 for an untrained backbone. [default: --epochs]",
)
@click.option(
    "--minutes",
    type=Number(click.FloatRange(min=0, min_open=True), "minutes"),
    help="Time limit, such as 30; a short limit allows fewer epochs.",
)
@click.option(
    "--steps-per-epoch",
    type=COUNT,
    default=_DEFAULTS.steps_per_epoch,
    show_default=True,
    help="Batches per epoch.",
)
@click.option(
    "--batch-size",
    type=COUNT,
    default=_DEFAULTS.batch_size,
    show_default=True,
    help="Crops per batch.",
)
@click.option(
    "--accumulate",
    type=COUNT,
    default=_DEFAULTS.accumulate,
    show_default=True,
    help="Split batches of stage two into N parts: less memory, the same update.",
)
@click.option(
    "--gradient-checkpointing",
    is_flag=True,
    help="Recompute activations in stage two: less memory, more time.",
)
@click.option(
    "--cached-crops",
    type=COUNT,
    default=_DEFAULTS.cached_crops,
    show_default=True,
    help="Number of crops whose features are cached and reused in stage one.",
)
@click.option(
    "--crop",
    type=Number(click.IntRange(min=14), "px"),
    help="Side of a training crop, in pixels; a multiple of the backbone's patch size (14 or 16). "
    "[default: 56 to 224, by size and resolution of the scenes]",
)
@click.option(
    "--band-projection",
    type=click.Choice(["pca", "rgb", "widen"]),
    default=_DEFAULTS.band_projection,
    show_default=True,
    help="What the backbone sees of other than three bands: principal components of the training "
    "pixels (pca), the bands that the file calls red, green and blue (rgb), or all through filters "
    "that are spread over them (widen).",
)
@click.option("--learning-rate", type=_RATE, help="Learning rate of the head. [default: 0.001]")
@click.option(
    "--backbone-learning-rate",
    type=_RATE,
    help="Learning rate of stage two. [default: 0.0005 for LoRA, 0.0001 for all weights]",
)
@click.option(
    "--validation-share",
    type=Number(click.FloatRange(0, 0.5), "fraction"),
    default=_DEFAULTS.validation_share,
    show_default=True,
    help="Fraction of the labels kept for validation, in separate blocks; 0 to 0.5.",
)
@click.option(
    "--seed",
    type=SEED,
    default=_DEFAULTS.seed,
    show_default=True,
    help="Random seed; the same seed gives the same model.",
)
@click.option("--resume", is_flag=True, help="Resume an interrupted training.")
@click.option("--tensorboard", type=_FILE, help="Folder for TensorBoard logs, such as runs/fields.")
@click.option(
    "--dry-run", is_flag=True, help="Print what would be trained and the estimated time, and stop."
)
@device_option
@allow_external_option
@overwrite_option
@json_option
def train(**options: Any) -> None:
    """Train a model on SCENE... with labels, and write it to a folder.

    \b
    Examples:
      geodinoseg train ortho.tif --labels fields.gpkg --class-field crop -o crops.model
      geodinoseg train a.tif b.tif --labels a.gpkg --labels b.gpkg --head cnn -o roofs.model
      geodinoseg train ortho.tif --labels fields.gpkg --minutes 30 -o crops.model --resume
      geodinoseg train ortho.tif --labels tin=tin.shp --labels wood=wood.gpkg -o roofs.model
      geodinoseg train exported_chips -o roofs.model --unlabelled background
    """  # noqa: D301 (click's own mark: keep these lines)
    import geodinoseg
    from geodinoseg.cli.info import describe
    from geodinoseg.labels.paths import is_folder

    if not options["labels"] and not any(map(is_folder, options["scenes"])):
        raise click.UsageError(
            "Missing option '--labels', which is optional only for folders of chips."
        )
    labels, output = options["labels"] or None, options["output"]
    scenes = [scene if is_folder(scene) else _open(scene, options) for scene in options["scenes"]]
    arguments = {
        "label_options": _label_options(options),
        "settings": _settings(options),
        "network": _network(options),
        "bands": options["bands"],
        "nodata": options["nodata"],
        "overwrite": options["overwrite"],
        "resume": options["resume"],
    }
    if options["dry_run"]:
        plan = geodinoseg.plan_training(
            scenes, labels, output, device=options["device"], **arguments
        )
        report_training_plan(plan.to_json(), json_=options["json_"])
        return
    with progress_bar("training", json=options["json_"]) as progress:
        segmentor = geodinoseg.train_model(
            scenes,
            labels,
            output,
            device=options["device"],
            tensorboard=options["tensorboard"],
            progress=progress,
            **arguments,
        )
    result = describe(output) if options["json_"] else {}
    report_done(options["json_"], [output], _summary(output, segmentor), result=result)


def _open(scene: str, options: dict[str, Any]) -> Any:
    import geodinoseg

    return geodinoseg.open_scene(
        scene,
        bands=options["bands"],
        nodata=options["nodata"],
        allow_external=options["allow_external"],
    )


def _label_options(options: dict[str, Any]) -> Any:
    from geodinoseg.labels.options import LabelOptions

    return LabelOptions(
        class_field=options["class_field"],
        unlabelled=options["unlabelled"],
        ignore_classes=options["ignore_class"],
        extent=options["extent"],
        all_touched=options["all_touched"],
        legend_file=options["legend_file"],
        allow_external=options["allow_external"],
    )


def _settings(options: dict[str, Any]) -> TrainingSettings:
    names = {field.name for field in fields(TrainingSettings)} & options.keys()
    return TrainingSettings(crop_px=options["crop"], **{name: options[name] for name in names})


def _network(options: dict[str, Any]) -> dict[str, Any]:
    """The given arguments of the network; the others keep their defaults."""
    network = {
        **_HEADS[options["head"]],
        **{name: options[name] for name in _OF_NETWORK},
    }
    return {name: value for name, value in network.items() if value is not None}


def _summary(output: Path, segmentor: Any) -> list[str]:
    names = ", ".join(segmentor.legend.names)
    scores = segmentor.scores
    lines = [f"{output}: a model of {len(segmentor.legend)} classes ({names})"]
    if scores:
        lines.append(f"mean IoU {scores['mean_iou']:.3f} on {scores['on']}")
        lines += _unjudged(segmentor)
    lines.append(f"next: geodinoseg segment SCENE --model {output} -o landcover.tif")
    return lines


def _unjudged(segmentor: Any) -> list[str]:
    """A line that names the classes of no held-out pixel, if there are any."""
    rows = segmentor.scores["confusion_matrix"]
    names = [n for n, row in zip(segmentor.legend.names, rows, strict=True) if not sum(row)]
    if not names:
        return []
    return [f"no held-out pixel of {', '.join(names)}: how well these are mapped is unknown"]
