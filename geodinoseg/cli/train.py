"""The command `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geodinoseg.cli.console import progress_bar, report_done
from geodinoseg.cli.options import (
    allow_external_option,
    bands_option,
    class_field_option,
    device_option,
    ignore_class_option,
    json_option,
    overwrite_option,
    unlabelled_option,
)

_FILE = click.Path(path_type=Path)
_RATE = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("scenes", nargs=-1, required=True, metavar="SCENE...")
@click.option(
    "--labels",
    multiple=True,
    required=True,
    help="Polygons with a class column, or a label raster; once for all scenes, or once for each.",
)
@click.option("-o", "--output", required=True, type=_FILE, help="Model folder to write.")
@class_field_option
@unlabelled_option
@ignore_class_option
@bands_option
@click.option(
    "--size",
    type=click.Choice(["small", "base", "large"]),
    default="base",
    show_default=True,
    help="Published DINOv2 backbone.",
)
@click.option("--backbone", help="In place of --size: a name on the hub, or a folder.")
@click.option(
    "--head",
    type=click.Choice(["linear", "cnn"]),
    default="linear",
    show_default=True,
    help="cnn draws finer edges and takes longer.",
)
@click.option(
    "--channels", type=click.IntRange(min=1), help="Channels of the CNN head. [default: 512]"
)
@click.option(
    "--n-features", type=click.IntRange(min=1), help="Last layers that the head sees. [default: 1]"
)
@click.option(
    "--quantize/--no-quantize",
    default=None,
    help="Hold the backbone in 4 bit. [default: where there is a GPU]",
)
@click.option(
    "--stage",
    type=click.Choice(["head", "lora", "full"]),
    default="lora",
    show_default=True,
    help="What is trained: the head, head and LoRA, or every weight.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Rounds; each ends with a validation.",
)
@click.option(
    "--steps-per-epoch",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Batches of an epoch.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Crops of a batch.",
)
@click.option(
    "--crop",
    type=click.IntRange(min=14),
    default=224,
    show_default=True,
    help="Side of a training crop, px; a multiple of the backbone's patch (14 or 16).",
)
@click.option("--learning-rate", type=_RATE, help="Of the head. [default: 0.001]")
@click.option(
    "--backbone-learning-rate", type=_RATE, help="Of LoRA or the backbone. [default: 0.0001]"
)
@click.option(
    "--validation-share",
    type=click.FloatRange(0, 0.5),
    default=0.2,
    show_default=True,
    help="Share of the labels kept for validation, in blocks apart.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The same seed gives the same model.",
)
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
    """  # noqa: D301 (click's own mark: keep these lines)
    from geodinoseg.cli.checks import check_labels, check_model_output
    from geodinoseg.scene import open_scene

    # Before torch is loaded: a mistyped path is answered at once.
    scenes = [
        open_scene(scene, bands=options["bands"], allow_external=options["allow_external"])
        for scene in options["scenes"]
    ]
    check_labels(options["labels"])
    check_model_output(options["output"], overwrite=options["overwrite"])
    label_options, settings = _label_options(options), _settings(options)

    import geodinoseg

    with progress_bar("training", json=options["json_"]) as progress:
        segmentor = geodinoseg.train_model(
            scenes,
            options["labels"],
            options["output"],
            label_options=label_options,
            settings=settings,
            network=_network(options),
            device=options["device"],
            overwrite=options["overwrite"],
            progress=progress,
        )
    output: Path = options["output"]
    report_done(options["json_"], [output], _lines(output, segmentor))


def _label_options(options: dict[str, Any]) -> Any:
    from geodinoseg.training.settings import LabelOptions

    return LabelOptions(
        class_field=options["class_field"],
        unlabelled=options["unlabelled"],
        ignore_classes=options["ignore_class"],
    )


def _settings(options: dict[str, Any]) -> Any:
    from geodinoseg.training.settings import TrainingSettings

    names = [
        "stage", "epochs", "steps_per_epoch", "batch_size", "learning_rate",
        "backbone_learning_rate", "validation_share", "seed",
    ]  # fmt: skip
    return TrainingSettings(crop_px=options["crop"], **{name: options[name] for name in names})


def _network(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the network that were given; the rest keeps the method's defaults."""
    import torch

    quantize = options["quantize"]
    network = {
        "size": options["size"],
        "backbone": options["backbone"],
        "linear_head": options["head"] == "linear",
        # 4 bit saves memory on a GPU; on a CPU it only costs time.
        "quantize": torch.cuda.is_available() if quantize is None else quantize,
    }
    given = {name: options[name] for name in ("channels", "n_features") if options[name]}
    return network | given


def _lines(output: Path, segmentor: Any) -> list[str]:
    names = ", ".join(segmentor.legend.names)
    lines = [f"{output}: a model of {len(segmentor.legend)} classes ({names})"]
    if segmentor.scores:
        lines.append(f"mean IoU on validation blocks: {segmentor.scores['mean_iou']:.3f}")
    lines.append(f"next: geodinoseg segment SCENE --model {output} -o landcover.tif")
    return lines
