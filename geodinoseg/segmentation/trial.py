"""Estimates the time of a segmentation by a trial of one batch."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

import torch

from geodinoseg.model.tile_model import TileModel
from geodinoseg.progress import log_step
from geodinoseg.rasters.scene import Scene
from geodinoseg.segmentation.outputs import MapFiles
from geodinoseg.segmentation.plan import Plan
from geodinoseg.segmentation.runner import loaded_model, plan_for_device
from geodinoseg.segmentation.settings import SegmentationSettings

logger = logging.getLogger(__name__)


def timed_plan(
    scene: Scene,
    model: str | Path | TileModel,
    settings: SegmentationSettings,
    *,
    files: MapFiles,
    device: str,
) -> Plan:
    """The plan of a segmentation with the estimated seconds of its forward passes.

    The network runs on two batches of blank tiles; the second is timed.
    """
    loaded = loaded_model(model, settings, device=device)
    plan, loaded = plan_for_device(
        scene,
        loaded,
        settings,
        confidence=files.confidence is not None,
        probabilities=files.probabilities is not None,
    )
    log_step(logger, "timing the network on two batches of blank tiles.")
    count = min(plan.batch_size, len(plan.grid))
    per_tile = _seconds_of_batch(plan, loaded, count) / count
    return dataclasses.replace(plan, seconds=per_tile * len(plan.grid))


def _seconds_of_batch(plan: Plan, model: TileModel, count: int) -> float:
    side, bands = plan.grid.tile_px, len(plan.scene.bands)
    pixels = torch.zeros((count, bands, side, side), dtype=torch.float32, device=model.device)
    valid = torch.ones((count, side, side), dtype=torch.bool, device=model.device)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        # Copying the sum to the host waits for the GPU.
        float(model.probabilities(pixels, valid).sum())
        seconds = time.perf_counter() - began
    return seconds
