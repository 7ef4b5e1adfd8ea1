"""One training from the first step to the best epoch: AdamW, warm-up and cosine, validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geodinoseg.accuracy import Accuracy, confusion_matrix
from geodinoseg.devices import autocast, pick_precision, to_device
from geodinoseg.errors import LabelError, ModelError
from geodinoseg.gdal_settings import gdal_settings
from geodinoseg.labels.classes import IGNORE
from geodinoseg.model.normalization import normalize
from geodinoseg.training.crops import Crop, jittered
from geodinoseg.training.history import EpochScore
from geodinoseg.training.losses import segmentation_loss
from geodinoseg.training.samples import Sampler, read_ahead

if TYPE_CHECKING:
    from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
    from geodinoseg.model.normalization import BandStatistics
    from geodinoseg.progress import Progress
    from geodinoseg.training.data import TrainingData
    from geodinoseg.training.settings import TrainingSettings

HEAD_RATE, BACKBONE_RATE = 1e-3, 1e-4
"""Learning rates where none is given."""

_WARM_UP = 1 / 20
_LAST_RATE = 0.01
_LARGEST_GRADIENT = 1.0
_CACHE_BYTES = 512 << 20


class TrainingRun:
    """Fits a network to training data, and ends with the weights of its best epoch."""

    def __init__(
        self,
        network: DinoV2Segmentor,
        data: TrainingData,
        statistics: BandStatistics,
        settings: TrainingSettings,
        progress: Progress,
    ) -> None:
        """Make the optimizer; nothing runs yet.

        Args:
            network: on its device; parameters that require no gradient stay as they are.
            data: scenes with labels.
            statistics: how pixels are normalized.
            settings: the recipe.
            progress: told the epoch, loss and mean IoU.
        """
        self.network = network
        self.best: EpochScore | None = None
        self._data = data
        self._settings = settings
        self._progress = progress
        self._device = next(network.head.parameters()).device
        self._dtype = pick_precision("auto", self._device)
        self._mean_N = torch.tensor(statistics.mean, dtype=torch.float32, device=self._device)
        self._std_N = torch.tensor(statistics.std, dtype=torch.float32, device=self._device)
        self._steps = settings.epochs * settings.steps_per_epoch
        self._optimizer = optimizer_of(network, settings)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: rate_share(step, self._steps)
        )
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._dtype == torch.float16)
        self._jitter = torch.Generator().manual_seed(settings.seed)
        self._best_weights: dict[str, torch.Tensor] = {}

    def fit(self) -> list[EpochScore]:
        """Train, validate after each epoch, end with the best weights.

        Returns:
            The score of each epoch.

        Raises:
            ModelError: the loss is no longer a number.
            LabelError: no labelled pixel holds data, or the labels cannot be read.
            SceneError: a scene cannot be read.
        """
        history: list[EpochScore] = []
        losses: list[float] = []
        steps = range(self._steps)
        batches = read_ahead(self._sampler(), steps=steps, batch_size=self._settings.batch_size)
        # The labelled blocks are read again and again: keep them decoded.
        with (
            gdal_settings(cache_bytes=_CACHE_BYTES),
            closing(batches),
            self._sampler() as validation,
        ):
            for step, crops in enumerate(batches, start=1):
                losses.append(self._step(crops))
                if step % self._settings.steps_per_epoch == 0:
                    history.append(self._end_epoch(validation, len(history) + 1, losses))
                    losses.clear()
                self._tell(step, losses, history)
        self._load_best()
        return history

    def validate(self, sampler: Sampler, *, epoch: int, train_loss: float) -> EpochScore:
        """Score the network on the validation blocks.

        Args:
            sampler: with its scenes open.
            epoch: for the record.
            train_loss: for the record.
        """
        self.network.eval()
        classes = len(self._data.legend)
        matrix = np.zeros((classes, classes), dtype=np.int64)
        losses = []
        pieces = sampler.validation_pieces()
        for first in range(0, len(pieces), self._settings.batch_size):
            batch = pieces[first : first + self._settings.batch_size]
            crops = [sampler.validation_crop(*piece) for piece in batch]
            labelled = [crop for crop in crops if (crop.labels != IGNORE).any()]
            if labelled:
                loss, counts = self._score(labelled)
                losses.append(loss)
                matrix += counts
        return EpochScore(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=float(np.mean(losses)) if losses else math.nan,
            accuracy=Accuracy(matrix) if losses else None,
        )

    def _sampler(self) -> Sampler:
        return Sampler(
            self._data.splits,
            crop_px=self._settings.crop_px,
            augmentation=self._settings.augmentation,
            seed=self._settings.seed,
        )

    def _step(self, crops: Sequence[Crop]) -> float:
        """Learn from one batch; its loss."""
        self.network.train()
        if self._settings.stage == "head":
            self.network.backbone.eval()
        values, labels = self._tensors(crops)
        values = jittered(values, self._settings.augmentation, self._jitter)
        with autocast(self._device, self._dtype):
            logits = self.network(values)
        loss = segmentation_loss(logits.float(), labels)
        _check_finite(loss)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        if not self._scaler.is_enabled():  # The scaler leaves such a step out by itself.
            _check_finite(norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        return float(loss.detach())

    @torch.no_grad()
    def _score(self, crops: Sequence[Crop]) -> tuple[float, np.ndarray[Any, Any]]:
        """Loss and confusion matrix of a batch."""
        values, labels = self._tensors(crops)
        with autocast(self._device, self._dtype):
            logits = self.network(values).float()
        predicted = logits.argmax(dim=1).cpu().numpy()
        matrix = confusion_matrix(labels.cpu().numpy(), predicted, len(self._data.legend))
        return float(segmentation_loss(logits, labels)), matrix

    def _tensors(self, crops: Sequence[Crop]) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalized pixels (batch, bands, side, side) and labels (batch, side, side)."""

        def stacked(arrays: list[Any]) -> torch.Tensor:
            return to_device(torch.from_numpy(np.stack(arrays)), self._device)

        valid = stacked([crop.valid for crop in crops])
        pixels = stacked([crop.pixels for crop in crops])
        values = normalize(pixels, valid, self._mean_N, self._std_N)
        return values, stacked([crop.labels for crop in crops])

    def _end_epoch(self, sampler: Sampler, epoch: int, losses: list[float]) -> EpochScore:
        """The score of the epoch; its weights are kept if they are the best so far."""
        if not any(losses):  # Nothing but 0, which label smoothing leaves out of reach.
            raise LabelError(
                f"{self._data.splits[0].scene.path}: holds no data where it is labelled, so there "
                f"is nothing to learn; label other places, or check which value means nodata."
            )
        score = self.validate(sampler, epoch=epoch, train_loss=float(np.mean(losses)))
        if score.is_better_than(self.best):
            self.best = score
            self._best_weights = {
                name: tensor.detach().cpu().clone() for name, tensor in self._trained().items()
            }
        return score

    def _trained(self) -> dict[str, torch.Tensor]:
        """Trained parameters and the head's batch norm statistics, by name."""
        named = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        return named | {f"head.{n}": b for n, b in self.network.head.named_buffers()}

    @torch.no_grad()
    def _load_best(self) -> None:
        for name, tensor in self._trained().items():
            tensor.copy_(self._best_weights[name])

    def _tell(self, step: int, losses: list[float], history: list[EpochScore]) -> None:
        epoch = (step - 1) // self._settings.steps_per_epoch + 1
        loss = float(np.mean(losses)) if losses else history[-1].train_loss
        message = f"epoch {epoch}/{self._settings.epochs}, loss {loss:.3f}"
        if history and self.best is not None and not math.isnan(self.best.mean_iou):
            message += f", mean IoU {history[-1].mean_iou:.3f} (best {self.best.mean_iou:.3f})"
        self._progress(step / self._steps, message)


def optimizer_of(network: DinoV2Segmentor, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over what is trained, with rates of their own for head and backbone."""
    rates = (
        (network.head, settings.learning_rate or HEAD_RATE),
        (network.backbone, settings.backbone_learning_rate or BACKBONE_RATE),
    )
    groups = []
    for module, rate in rates:
        trained = [p for p in module.parameters() if p.requires_grad]
        # Biases, norms and layer scales are not decayed, as usual for transformers.
        groups.append({"params": [p for p in trained if p.ndim > 1], "lr": rate})
        groups.append(
            {"params": [p for p in trained if p.ndim <= 1], "lr": rate, "weight_decay": 0.0}
        )
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)


def rate_share(step: int, steps: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine to a hundredth.

    Args:
        step: from 0.
        steps: of the whole training.
    """
    warm_up = max(1, int(steps * _WARM_UP))
    if step < warm_up:
        return (step + 1) / warm_up
    done = min((step - warm_up) / max(1, steps - warm_up), 1.0)
    return _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * done)) / 2


def _check_finite(value: torch.Tensor) -> None:
    if not torch.isfinite(value):
        raise ModelError(
            "training: the loss is no longer a number; give a smaller --learning-rate or "
            "--backbone-learning-rate."
        )
