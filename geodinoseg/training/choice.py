"""Which stage of a training is kept: a later one if it is clearly better on validation blocks."""

from __future__ import annotations

from collections.abc import Sequence

from geodinoseg.training.comparison import compared
from geodinoseg.training.history import EpochScore
from geodinoseg.training.settings import StageName

STAGE_TITLES: dict[StageName, str] = {
    "head": "the head alone",
    "fused": "the fused head",
    "lora": "LoRA",
    "full": "fine-tuning all weights",
}
"""In messages."""
_BESIDE_FUSED = "the linear head"


def choose(scores: Sequence[EpochScore]) -> tuple[EpochScore, str]:
    """The score of the stage to keep, and why: a sentence.

    Stages are compared by log loss. The earlier, simpler one is kept unless the later one is
    better by more than one standard error; without validation the last one is kept.

    Args:
        scores: last epochs of the stages, in order; at least one.
    """
    kept, *others = scores
    reasons = []
    for new in others:
        kept, reason = _better(new, kept, _titles(scores))
        reasons.append(reason)
    return kept, "; ".join(reasons) or f"{STAGE_TITLES[kept.stage]} was trained"


def _better(
    new: EpochScore, old: EpochScore, titles: dict[StageName, str]
) -> tuple[EpochScore, str]:
    ours, theirs = titles[new.stage], titles[old.stage]
    if new.losses is None or old.losses is None:
        return new, f"{ours} is kept"
    found = compared(new.losses, old.losses)
    kept, words = (new, "is kept") if found.is_clear else (old, "is not kept")
    return kept, (
        f"{ours} {words}: log loss {new.log_loss:.3f} on {found.blocks} validation blocks, "
        f"{theirs} {old.log_loss:.3f} (gain {found.gain:+.3f}, standard error "
        f"{found.standard_error:.3f})"
    )


def _titles(scores: Sequence[EpochScore]) -> dict[StageName, str]:
    has_fused = any(score.stage == "fused" for score in scores)
    return STAGE_TITLES | ({"head": _BESIDE_FUSED} if has_fused else {})
