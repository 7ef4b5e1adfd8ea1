"""What a segmentation would take, measured on one batch, before it is started."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from geodinoseg.model.tile_model import TileModel
from geodinoseg.segmentation.job import decide, loaded_model
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.settings import SegmentSettings


def estimate(
    scene: Any,
    model: str | Path | TileModel,
    settings: SegmentSettings | None = None,
    *,
    device: str = "auto",
    confidence: bool = False,
    probabilities: bool = False,
) -> tuple[Plan, float]:
    """The plan of a segmentation, and the seconds that its forward passes would take.

    The network runs on two batches of blank tiles; the second is timed.

    Args:
        scene: as `segment_scene` takes it.
        model: as `segment_scene` takes it.
        settings: as `segment_scene` takes them.
        device: where a model folder is loaded.
        confidence: whether the map would hold the winner's probability.
        probabilities: whether it would hold the probability of each class.

    Returns:
        The plan, and an estimate in seconds if every tile holds data.

    Raises:
        GeodinosegError: whatever `segment_scene` would say before its first tile.
    """
    settings = settings or SegmentSettings()
    loaded = loaded_model(model, settings, device=device)
    plan, loaded = decide(
        scene, loaded, settings, confidence=confidence, probabilities=probabilities
    )
    count = min(plan.batch_size, len(plan.grid))
    per_tile = _seconds_of_batch(plan, loaded, count) / count
    return plan, per_tile * len(plan.grid)


def _seconds_of_batch(plan: Plan, model: TileModel, count: int) -> float:
    side, bands = plan.grid.tile_px, len(plan.scene.bands)
    pixels = torch.zeros((count, bands, side, side), dtype=torch.float32, device=model.device)
    valid = torch.ones((count, side, side), dtype=torch.bool, device=model.device)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        # A sum brought to the host waits for a GPU to be done.
        float(model.probabilities(pixels, valid).sum())
        seconds = time.perf_counter() - began
    return seconds
