"""What a training would do, and the checks before it. Loads no torch until all inputs are read."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geodinoseg.errors import ModelError
from geodinoseg.files.arguments import listed, options_of, wrong_argument
from geodinoseg.files.atomic import PathLike
from geodinoseg.labels.options import LabelOptions
from geodinoseg.labels.paths import GivenLabels, check_is_there, is_folder, label_files
from geodinoseg.model.parameters import (
    DEFAULT_SIZE,
    HUB_NAMES,
    PARAMETERS,
    check_backbone_source,
    check_device_name,
    check_docstrings,
    check_parameters,
    known_patch_px,
)
from geodinoseg.progress import log_step
from geodinoseg.rasters.legend_file import read_legend_file
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.training.data import TrainingData, read_training_data
from geodinoseg.training.input_checks import warn_of_scenes
from geodinoseg.training.output import check_training_output
from geodinoseg.training.scenes import LabelPaths, ScenePaths
from geodinoseg.training.settings import (
    StageName,
    TrainingSettings,
    completed,
    heads_to_try,
)
from geodinoseg.training.unused import warn_of_unused

logger = logging.getLogger(__name__)

_FROM_THE_DATA = ("num_classes", "bands", "components", "rgb")
_HALF_BYTES = 2
_MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What is known before any weight is loaded."""

    data: TrainingData
    """Scenes and labels, split."""
    settings: TrainingSettings
    """The recipe."""
    heads: tuple[StageName, ...]
    """The heads of stage one."""
    cache_bytes: int
    """Size of the features of stage one, without those of validation crops."""
    seconds: float | None = None
    """About how long the network takes on the device, by a trial; at most the time limit. None if
    the device has too little memory for the trial."""

    @property
    def stages(self) -> tuple[StageName, ...]:
        """What is trained, in order."""
        return self.settings.stages(self.data.folds, self.heads)

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order in which they are read."""
        facts, settings = self.data.facts, self.settings
        return {
            "scenes": facts["scenes"],
            "labels": facts["labels"],
            "bands": list(self.data.bands),
            "ground resolution, m": self.data.pixel_size_m,
            "labelled pixels to train on": facts["training_pixels"],
            "labelled pixels to validate on": facts["validation_pixels"],
            "validation": _validation(self.data.folds),
            "stages": list(self.stages),
            "crops, px": self.data.crop_px,
            "epochs of each": [
                settings.epochs_to_choose(stage, self.data.folds) for stage in self.stages
            ],
            "cached crops": settings.crops_to_cache + settings.crops_of_held_out(self.data.folds),
            "cached features, MB": round(self.cache_bytes / _MB),
            "time limit, s": None if settings.minutes is None else 60 * settings.minutes,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
        }


def plan_training(
    scenes: ScenePaths,
    labels: LabelPaths | None,
    output: str | os.PathLike[str] | None = None,
    *,
    label_options: LabelOptions | None = None,
    settings: TrainingSettings | None = None,
    network: Mapping[str, Any] | None = None,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
) -> TrainingPlan:
    """Check and read what `train_model` would, estimate the time, and stop there.

    Loads no weights: the time comes from a trial of the same network on a few crops.

    Args:
        scenes: as for `train_model`.
        labels: as for `train_model`.
        output: the model folder, if it is to be checked too.
        label_options: how the labels are read.
        settings: the recipe.
        network: arguments of `DinoV2Segmentor`.
        bands: bands to read.
        nodata: nodata value of the scenes.
        device: as for `train_model`.
        overwrite: as for `train_model`.
        resume: as for `train_model`.

    Raises:
        GeodinosegError: as `train_model`.
    """
    check_docstrings()
    settings = options_of(settings, TrainingSettings, "settings")
    check_network_type(network)
    settings, arguments = completed(settings, network or {})
    if output is not None:
        check_training_output(output, overwrite=overwrite, resume=resume)
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
    from geodinoseg.model.backbone import read_backbone_config  # noqa: PLC0415 (loads torch)
    from geodinoseg.training.trial import training_seconds  # noqa: PLC0415 (loads torch)

    source = arguments.get("backbone") or HUB_NAMES[arguments.get("size") or DEFAULT_SIZE]
    config = read_backbone_config(source, revision=arguments.get("revision"))
    settings.check_patch(int(config.patch_size))
    channels = int(config.hidden_size) * int(arguments.get("n_features", 1))
    patches = (data.crop_px // int(config.patch_size)) ** 2
    heads = heads_to_try(arguments)
    of_crop = _HALF_BYTES * channels * patches + data.crop_px**2
    if "fused" in heads or arguments.get("fused_head"):
        of_crop += (_HALF_BYTES * len(data.bands) + 1) * data.crop_px**2
    log_step(logger, "timing the network on a few crops.")
    return TrainingPlan(
        data=data,
        settings=settings,
        heads=heads,
        cache_bytes=of_crop * (settings.crops_to_cache + settings.crops_of_held_out(data.folds)),
        seconds=training_seconds(data, settings, arguments, config, device=device),
    )


def read_inputs(
    scenes: ScenePaths,
    labels: LabelPaths | None,
    *,
    bands: Sequence[int] | None,
    nodata: float | None,
    options: LabelOptions,
    settings: TrainingSettings,
    network: Mapping[str, Any],
    device: str = "auto",
) -> TrainingData:
    """Check all inputs of a training, the quick checks first, and read its data.

    Arguments and errors are those of `train_model`.
    """
    opened = [_opened_or_folder(scene, bands, nodata) for scene in listed(scenes)]
    has_chips = any(isinstance(scene, str) for scene in opened)
    paths = [] if labels is None else listed(labels)
    _check_label_files([] if has_chips else paths, options)
    check_network_type(network)
    _check_network(network, settings)
    check_device_name(device)
    warn_of_unused(settings, network, options)
    log_step(logger, "reading scenes and labels.")
    data = read_training_data(
        opened,
        paths,
        bands=bands,
        nodata=nodata,
        options=options,
        settings=settings,
        patch_px=known_patch_px(network.get("backbone")),
    )
    warn_of_scenes(data.splits, bands=bands, seed=settings.seed)
    log_step(
        logger,
        "%d scenes, classes %s; %s labelled px to train on, %s to validate on.",
        len(data.splits),
        ", ".join(data.legend.names),
        f"{sum(data.facts['training_pixels'].values()):,}",
        f"{sum(data.facts['validation_pixels'].values()):,}",
    )
    return data


def _opened_or_folder(
    source: PathLike | Scene, bands: Sequence[int] | None, nodata: float | None
) -> Scene | str:
    if not isinstance(source, Scene) and is_folder(source):
        return os.fspath(source)
    return open_scene(source, bands=bands, nodata=nodata)


def _check_label_files(labels: Sequence[GivenLabels], options: LabelOptions) -> None:
    label_files(labels)
    if options.legend_file is not None:
        read_legend_file(os.fspath(options.legend_file))
    if options.extent_file is not None:
        check_is_there(options.extent_file)


def check_network_type(network: object) -> None:
    """Refuse what is no dictionary, such as the name of a backbone."""
    if network is not None and not isinstance(network, Mapping):
        raise wrong_argument(
            network,
            "network",
            "a dictionary of arguments of DinoV2Segmentor",
            error=ModelError,
            way_out='write it as {"backbone": "FOLDER"}',
        )


def _check_network(network: Mapping[str, Any], settings: TrainingSettings) -> None:
    """Check the arguments of `DinoV2Segmentor` as far as is possible without torch."""
    for name in network:
        if name in _FROM_THE_DATA:
            raise ModelError(f"network: {name} is determined by the data; leave it out.")
        if name not in PARAMETERS:
            raise ModelError(
                f"network: has no argument {name!r}; choose from {', '.join(PARAMETERS)}."
            )
    check_parameters({n: v for n, v in network.items() if (n, v) != ("quantize", None)})
    if network.get("backbone") is not None:
        check_backbone_source(network["backbone"], revision=network.get("revision"))
    patch_px = known_patch_px(network.get("backbone"))
    if patch_px is not None:
        settings.check_patch(patch_px)


def _validation(folds: int) -> str:
    if folds == 0:
        return "none"
    if folds == 1:
        return "blocks apart from the training windows"
    return f"cross-validation, {folds} folds"
