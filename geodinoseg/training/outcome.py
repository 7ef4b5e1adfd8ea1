"""Which stage of a training is kept, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geodinoseg.training.history import EpochScore
    from geodinoseg.training.settings import Stage

STAGE_NAMES: dict[Stage, str] = {
    "head": "the head alone",
    "lora": "LoRA",
    "full": "fine-tuning all weights",
}
"""For people."""


def outcome(head: EpochScore | None, tuned: EpochScore | None) -> str:
    """Which of two stages is kept, and by how much: a sentence for people.

    Args:
        head: the best epoch of stage one, if there was one.
        tuned: the best epoch of stage two, if there was one.
    """
    if tuned is None:
        return "the head alone was trained"
    name = STAGE_NAMES[tuned.stage]
    if head is None or math.isnan(tuned.mean_iou) or math.isnan(head.mean_iou):
        return f"{name} is kept"
    gain = tuned.mean_iou - head.mean_iou
    if gain > 0:
        return f"{name} {tuned.mean_iou:.3f} beats the head alone {head.mean_iou:.3f} ({gain:+.3f})"
    return f"the head alone ({head.mean_iou:.3f}) is kept: {name} reached {tuned.mean_iou:.3f}"
