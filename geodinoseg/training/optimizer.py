"""How weights are updated and scored: losses, AdamW with warm-up and cosine, validation scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from geodinoseg.errors import ModelError
from geodinoseg.evaluation.accuracy import Accuracy, confusion_matrix
from geodinoseg.labels.classes import IGNORE
from geodinoseg.model.weights import Tensors
from geodinoseg.training.comparison import BlockLosses

_WARM_UP = 1 / 20
_LAST_RATE = 0.01
_LARGEST_GRADIENT = 1.0


class Optimizer:
    """AdamW over modules, each with its own learning rate."""

    def __init__(
        self,
        rates: Sequence[tuple[nn.Module, float]],
        *,
        weight_decay: float,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Take modules with their maximum learning rates; losses are scaled for dtype float16."""
        groups: list[dict[str, Any]] = []
        for module, rate in rates:
            trained = [p for p in module.parameters() if p.requires_grad]
            # Biases, norms and layer scales are not decayed, as usual for transformers.
            matrices = {"params": [p for p in trained if p.ndim > 1], "lr": rate}
            others = {"params": [p for p in trained if p.ndim <= 1], "lr": rate}
            groups += [matrices, others | {"weight_decay": 0.0}]
        self._adamw = torch.optim.AdamW(groups, weight_decay=weight_decay)
        self._rates = [group["lr"] for group in groups]
        self._parameters = [p for group in groups for p in group["params"]]
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step(self, loss: torch.Tensor, rate_factor: float) -> float:
        """Move the weights against the gradient of a loss; returns the loss.

        Raises:
            ModelError: the loss or its gradient is no longer finite.
        """
        _check_finite(loss)
        for group, rate in zip(self._adamw.param_groups, self._rates, strict=True):
            group["lr"] = rate * rate_factor
        self._adamw.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._adamw)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, _LARGEST_GRADIENT)
        if not self._scaler.is_enabled():  # The scaler skips such a step by itself.
            _check_finite(norm)
        self._scaler.step(self._adamw)
        self._scaler.update()
        return float(loss.detach())

    def state(self) -> Tensors:
        """State of AdamW for each parameter, and the scale of losses in float16."""
        remembered: dict[int, Tensors] = self._adamw.state_dict()["state"]
        state = {
            f"{index}.{name}": tensor.detach().cpu().clone()
            for index, tensors in remembered.items()
            for name, tensor in tensors.items()
        }
        scale: dict[str, float] = self._scaler.state_dict()
        return state | {f"scaler.{n}": torch.tensor(v) for n, v in scale.items()}

    def load_state(self, state: Tensors) -> None:
        """Restore what `state` returned."""
        remembered: dict[int, Tensors] = {}
        scale = {}
        for key, tensor in state.items():
            index, _, name = key.partition(".")
            if index == "scaler":
                scale[name] = tensor.item()
            else:
                remembered.setdefault(int(index), {})[name] = tensor
        whole = self._adamw.state_dict()
        self._adamw.load_state_dict(whole | {"state": remembered})
        if scale:
            self._scaler.load_state_dict(scale)


def rate_factor(step: int, steps: int, time_fraction: float = 0.0) -> float:
    """Factor of the learning rate at a step: linear warm-up, then a cosine to a hundredth.

    The schedule follows steps or time, whichever ends first.
    """
    warm_up = max(1, int(steps * _WARM_UP))
    if step < warm_up and time_fraction < _WARM_UP:
        return max((step + 1) / warm_up, time_fraction / _WARM_UP)
    by_step = (step - warm_up) / max(1, steps - warm_up)
    by_time = (time_fraction - _WARM_UP) / (1 - _WARM_UP)
    done = min(max(by_step, by_time, 0.0), 1.0)
    return _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * done)) / 2


def head_tensors(head: nn.Module) -> Tensors:
    """Weights of a head and its batch norm statistics, by name; not copied."""
    named = [*head.named_parameters(), *head.named_buffers()]
    return {f"head.{name}": tensor for name, tensor in named}


def numbered(groups: Sequence[Tensors]) -> Tensors:
    """Tensors of several folds in one dictionary, `0.name` for those of the first; not copied."""
    return {
        f"{i}.{name}": tensor for i, group in enumerate(groups) for name, tensor in group.items()
    }


