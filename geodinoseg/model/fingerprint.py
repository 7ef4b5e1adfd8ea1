"""The fingerprint of a model: it changes when its predictions do."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from geodinoseg.errors import ModelFolderError, one_line
from geodinoseg.model.config import CONFIG
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.model.tile_model import TileModel


def model_fingerprint(model: str | Path | TileModel) -> dict[str, Any]:
    """Fingerprint as plain JSON; empty for a `TileModel` without one.

    For a model folder the digest of its config.json, which holds those of all its files (loading
    compares them); for a `Segmentor` in memory that of its weights; for another `TileModel` its
    attribute `fingerprint`.
    """
    if isinstance(model, str | Path):
        return {"config": _digest_of_config(Path(model))}
    if isinstance(model, Segmentor):
        return {"weights": _digest_of_weights(model)}
    fingerprint = getattr(model, "fingerprint", None)
    return {} if fingerprint is None else {"fingerprint": str(fingerprint)}


def _digest_of_config(folder: Path) -> str:
    try:
        return hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()
    except OSError as error:
        raise ModelFolderError(
            f"{folder}: {CONFIG} cannot be read ({one_line(error)}); look at the disk."
        ) from error


def _digest_of_weights(model: Segmentor) -> str:
    facts = [model.legend.to_json(), model.statistics.to_json(), model.bands, model.pixel_size_m]
    digest = hashlib.sha256(json.dumps([*facts, model.network.settings], sort_keys=True).encode())
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(f"{name} {getattr(value, 'dtype', '')} ".encode())
        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
