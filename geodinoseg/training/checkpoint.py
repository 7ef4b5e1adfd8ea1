"""The checkpoint beside the output of a training, from which it can be resumed.

One safetensors file, `<output>.checkpoint`: tensors, and everything else as JSON in its header.
Never pickle. Written beside its name and renamed, so it is complete or absent.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from geodinoseg.errors import ModelFolderError, one_line
from geodinoseg.evaluation.accuracy import Accuracy
from geodinoseg.files.atomic import atomic_file
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.weights import Tensors, add_weights
from geodinoseg.rasters.scene_fingerprint import SceneWatch, scene_fingerprint
from geodinoseg.training.batches import CropSource
from geodinoseg.training.comparison import BlockLosses
from geodinoseg.training.history import EpochScore
from geodinoseg.training.optimizer import copied
from geodinoseg.training.settings import StageName
from geodinoseg.training.split.split import SplitScene
from geodinoseg.version import __version__

_KEY = "geodinoseg"
_VERSION = 3
_FACTS = (
    "fingerprint",
    "is_stage_over",
    "cached_crops",
    "validation_pieces",
    "validation_s",
    "used_s",
)


@dataclass(kw_only=True)
class TrainingRecord:
    """The state of a training: everything that it needs to resume."""

    fingerprint: str
    """Of settings, network and data; a checkpoint of another training is refused."""
    history: list[EpochScore] = field(default_factory=list)
    """Of all stages."""
    weights: dict[str, Tensors] = field(default_factory=dict)
    """Of each stage, after its last epoch, for each fold; see `numbered`."""
    optimizer: Tensors = field(default_factory=dict)
    """State of the optimizer of the current stage."""
    random: Tensors = field(default_factory=dict)
    """State of torch's generators, by device."""
    is_stage_over: bool = False
    """Whether the last epoch of the current stage is done."""
    cached_crops: int | None = None
    """Number of training crops with features."""
    validation_pieces: int | None = None
    """Number of pieces that validate, if time cut them short."""
    validation_s: float = 0.0
    """Seconds that a validation takes."""
    used_s: float = 0.0
    """Seconds so far."""

    def epochs_of(self, stage: StageName) -> list[EpochScore]:
        """The epochs of a stage so far."""
        return [score for score in self.history if score.stage == stage]

    def last_of(self, stage: StageName) -> EpochScore | None:
        """The last epoch of a stage so far, the one to keep; None if it has not begun."""
        return next(reversed(self.epochs_of(stage)), None)

    def is_over(self, stage: StageName) -> bool:
        """Whether the last epoch of a stage is done."""
        has_begun = self.last_of(stage) is not None
        return has_begun and (self.is_stage_over or self.history[-1].stage != stage)

    def write(self, path: Path) -> None:
        """Replace the checkpoint; the old one stays if it cannot be written."""
        with atomic_file(path) as fresh:
            save_file(self._tensors(), fresh, metadata={_KEY: json.dumps(self._facts())})

    def after_epoch(
        self, score: EpochScore, weights: Tensors, optimizer: Tensors, random: Tensors
    ) -> TrainingRecord:
        """A new record with one more epoch, so that an interrupt never leaves half of each."""
        return replace(
            self,
            history=[*self.history, score],
            weights=self.weights | {score.stage: copied(weights)},
            optimizer=optimizer,
            random=random,
            is_stage_over=False,
        )

    def _tensors(self) -> Tensors:
        groups = {"optimizer": self.optimizer, "random": self.random}
        groups |= {f"weights/{stage}": tensors for stage, tensors in self.weights.items()}
        named = {
            f"{group}/{name}": tensor.contiguous()
            for group, tensors in groups.items()
            for name, tensor in tensors.items()
        }
        matrices = {
            f"matrix/{score.epoch}": torch.from_numpy(score.accuracy.matrix)
            for score in self.history
            if score.accuracy is not None
        }
        losses = {
            f"losses/{score.epoch}": torch.from_numpy(
                np.stack([score.losses.sums, score.losses.pixels])
            )
            for score in self.history
            if score.losses is not None
        }
        return named | matrices | losses

    def _facts(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "history": [
                [s.epoch, s.stage, _number(s.train_loss), _number(s.val_loss)] for s in self.history
            ],
            **{name: getattr(self, name) for name in _FACTS},
        }


