"""Training: from scenes with labels to a model folder.

Cross-entropy and Dice over balanced crops, AdamW with warm-up and a cosine, validation on blocks
apart from the training windows, the best epoch kept.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.nn import functional

from geodinoseg.accuracy import Accuracy, confusion_matrix
from geodinoseg.devices import autocast, pick_device, pick_precision, to_device
from geodinoseg.errors import LabelError, ModelError, SceneError
from geodinoseg.gdal_settings import gdal_settings
from geodinoseg.grid import Window
from geodinoseg.labels import IGNORE, open_labels
from geodinoseg.model.backbone import pretrained_rgb
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.model_folder import is_model_folder, write_model
from geodinoseg.model.normalization import BandStatistics, measure_statistics, normalize
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.outputs import check_output_folder, folder_written_beside
from geodinoseg.progress import Progress, no_progress
from geodinoseg.samples import (
    Augmentation,
    Crop,
    Sampler,
    SplitScene,
    jittered,
    read_ahead,
    validation_blocks,
)
from geodinoseg.scene import Scene, ScenePath, open_scene
from geodinoseg.version import __version__

if TYPE_CHECKING:
    from geodinoseg.legend import Legend

logger = logging.getLogger(__name__)

Stage = Literal["head", "lora", "full"]
"""What is trained: the head alone, the head and LoRA, or every weight."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How label files are read; see `labels.open_labels`."""

    class_field: str | None = None
    """Column that holds the class."""
    unlabelled: Literal["ignore", "background"] = "ignore"
    """What pixels under no polygon are."""
    ignore_classes: tuple[str, ...] = ()
    """Classes whose polygons are left out of training."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The recipe."""

    stage: Stage = "lora"
    epochs: int = 30
    steps_per_epoch: int = 40
    batch_size: int = 8
    crop_px: int = 224
    """Side of a training crop; a multiple of the patch."""
    learning_rate: float | None = None
    """Of the head and of what is trained from scratch; 1e-3 where not given."""
    backbone_learning_rate: float | None = None
    """Of LoRA, or of a whole backbone that is fine-tuned; 1e-4 where not given."""
    weight_decay: float = 0.05
    validation_share: float = 0.2
    """Share of each class's labelled pixels kept for validation, 0 to 0.5."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0


def train_model(
    scenes: ScenePath | Scene | Sequence[ScenePath | Scene],
    labels: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    label_options: LabelOptions | None = None,
    settings: TrainingSettings | None = None,
    network: dict[str, Any] | None = None,
    bands: Sequence[int] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Segmentor:
    """Train a model on labelled scenes and write its folder.

    Args:
        scenes: one or several rasters with the same kind of bands.
        labels: polygons or a label raster; one for all scenes, or one for each.
        output: the model folder to write.
        label_options: how the labels are read.
        settings: the recipe.
        network: arguments of `DinoV2Segmentor`, such as size, backbone or linear_head, where they
            differ from its defaults; `num_classes` and `bands` follow from the data.
        bands: bands to read, from 1; all but alpha where not given.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        overwrite: replace a model that is there.
        progress: told the epoch, loss and validation mean IoU.

    Returns:
        The best model, ready to segment.

    Raises:
        SceneError, LabelError, ModelError, DeviceError: bad input, see their docs.
        OutputError: the folder cannot be written.
    """
    settings = settings or TrainingSettings()
    target = check_output_folder(output, overwrite=overwrite, is_ours=is_model_folder)
    where = pick_device(device)
    opened = _open_scenes(scenes, bands)
    data = _read_data(opened, labels, label_options or LabelOptions(), settings)
    torch.manual_seed(settings.seed)
    model = _build_network(network or {}, settings, data).to(where)
    run = _Run(model, data, settings, where, progress)
    history = run.fit()
    segmentor = run.segmentor(history)
    with folder_written_beside(target) as folder:
        write_model(segmentor, folder)
        _write_history(history, folder)
    return segmentor


@dataclass(frozen=True, kw_only=True)
class _Data:
    scenes: list[SplitScene]
    legend: Legend
    statistics: BandStatistics
    facts: dict[str, Any]


def _open_scenes(
    scenes: ScenePath | Scene | Sequence[ScenePath | Scene], bands: Sequence[int] | None
) -> list[Scene]:
    given = (
        list(scenes) if isinstance(scenes, Sequence) and not isinstance(scenes, str) else [scenes]
    )
    opened = [open_scene(source, bands=bands) for source in given]
    if not opened:
        raise SceneError("no scene was given to train on.")
    first = opened[0]
    for scene in opened[1:]:
        if len(scene.bands) != len(first.bands) or scene.dtype != first.dtype:
            raise SceneError(
                f"{scene.path}: has {len(scene.bands)} bands of {scene.dtype}, {first.path} has "
                f"{len(first.bands)} of {first.dtype}; scenes of one training must be of one kind, "
                f"choose their bands with --bands."
            )
    return opened


def _read_data(
    scenes: list[Scene],
    labels: str | Path | Sequence[str | Path],
    options: LabelOptions,
    settings: TrainingSettings,
) -> _Data:
    paths = [labels] * len(scenes) if isinstance(labels, str | Path) else list(labels)
    if len(paths) == 1:
        paths *= len(scenes)
    if len(paths) != len(scenes):
        raise LabelError(
            f"{len(paths)} label files for {len(scenes)} scenes: give one for all, or one for each "
            f"in the same order."
        )
    legend: Legend | None = None
    splits = []
    for index, (scene, path) in enumerate(zip(scenes, paths, strict=True)):
        source = open_labels(
            path,
            scene.geobox,
            class_field=options.class_field,
            unlabelled=options.unlabelled,
            ignore_classes=options.ignore_classes,
            legend=legend,
        )
        legend = source.legend
        splits.append(_split(scene, source, settings, seed=settings.seed + index))
    assert legend is not None
    facts = {
        "scenes": [Path(scene.path).name for scene in scenes],
        "labels": [Path(path).name for path in dict.fromkeys(map(str, paths))],
        **_pixel_counts(splits, legend),
    }
    statistics = _statistics(splits, settings)
    return _Data(scenes=splits, legend=legend, statistics=statistics, facts=facts)


def _split(scene: Scene, labels: Any, settings: TrainingSettings, *, seed: int) -> SplitScene:
    """Blocks of two crops a side, or smaller ones where the labels lie in few of those."""
    block_px = 2 * settings.crop_px
    counts = labels.class_blocks(block_px)
    while (counts.sum(axis=2) > 0).sum() < 10 and block_px > settings.crop_px // 4:
        block_px //= 2
        counts = labels.class_blocks(block_px)
    chosen = validation_blocks(counts, share=settings.validation_share, seed=seed)
    return SplitScene(
        scene=scene, labels=labels, block_px=block_px, counts=counts, is_validation=chosen
    )


def _pixel_counts(splits: list[SplitScene], legend: Legend) -> dict[str, Any]:
    def total(*, validation: bool) -> dict[str, int]:
        sums = sum(split.counts[split.is_validation == validation].sum(axis=0) for split in splits)
        return dict(zip(legend.names, np.asarray(sums).tolist(), strict=True))

    training, validation = total(validation=False), total(validation=True)
    missing = [name for name, pixels in training.items() if pixels == 0]
    if len(missing) > len(training) - 2:
        raise LabelError(
            "labels: fewer than two classes have labelled pixels in the scenes; draw polygons of "
            "another class, or --unlabelled background where all else is background."
        )
    for name in missing:
        logger.warning("class %s has no labelled pixel to train on", name)
    for name in (n for n, pixels in validation.items() if pixels == 0 and n not in missing):
        logger.warning("class %s has too few labels to keep some for validation", name)
    return {"training_pixels": training, "validation_pixels": validation}


def _statistics(splits: list[SplitScene], settings: TrainingSettings) -> BandStatistics:
    """Statistics over the labelled training blocks, 64 windows of each scene at the most."""
    rng = np.random.default_rng(settings.seed)

    def windows(split: SplitScene) -> list[Window]:
        blocks = np.argwhere((split.counts.sum(axis=2) > 0) & ~split.is_validation)
        chosen = rng.permutation(blocks)[:64]
        side = min(split.block_px, settings.crop_px)
        return [
            Window(
                col_off=int(col) * split.block_px,
                row_off=int(row) * split.block_px,
                width=min(side, split.scene.width - int(col) * split.block_px),
                height=min(side, split.scene.height - int(row) * split.block_px),
            )
            for row, col in chosen
        ]

    def samples() -> Any:
        for split in splits:
            with split.scene.reader() as reader:
                yield from (reader.read(window) for window in windows(split))

    scene = splits[0].scene
    return measure_statistics(samples(), dtype=str(scene.dtype), what=scene.path)


def _build_network(
    arguments: dict[str, Any], settings: TrainingSettings, data: _Data
) -> DinoV2Segmentor:
    chosen = dict(arguments)
    chosen["peft"] = settings.stage == "lora"
    if settings.stage == "full":
        chosen["quantize"] = False
    network = DinoV2Segmentor(
        **chosen, num_classes=len(data.legend), bands=len(data.statistics.mean)
    )
    if settings.crop_px % network.patch_px:
        raise ModelError(
            f"crops of {settings.crop_px} px: give a multiple of the backbone's patch, "
            f"{network.patch_px} px."
        )
    if settings.stage == "head":
        network.backbone.requires_grad_(requires_grad=False)
    network.backbone_differs_from_source = settings.stage == "full"
    return network


class _Run:
    """One training from the first step to the best epoch."""

    def __init__(
        self,
        network: DinoV2Segmentor,
        data: _Data,
        settings: TrainingSettings,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.network = network
        self.data = data
        self.settings = settings
        self.device = device
        self.dtype = pick_precision("auto", device)
        self.progress = progress
        rgb = pretrained_rgb(network.source) if settings.stage != "full" else None
        self.statistics = data.statistics.with_rgb(*rgb) if rgb else data.statistics
        self.mean_N = torch.tensor(self.statistics.mean, device=device)
        self.std_N = torch.tensor(self.statistics.std, device=device)
        self.steps = settings.epochs * settings.steps_per_epoch
        self.optimizer = self._optimizer()
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.jitter = torch.Generator().manual_seed(settings.seed)
        self.best: dict[str, torch.Tensor] = {}
        self.best_accuracy: Accuracy | None = None

    def fit(self) -> list[dict[str, Any]]:
        """Train, validate after each epoch, end with the best weights; the history by epoch."""
        history: list[dict[str, Any]] = []
        per_epoch = self.settings.steps_per_epoch
        losses: list[float] = []
        batches = read_ahead(
            self._sampler(), steps=range(self.steps), batch_size=self.settings.batch_size
        )
        # The labelled blocks are read again and again: keep them decoded.
        with gdal_settings(cache_bytes=512 << 20), self._sampler() as validation:
            for step, crops in enumerate(batches, start=1):
                losses.append(self._step(crops))
                if step % per_epoch == 0:
                    history.append(self._validate(validation, step // per_epoch, losses))
                    losses.clear()
                self._tell(step, losses, history)
        self._load_best()
        return history

    def segmentor(self, history: list[dict[str, Any]]) -> Segmentor:
        """The model with all that its predictions depend on, ready to segment."""
        self.network.requires_grad_(requires_grad=False).eval()
        best = max(history, key=lambda row: row["mean_iou"])
        sizes = [s.scene.geobox.pixel_size_m for s in self.data.scenes]
        known = [size for size in sizes if size is not None]
        return Segmentor(
            network=self.network,
            legend=self.data.legend,
            statistics=self.statistics,
            bands=self.data.scenes[0].scene.bands,
            trained_tile_px=self.settings.crop_px,
            pixel_size_m=float(np.median(known)) if known else None,
            training=self.data.facts
            | {"best_epoch": best["epoch"], "geodinoseg": __version__}
            | asdict(self.settings),
            scores=self._scores(),
        )

    def _sampler(self) -> Sampler:
        return Sampler(
            self.data.scenes,
            crop_px=self.settings.crop_px,
            augmentation=self.settings.augmentation,
            seed=self.settings.seed,
        )

    def _optimizer(self) -> torch.optim.AdamW:
        head_rate = self.settings.learning_rate or 1e-3
        backbone_rate = self.settings.backbone_learning_rate or 1e-4
        groups = []
        for module, rate in (
            (self.network.head, head_rate),
            (self.network.backbone, backbone_rate),
        ):
            trained = [p for p in module.parameters() if p.requires_grad]
            # Biases, norms and layer scales are not decayed, as usual for transformers.
            groups.append({"params": [p for p in trained if p.ndim > 1], "lr": rate})
            groups.append(
                {"params": [p for p in trained if p.ndim <= 1], "lr": rate, "weight_decay": 0.0}
            )
        return torch.optim.AdamW(groups, weight_decay=self.settings.weight_decay)

    def _rate(self, step: int) -> float:
        """Linear warm-up over the first twentieth, then a cosine to a hundredth."""
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.steps - warm_up)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    def _step(self, crops: list[Crop]) -> float:
        self.network.train()
        if self.settings.stage == "head":
            self.network.backbone.eval()
        values, labels = self._tensors(crops)
        values = jittered(values, self.settings.augmentation, self.jitter)
        with autocast(self.device, self.dtype):
            logits = self.network(values)
        loss = segmentation_loss(logits.float(), labels)
        if not torch.isfinite(loss):
            raise ModelError(
                "training: the loss is no longer a number; give a smaller --learning-rate."
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return float(loss.detach())

    def _tensors(self, crops: list[Crop]) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalized pixels (batch, bands, side, side) and labels (batch, side, side)."""

        def stacked(arrays: list[Any]) -> torch.Tensor:
            return to_device(torch.from_numpy(np.stack(arrays)), self.device)

        valid = stacked([crop.valid for crop in crops])
        values = normalize(stacked([crop.pixels for crop in crops]), valid, self.mean_N, self.std_N)
        return values, stacked([crop.labels for crop in crops])

    @torch.no_grad()
    def _validate(self, sampler: Sampler, epoch: int, losses: list[float]) -> dict[str, Any]:
        self.network.eval()
        classes = len(self.data.legend)
        matrix = np.zeros((classes, classes), dtype=np.int64)
        loss_sum, count = 0.0, 0
        for index, window in sampler.validation_windows():
            values, labels = self._tensors([sampler.validation_crop(index, window)])
            if not (labels != IGNORE).any():
                continue
            with autocast(self.device, self.dtype):
                logits = self.network(values).float()
            loss_sum += float(segmentation_loss(logits, labels))
            count += 1
            predicted = logits.argmax(dim=1).cpu().numpy()
            matrix += confusion_matrix(labels.cpu().numpy(), predicted, classes)
        return self._judge(epoch, float(np.mean(losses)), loss_sum / max(count, 1), matrix)

    def _judge(
        self, epoch: int, train_loss: float, val_loss: float, matrix: np.ndarray[Any, Any]
    ) -> dict[str, Any]:
        """Keep the weights if they are the best so far; the row of the history."""
        accuracy = Accuracy(matrix)
        # Without validation pixels the last epoch is the one to keep.
        mean_iou = accuracy.mean_iou if matrix.any() else float("nan")
        best = self.best_accuracy.mean_iou if self.best_accuracy else -1.0
        if math.isnan(mean_iou) or mean_iou > best:
            self.best_accuracy = None if math.isnan(mean_iou) else accuracy
            self.best = {n: t.detach().cpu().clone() for n, t in self._trained_state().items()}
        return {
            "epoch": epoch,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "mean_iou": mean_iou,
        }

    def _trained_state(self) -> dict[str, torch.Tensor]:
        """Trained parameters and the head's batch norm statistics."""
        named = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        return named | {f"head.{n}": b for n, b in self.network.head.named_buffers()}

    @torch.no_grad()
    def _load_best(self) -> None:
        for name, tensor in self._trained_state().items():
            tensor.copy_(self.best[name])

    def _scores(self) -> dict[str, Any]:
        if self.best_accuracy is None:
            return {}
        return {"on": "validation blocks apart from the training windows"} | (
            self.best_accuracy.to_json()
        )

    def _tell(self, step: int, losses: list[float], history: list[dict[str, Any]]) -> None:
        epoch = (step - 1) // self.settings.steps_per_epoch + 1
        message = f"epoch {epoch}/{self.settings.epochs}"
        if losses:
            message += f", loss {np.mean(losses):.3f}"
        elif history:
            message += f", loss {history[-1]['train_loss']:.3f}"
        if history:
            best = max(row["mean_iou"] for row in history)
            message += f", mean IoU {history[-1]['mean_iou']:.3f} (best {best:.3f})"
        self.progress(step / self.steps, message)


