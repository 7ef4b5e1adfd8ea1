"""Which stage of a training is kept: a later one if it is clearly better on validation blocks."""

from __future__ import annotations

from collections.abc import Sequence

from geodinoseg.training.comparison import compared
from geodinoseg.training.history import EpochScore
from geodinoseg.training.settings import StageName

STAGE_TITLES: dict[StageName, str] = {
    "head": "the head alone",
    "fused": "the fused head",
    "further": "the head with as many further steps",
    "lora": "LoRA",
    "full": "fine-tuning all weights",
}
"""In messages."""
_BESIDE_FUSED = "the linear head"
_FURTHER = "{} with as many further steps"


def choose(scores: Sequence[EpochScore]) -> tuple[EpochScore, str]:
    """The score of the stage to keep, and why: a sentence.

    Stages are compared by log loss. The earlier, simpler one is kept unless the later one is
    better by more than one standard error; without validation the last one is kept. Stage two must
    also beat the head that had as many further steps: what is gained by steps alone is not its own.

    Args:
        scores: last epochs of the stages, in order; at least one.
    """
    titles = dict(STAGE_TITLES)
    if any(score.stage == "fused" for score in scores):
        titles["head"] = _BESIDE_FUSED
    kept, *others = scores
    further: list[EpochScore] = []
    reasons = []
    for new in others:
        if new.stage == "further":
            titles["further"] = _with_further_steps(titles[kept.stage])
        is_better, reason = _beats(new, [kept, *further], titles)
        reasons.append(reason)
        if new.stage == "further":
            further = [new]
        kept = new if is_better else kept
    return kept, "; ".join(reasons) or f"{STAGE_TITLES[kept.stage]} was trained"


def _beats(
    new: EpochScore, rivals: Sequence[EpochScore], titles: dict[StageName, str]
) -> tuple[bool, str]:
    """Whether a stage is clearly better than each rival; the sentence names the strongest."""
    ours = titles[new.stage]
    found = [
        (compared(new.losses, old.losses), old)
        for old in rivals
        if new.losses is not None and old.losses is not None
    ]
    if not found:
        return True, f"{ours} is kept"
    closest, old = min(found, key=lambda pair: pair[0].margin)
    words = "is kept" if closest.is_clear else "is not kept"
    return closest.is_clear, (
        f"{ours} {words}: log loss {new.log_loss:.3f} on {closest.blocks} validation blocks, "
        f"{titles[old.stage]} {old.log_loss:.3f} (gain {closest.gain:+.3f}, standard error "
        f"{closest.standard_error:.3f})"
    )


def _with_further_steps(title: str) -> str:
    return STAGE_TITLES["further"] if title == STAGE_TITLES["head"] else _FURTHER.format(title)
