"""A number that two trainings share if, and in practice only if, they would give the same model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from geodinoseg.model.band_widening import patch_embedding
from geodinoseg.version import __version__

if TYPE_CHECKING:
    from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
    from geodinoseg.model.normalization import BandStatistics
    from geodinoseg.training.batches import CropSource

_WITHOUT_EFFECT = ("minutes", "cache_bytes")
"""Settings that change when a training ends or where it keeps things, not what an epoch does."""
_CROPS = 8


def training_fingerprint(
    source: CropSource, network: DinoV2Segmentor, statistics: BandStatistics
) -> str:
    """SHA-256 over settings, network, split, legend, statistics, version and some crops.

    The crops stand for the contents of scenes and labels: a file may be touched, moved or saved
    again without becoming another.

    Args:
        source: data and settings.
        network: before training.
        statistics: how pixels are normalized.
    """
    digest = hashlib.sha256()
    settings = asdict(source.settings)
    facts = {
        "version": __version__,
        "settings": {n: v for n, v in settings.items() if n not in _WITHOUT_EFFECT},
        "network": network.settings,
        "backbone": None if network.source_is_folder else [network.source, network.revision],
        "legend": source.data.legend.to_json(),
        "statistics": statistics.to_json(),
        "scenes": [_scene_facts(split) for split in source.data.splits],
        "folds": source.data.folds,
    }
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    weight = patch_embedding(network.base_backbone).weight
    arrays = [weight.detach().cpu().float().numpy()]
    for split in source.data.splits:
        arrays += [split.counts, split.folds]
    with source.sampler(source.training_fold) as sampler:
        for crop in sampler.batch(0, _CROPS):
            arrays += [np.where(crop.valid, crop.pixels, 0), crop.valid, crop.labels]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _scene_facts(split: Any) -> list[Any]:
    scene = split.scene
    return [
        scene.height, scene.width, list(scene.geobox.transform), scene.bands, str(scene.dtype),
        scene.nodata, split.block_px,
    ]  # fmt: skip