def segmentation_loss(logits_BCHW: torch.Tensor, labels_BHW: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus Dice, both over labelled pixels only.

    Dice is 1 - 2 |P and L| / (|P| + |L|) with probabilities for P, averaged over the classes that
    the batch's labels hold (Milletari et al. 2016, V-Net).

    Args:
        logits_BCHW: (batch, classes, height, width) float32.
        labels_BHW: (batch, height, width) int64, IGNORE where there is no label.

    Returns:
        A scalar; 0 where nothing is labelled.
    """
    labelled_BHW = labels_BHW != IGNORE
    if not labelled_BHW.any():
        return logits_BCHW.sum() * 0.0
    entropy = functional.cross_entropy(
        logits_BCHW, labels_BHW, ignore_index=IGNORE, label_smoothing=0.05
    )
    classes = logits_BCHW.shape[1]
    target_BCHW = functional.one_hot(labels_BHW.clamp(min=0), classes).movedim(-1, 1)
    target_BCHW = target_BCHW * labelled_BHW[:, None]
    probabilities_BCHW = torch.softmax(logits_BCHW, dim=1) * labelled_BHW[:, None]
    axes = (0, 2, 3)
    overlap_C = (probabilities_BCHW * target_BCHW).sum(axes)
    sizes_C = probabilities_BCHW.sum(axes) + target_BCHW.sum(axes)
    present_C = target_BCHW.sum(axes) > 0
    dice = 1 - (2 * overlap_C / sizes_C.clamp(min=1e-6))[present_C].mean()
    return entropy + dice


def _write_history(history: list[dict[str, Any]], folder: Path) -> None:
    """history.csv and curves.png in the model folder."""
    from geodinoseg.pictures import training_curves  # noqa: PLC0415 (matplotlib is slow to import)

    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    training_curves(history, folder / "curves.png")
