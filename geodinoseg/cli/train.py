"""The command `train`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.console import progress_bar, report_done, report_facts
from geodinoseg.cli.options import (
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
from geodinoseg.training.settings import TrainingSettings

_DEFAULTS = TrainingSettings()
_FILE = click.Path(path_type=Path)
_OF_NETWORK = ("size", "backbone", "channels", "n_features", "quantize")
_RATE = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("scenes", nargs=-1, required=True, metavar="SCENE...")
@click.option(
    "--labels",
    multiple=True,
    help="Polygons with a class column, or a label raster; once for all scenes, or once for each. "
    "Or one file per class: NAME=FILE each, or a folder of them. Not needed if SCENE is a folder "
    "of image chips and label chips.",
)
@click.option("-o", "--output", required=True, type=_FILE, help="Model folder to write.")
@class_field_option
@unlabelled_option
@extent_option
@ignore_class_option
@legend_option
@bands_option
@nodata_option
@click.option(
    "--size",
    type=click.Choice(["small", "base", "large"]),
    help="Published DINOv2 backbone. [default: base]",
)
@click.option("--backbone", help="Backbone instead of --size: a name on the hub, or a folder.")
@click.option(
    "--head",
    type=click.Choice(["linear", "cnn"]),
    help="Segmentation head; cnn gives finer edges and takes longer. [default: linear]",
)
@click.option(
    "--channels", type=click.IntRange(min=1), help="Channels of the CNN head. [default: 512]"
)
@click.option(
    "--n-features", type=click.IntRange(min=1), help="Last layers that the head uses. [default: 1]"
)
@click.option(
    "--quantize/--no-quantize",
    default=None,
    help="Quantize the backbone to 4 bit. [default: if there is a GPU]",
)
@click.option(
    "--stage",
    type=click.Choice(["head", "lora", "full"]),
    default=_DEFAULTS.stage,
    show_default=True,
    help="What to train after the head: nothing, LoRA, or every weight. The better one is kept.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=_DEFAULTS.epochs,
    show_default=True,
    help="Epochs of each stage; each ends with a validation.",
)
@click.option(
    "--head-epochs",
    type=click.IntRange(min=0),
    help="Epochs of stage one, the head; 0 for an untrained backbone. [default: --epochs]",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Time limit, such as 30; fewer epochs are trained if it is short.",
)
@click.option(
    "--steps-per-epoch",
    type=click.IntRange(min=1),
    default=_DEFAULTS.steps_per_epoch,
    show_default=True,
    help="Batches per epoch.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=_DEFAULTS.batch_size,
    show_default=True,
    help="Crops per batch.",
)
@click.option(
    "--accumulate",
    type=click.IntRange(min=1),
    default=_DEFAULTS.accumulate,
    show_default=True,
    help="Split batches of stage two into so many parts: less memory, the same update.",
)
@click.option(
    "--gradient-checkpointing",
    is_flag=True,
    help="Recompute activations in stage two: less memory, more time.",
)
@click.option(
    "--cached-crops",
    type=click.IntRange(min=1),
    default=_DEFAULTS.cached_crops,
    show_default=True,
    help="Crops whose features stage one reuses.",
)
@click.option(
    "--crop",
    type=click.IntRange(min=14),
    default=_DEFAULTS.crop_px,
    show_default=True,
    help="Side of a training crop, px; a multiple of the backbone's patch size (14 or 16).",
)
@click.option("--learning-rate", type=_RATE, help="Learning rate of the head. [default: 0.001]")
@click.option(
    "--backbone-learning-rate",
    type=_RATE,
    help="Learning rate of stage two. [default: 0.0005 for LoRA, 0.0001 for a whole backbone]",
)
@click.option(
    "--validation-share",
    type=click.FloatRange(0, 0.5),
    default=_DEFAULTS.validation_share,
    show_default=True,
    help="Fraction of the labels kept for validation, in separate blocks.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=_DEFAULTS.seed,
    show_default=True,
    help="Random seed; the same seed gives the same model.",
)
@click.option("--resume", is_flag=True, help="Resume an interrupted training.")
@click.option("--tensorboard", type=_FILE, help="Folder for TensorBoard logs, such as runs/fields.")
@click.option("--dry-run", is_flag=True, help="Print what would be trained, and stop.")
@device_option
@allow_external_option
@overwrite_option
@json_option
def train(**options: Any) -> None:
    """Train a model on SCENE... with labels, and write its folder.

    \b
    Examples:
      geodinoseg train ortho.tif --labels fields.gpkg --class-field crop -o crops.model
      geodinoseg train a.tif b.tif --labels a.gpkg --labels b.gpkg --head cnn -o roofs.model
      geodinoseg train ortho.tif --labels fields.gpkg --minutes 30 -o crops.model --resume
      geodinoseg train ortho.tif --labels tin=tin.shp --labels wood=wood.gpkg -o roofs.model
      geodinoseg train exported_chips -o roofs.model --unlabelled background
    """  # noqa: D301 (click's own mark: keep these lines)
    import geodinoseg
    from geodinoseg.labels.paths import is_folder

    if not options["labels"] and not any(map(is_folder, options["scenes"])):
        raise click.UsageError("Missing option '--labels'; a folder of chips alone needs none.")
    labels, output = options["labels"] or None, options["output"]
    scenes = [scene if is_folder(scene) else _opened(scene, options) for scene in options["scenes"]]
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
        plan = geodinoseg.plan_training(scenes, labels, output, **arguments)
        report_facts(plan.to_json(), json_=options["json_"])
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
    report_done(options["json_"], [output], _lines(output, segmentor))


def _opened(scene: str, options: dict[str, Any]) -> Any:
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
        legend_file=options["legend_file"],
        allow_external=options["allow_external"],
    )


def _settings(options: dict[str, Any]) -> TrainingSettings:
    names = {field.name for field in fields(TrainingSettings)} & options.keys()
    return TrainingSettings(crop_px=options["crop"], **{name: options[name] for name in names})


def _network(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the network that were given; what was not keeps its default."""
    head = options["head"]
    network = {
        "linear_head": None if head is None else head == "linear",
        **{name: options[name] for name in _OF_NETWORK},
    }
    return {name: value for name, value in network.items() if value is not None}


def _lines(output: Path, segmentor: Any) -> list[str]:
    names = ", ".join(segmentor.legend.names)
    scores = segmentor.scores
    lines = [f"{output}: a model of {len(segmentor.legend)} classes ({names})"]
    if scores:
        lines.append(f"mean IoU {scores['mean_iou']:.3f} on {scores['on']}")
    lines.append(f"next: geodinoseg segment SCENE --model {output} -o landcover.tif")
    return lines
