"""The U-Net that `accuracy.py` compares with: from scratch, same crops, same loss, same CPU time.

Ronneberger, Fischer and Brox (2015), "U-Net: Convolutional Networks for Biomedical Image
Segmentation", with padded convolutions and batch norm, and five levels below the first: for the
same number of weights that costs less time per step than fewer, wider levels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from geodinoseg.evaluation.accuracy import Accuracy, confusion_matrix
from geodinoseg.model.segmentor import normalize
from geodinoseg.training.batches import CropSource, ValidationCrops
from geodinoseg.training.data import TrainingData
from geodinoseg.training.optimizer import Optimizer, segmentation_loss
from geodinoseg.training.sampler import read_ahead
from geodinoseg.training.settings import TrainingSettings

LEVELS = 5
RATE, WEIGHT_DECAY = 1e-3, 0.05
VALIDATIONS = 15
"""Times that the weights are scored on the validation blocks; the best are kept."""
_MOST_STEPS = 1_000_000


class UNet(nn.Module):
    """Contracting and expanding path of double convolutions, with skips."""

    def __init__(self, bands: int, classes: int, *, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS + 1)]
        self.down = nn.ModuleList(
            _double(before, after)
            for before, after in zip([bands, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * side, side, kernel_size=2, stride=2) for side in widths[-2::-1]
        )
        self.merge = nn.ModuleList(_double(2 * side, side) for side in widths[-2::-1])
        self.classify = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, pixels_BNHW: torch.Tensor) -> torch.Tensor:
        """(batch, classes, height, width) logits; any height and width."""
        height, width = pixels_BNHW.shape[-2:]
        multiple = 2**LEVELS
        padding = (0, -width % multiple, 0, -height % multiple)
        maps = functional.pad(pixels_BNHW, padding, mode="replicate")
        skips = []
        for level, block in enumerate(self.down):
            maps = block(maps if level == 0 else functional.max_pool2d(maps, 2))
            skips.append(maps)
        skips.pop()
        for upsample, block in zip(self.up, self.merge, strict=True):
            maps = block(torch.cat([skips.pop(), upsample(maps)], dim=1))
        return self.classify(maps)[..., :height, :width]


def _double(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv2d(channels, after, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def parameters_of(network: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in network.parameters())


def unet_of_size(bands: int, classes: int, *, parameters: int) -> UNet:
    """The U-Net whose number of weights comes nearest to another network's."""
    with torch.device("meta"):
        sizes = {width: parameters_of(UNet(bands, classes, width=width)) for width in range(2, 33)}
    width = min(sizes, key=lambda width: abs(sizes[width] - parameters))
    return UNet(bands, classes, width=width)


class UNetModel:
    """A U-Net as the engine takes it: a `TileModel`."""

    tile_multiple = 1

    def __init__(self, network: UNet, source: CropSource) -> None:
        self.network = network
        self.legend, self.bands = source.data.legend, source.data.bands
        self.device = source.device
        self.tile_px = source.data.crop_px
        statistics = source.data.statistics
        self._mean = torch.tensor(statistics.mean, dtype=torch.float32)
        self._std = torch.tensor(statistics.std, dtype=torch.float32)

    @torch.inference_mode()
    def probabilities(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """(n, classes, T, T) float32."""
        values = normalize(pixels, valid, self._mean, self._std)
        return torch.softmax(self.network(values), dim=1)


def train_unet(
    data: TrainingData,
    settings: TrainingSettings,
    *,
    parameters: int,
    seconds: float,
    progress: Callable[[float, str], None],
) -> tuple[UNetModel, int]:
    """Train for so much CPU time of this process; the weights that validate best are kept.

    Where too few labels are left to validate on, the last weights are kept.

    Args:
        data: scenes, labels and validation blocks, as `train_model` reads them.
        settings: crops, batch and augmentation, as `train_model` takes them.
        parameters: number of weights to come near to.
        seconds: of the process on all cores, validation included.
        progress: told the share of the time and the loss.

    Returns:
        The model, and how many steps it made.
    """
    torch.manual_seed(settings.seed)
    source = CropSource(data, data.statistics, settings, torch.device("cpu"))
    network = unet_of_size(len(data.bands), len(data.legend), parameters=parameters)
    optimizer = Optimizer(
        [(network, RATE)], weight_decay=WEIGHT_DECAY, device=source.device, dtype=source.dtype
    )
    pieces = ValidationCrops(source) if source.training_fold is not None else None
    best, best_weights, losses, validations = -1.0, {}, [], 0
    began = time.process_time()
    batches = read_ahead(
        source.sampler(source.training_fold),
        steps=range(_MOST_STEPS),
        batch_size=settings.batch_size,
    )
    with closing(batches):
        for step, crops in enumerate(batches, start=1):
            share = min((time.process_time() - began) / seconds, 1.0)
            network.train()
            values, _, labels = source.tensors(crops)
            loss = segmentation_loss(network(values), labels)
            losses.append(optimizer.step(loss, rate_share(share)))
            if share >= (validations + 1) / VALIDATIONS or share == 1.0:
                validations += 1
                score = validated(network, source, pieces)
                if math.isnan(score) or score > best:
                    best = score
                    best_weights = {n: t.clone() for n, t in network.state_dict().items()}
                progress(share, f"step {step}, loss {np.mean(losses):.3f}, mean IoU {score:.3f}")
                losses.clear()
            if share == 1.0:
                break
    network.load_state_dict(best_weights)
    network.eval()
    return UNetModel(network, source), step


def rate_share(done: float) -> float:
    """Share of the learning rate: warm-up over a twentieth, then a cosine to a hundredth."""
    if done < 0.05:
        return max(done / 0.05, 0.01)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (done - 0.05) / 0.95)) / 2


@torch.no_grad()
def validated(network: nn.Module, source: CropSource, crops: ValidationCrops | None) -> float:
    """Mean IoU on the validation blocks; NaN without any."""
    network.eval()
    matrix = np.zeros((source.classes, source.classes), dtype=np.int64)
    for batch in crops.batches() if crops is not None else ():
        values, _, labels = source.tensors([crop for _, crop in batch])
        predicted = network(values).argmax(dim=1)
        matrix += confusion_matrix(labels.numpy(), predicted.numpy(), source.classes)
    return Accuracy(matrix).mean_iou