def of_number(tensors: Tensors, number: int) -> Tensors:
    """The tensors of one fold out of `numbered`."""
    prefix = f"{number}."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def copied(tensors: Tensors) -> Tensors:
    """Copies on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def restore(tensors: Tensors, values: Tensors) -> None:
    """Copy values into tensors of the same names."""
    for name, tensor in tensors.items():
        tensor.copy_(values[name])


def _check_finite(value: torch.Tensor) -> None:
    if not torch.isfinite(value):
        raise ModelError(
            "training: the loss is no longer finite; give a smaller --learning-rate or "
            "--backbone-learning-rate."
        )


LABEL_SMOOTHING = 0.05
"""Fraction of the target that is spread over all classes: outlines are drawn by hand."""


def segmentation_loss(logits_BCHW: torch.Tensor, labels_BHW: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus Dice.

    Cross-entropy is the mean over labelled pixels, with label smoothing. Dice is
    1 - 2 |P and L| / (|P| + |L|) with probabilities for P, averaged over the classes among the
    batch's labels (Milletari et al. 2016, V-Net).

    Args:
        logits_BCHW: (batch, classes, height, width) float32.
        labels_BHW: (batch, height, width) int64, IGNORE where there is no label.

    Returns:
        A differentiable scalar; 0 if nothing is labelled.
    """
    labelled_BHW = labels_BHW != IGNORE
    if not labelled_BHW.any():
        return logits_BCHW.sum() * 0.0
    entropy = functional.cross_entropy(
        logits_BCHW, labels_BHW, ignore_index=IGNORE, label_smoothing=LABEL_SMOOTHING
    )
    return entropy + _dice(logits_BCHW, labels_BHW, labelled_BHW)


def loss_of_members(members_BCHW: Sequence[torch.Tensor], labels_BHW: torch.Tensor) -> torch.Tensor:
    """The mean of `segmentation_loss` over the members of a head."""
    losses = [segmentation_loss(logits.float(), labels_BHW) for logits in members_BCHW]
    return torch.stack(losses).mean() if len(losses) > 1 else losses[0]


def _dice(
    logits_BCHW: torch.Tensor, labels_BHW: torch.Tensor, labelled_BHW: torch.Tensor
) -> torch.Tensor:
    target_BCHW = torch.zeros_like(logits_BCHW).scatter_(
        1, labels_BHW.clamp(min=0)[:, None], labelled_BHW[:, None].to(logits_BCHW.dtype)
    )
    probabilities_BCHW = torch.softmax(logits_BCHW, dim=1) * labelled_BHW[:, None]
    axes = (0, 2, 3)
    overlap_C = (probabilities_BCHW * target_BCHW).sum(axes)
    target_C = target_BCHW.sum(axes)
    sizes_C = probabilities_BCHW.sum(axes) + target_C
    present_C = target_C > 0
    return 1 - (2 * overlap_C[present_C] / sizes_C[present_C]).mean()


class Scorer:
    """Scores predictions of labelled pixels."""

    def __init__(self, classes: int, blocks: int) -> None:
        """Take the number of classes, and that of validation blocks."""
        self._classes = classes
        self._block_sums, self._block_pixels = np.zeros(blocks), np.zeros(blocks)
        self._matrix: NDArray[np.int64] = np.zeros((classes, classes), dtype=np.int64)
        self._losses: list[float] = []

    def add(
        self, logits_BCHW: torch.Tensor, labels_BHW: torch.Tensor, blocks: Sequence[int]
    ) -> None:
        """Count a batch, with logits and labels as for `segmentation_loss`; blocks of each."""
        predicted = logits_BCHW.argmax(dim=1).cpu().numpy()
        self._matrix += confusion_matrix(labels_BHW.cpu().numpy(), predicted, self._classes)
        self._losses.append(float(segmentation_loss(logits_BCHW, labels_BHW)))
        each_BHW = functional.cross_entropy(
            logits_BCHW.double(), labels_BHW, ignore_index=IGNORE, reduction="none"
        )
        np.add.at(self._block_sums, blocks, each_BHW.sum(dim=(1, 2)).cpu().numpy())
        labelled = (labels_BHW != IGNORE).sum(dim=(1, 2)).cpu().numpy()
        np.add.at(self._block_pixels, blocks, labelled)

    @property
    def loss(self) -> float:
        """Mean over the batches; NaN without any."""
        return float(np.mean(self._losses)) if self._losses else math.nan

    @property
    def losses(self) -> BlockLosses | None:
        """Log loss by block, of the blocks that were counted; None without a batch."""
        counted = self._block_pixels > 0
        if not counted.any():
            return None
        return BlockLosses(sums=self._block_sums[counted], pixels=self._block_pixels[counted])

    @property
    def accuracy(self) -> Accuracy | None:
        """Of all pixels; None without a batch."""
        return Accuracy(self._matrix) if self._losses else None
