"""Training: from scenes with labels to a model folder.

All inputs are checked and read before torch is loaded, which takes seconds. What is chosen is in
`settings`, the data in `data`, the training itself in `engine`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from geodinoseg.files.arguments import options_of, output_path
from geodinoseg.labels.options import LabelOptions
from geodinoseg.model.parameters import check_docstrings
from geodinoseg.progress import Progress, no_progress
from geodinoseg.training.budget import Budget, Clock
from geodinoseg.training.output import check_training_output, noted_interrupts
from geodinoseg.training.plan import check_network_type, read_inputs
from geodinoseg.training.scenes import LabelPaths, ScenePaths
from geodinoseg.training.settings import TrainingSettings, completed
from geodinoseg.training.tensorboard import check_event_log

if TYPE_CHECKING:
    from geodinoseg.model.segmentor import Segmentor


def train_model(
    scenes: ScenePaths,
    labels: LabelPaths | None,
    output: str | os.PathLike[str],
    *,
    label_options: LabelOptions | None = None,
    settings: TrainingSettings | None = None,
    network: dict[str, Any] | None = None,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    tensorboard: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
    clock: Clock = time.monotonic,
) -> Segmentor:
    """Train a model on labelled scenes and write its folder.

    Stage one trains heads on features of the frozen backbone, stage two continues with LoRA or
    all weights; a later stage is kept if its log loss on validation blocks is clearly lower, that
    of stage two also lower than the head's after as many further steps. A kept head is trained
    again on all labels, after a cross-validation also stage two. After each epoch
    `<output>.checkpoint` holds everything that is needed to resume; it is removed in the end. An
    interrupt, or a loss that is no longer finite, leaves the model so far, marked as unfinished.

    Args:
        scenes: one or several rasters with the same kind of bands, or folders of image chips.
        labels: polygons (a vector file or a GeoDataFrame) or a label raster, one for all scenes or
            one for each; `NAME=FILE`, a folder, or a dictionary of files or GeoDataFrames for one
            a class; for folders of chips those of the label chips, or None if they are in the same
            folders. The class column is `class_field` of `label_options`.
        output: the model folder to write.
        label_options: how the labels are read.
        settings: the recipe.
        network: arguments of `DinoV2Segmentor`, such as size or backbone, if they differ from its
            defaults. With neither linear_head nor fused_head, a linear and a fused head are tried;
            `linear_head=True`, `linear_head=False` (CNN) or `fused_head=True` trains that one.
            `num_classes` and `bands` follow from the data, `peft` from the stage. `quantize` is
            None by default, which means 4 bit on a GPU only.
        bands: bands to read, from 1; all but alpha by default.
        nodata: nodata value of the scenes, which replaces the ones in the files.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        overwrite: replace an existing model or interrupted training.
        resume: resume an interrupted training of the same data and settings; the result is that
            of an uninterrupted one.
        tensorboard: folder for TensorBoard's event files.
        progress: called with stage, epoch, loss and validation mean IoU.
        clock: gives the time that `settings.minutes` limits, in seconds.

    Returns:
        The best model, ready to segment.

    Raises:
        SceneError: a scene cannot be read, or they are of different kinds.
        LabelError: labels are missing, lie elsewhere, or leave nothing to learn.
        ModelError: the network cannot be built, or its loss is no longer finite.
        ModelFolderError: the checkpoint is damaged, or of another training.
        DeviceError: the device is absent, or its memory too small.
        OutputError: the folder cannot be written.

    Example:
        >>> import geodinoseg as gds
        >>> settings = gds.TrainingSettings(stage="head", epochs=1, steps_per_epoch=8, crop_px=56)
        >>> model = gds.train_model(
        ...     "ortho.tif", "fields.gpkg", "crops.model", settings=settings,
        ...     network={"backbone": "backbone"}, overwrite=True,
        ... )
        >>> model.legend.names
        ('field', 'roof', 'water')
    """
    check_docstrings()
    settings = options_of(settings, TrainingSettings, "settings")
    check_network_type(network)
    settings, arguments = completed(settings, network or {})
    budget = Budget(settings.minutes, clock)
    target = check_training_output(output, overwrite=overwrite, resume=resume)
    if tensorboard is not None:
        output_path(tensorboard, "tensorboard")
        check_event_log()
    with noted_interrupts(target):
        data = read_inputs(
            scenes,
            labels,
            bands=bands,
            nodata=nodata,
            options=options_of(label_options, LabelOptions, "label_options"),
            settings=settings,
            network=arguments,
            device=device,
        )
        from geodinoseg.training.engine import run_training  # noqa: PLC0415 (torch takes seconds to load)

        return run_training(
            data,
            target,
            settings=settings,
            network=arguments,
            device=device,
            overwrite=overwrite,
            resume=resume,
            tensorboard=tensorboard,
            budget=budget,
            progress=progress,
        )