def read_record(path: Path) -> TrainingRecord:
    """Read a checkpoint; a damaged one is a ModelFolderError."""
    try:
        with safe_open(path, framework="pt") as handle:
            facts = json.loads((handle.metadata() or {})[_KEY])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a mapping)
        return _record(facts, tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFolderError(
            f"{path}: is not a checkpoint that this version can read ({one_line(error)[:160]}); "
            f"start over with --overwrite."
        ) from error


def random_state(device: torch.device) -> Tensors:
    """State of torch's generators."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Tensors, device: torch.device) -> None:
    """Restore the state of torch's generators."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _record(facts: dict[str, Any], tensors: Tensors) -> TrainingRecord:
    def group(name: str) -> Tensors:
        prefix = f"{name}/"
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    if facts["version"] != _VERSION:
        raise ValueError(f"version {facts['version']}")
    history = [
        EpochScore(
            epoch=epoch,
            stage=stage,
            train_loss=_loss(train_loss),
            val_loss=_loss(val_loss),
            accuracy=_accuracy(tensors.get(f"matrix/{epoch}")),
            losses=_losses(tensors.get(f"losses/{epoch}")),
        )
        for epoch, stage, train_loss, val_loss in facts["history"]
    ]
    stages = dict.fromkeys(score.stage for score in history)
    return TrainingRecord(
        history=history,
        weights={stage: group(f"weights/{stage}") for stage in stages},
        optimizer=group("optimizer"),
        random=group("random"),
        **{name: facts[name] for name in _FACTS},
    )


def _accuracy(matrix: torch.Tensor | None) -> Accuracy | None:
    return None if matrix is None else Accuracy(matrix.numpy())


def _losses(stacked: torch.Tensor | None) -> BlockLosses | None:
    if stacked is None:
        return None
    sums, pixels = stacked.numpy()
    return BlockLosses(sums=sums, pixels=pixels)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _loss(value: float | None) -> float:
    return math.nan if value is None else float(value)


SETTINGS_WITHOUT_EFFECT = ("minutes", "cache_bytes")
"""They change when a training ends or where it stores features, but not an epoch's result."""
_NOT_OF_THE_BACKBONE = ("_name_or_path", "transformers_version")
_BESIDE_PIXELS = (".aux.xml", ".ovr")
"""Files that other programs write beside a scene when they display it. Information in them that
training uses, such as a nodata value, is among the facts of the scene."""


def training_fingerprint(
    source: CropSource, network: DinoV2Segmentor, heads: Sequence[StageName]
) -> str:
    """SHA-256 of all that a training depends on; the same fingerprint gives the same model.

    It covers the settings, the heads to try, all weights of the untrained network and the
    configuration of its backbone, its precision, the content of scenes and labels, the split, the
    legend, the statistics and the version. Scenes and labels may be moved to other folders; options
    of labels count only by their effect on the labels.
    """
    digest = hashlib.sha256()
    settings = asdict(source.settings)
    facts = {
        "version": __version__,
        "settings": {n: v for n, v in settings.items() if n not in SETTINGS_WITHOUT_EFFECT},
        "network": network.settings,
        "heads": heads,
        "bands": network.bands,
        "backbone": None if network.source_is_folder else [network.source, network.revision],
        "backbone_config": _backbone_config(network),
        "precision": str(source.dtype),
        "legend": source.data.legend.to_json(),
        "statistics": source.statistics.to_json(),
        "folds": source.data.folds,
        "pixel_size_m": source.data.pixel_size_m,
        "facts": source.data.facts,
    }
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    add_weights(digest, network)
    for split in source.data.splits:
        digest.update(json.dumps(_scene_facts(split), sort_keys=True, default=str).encode())
        for array in (split.counts, split.folds):
            digest.update(np.ascontiguousarray(array).tobytes())
        _add_labels(digest, split)
    return digest.hexdigest()


def _backbone_config(network: DinoV2Segmentor) -> dict[str, Any]:
    """What a backbone's configuration says beside the weights, such as the number of heads."""
    values: dict[str, Any] = network.base_backbone.config.to_diff_dict()
    return {name: value for name, value in values.items() if name not in _NOT_OF_THE_BACKBONE}


def _scene_facts(split: SplitScene) -> list[Any]:
    scene = split.scene
    files = [path for path in SceneWatch(scene).files if not path.endswith(_BESIDE_PIXELS)]
    return [scene_fingerprint(scene, files), split.block_px, str(split.units)]


def _add_labels(digest: hashlib._Hash, split: SplitScene) -> None:
    """Add the labels of each labelled block, as training uses them."""
    for row, col in np.argwhere(split.counts.any(axis=2)).tolist():
        window = split.block(row, col)
        # A block that no label reaches has a single class, which `counts` contains.
        if split.labels.source.reaches(window):
            digest.update(np.ascontiguousarray(split.labels.read(window)).tobytes())
