"""What planning must know of a model, read without loading the network: facts, fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodinoseg.errors import ModelFolderError, one_line
from geodinoseg.files.arguments import path_text, wrong_argument
from geodinoseg.legend import Legend
from geodinoseg.model.config import BACKBONE, CONFIG, read_model_config
from geodinoseg.model.json_object import WrongJsonError, read_json_object
from geodinoseg.model.parameters import NO_BACKBONE, has_backbone, known_patch_px
from geodinoseg.model.resampling import resampling, scaled_tile_px, tile_multiple
from geodinoseg.model.tile_model import TileModel

_OF_TILE_MODEL = ("legend", "bands", "tile_multiple", "device", "probabilities")


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """Classes, bands and sides of a model folder. Made by `describe_model`; loads no torch."""

    legend: Legend
    """Classes in the order of the network's channels."""
    bands: tuple[int, ...]
    """Bands of a scene that it reads, from 1."""
    patch_px: int | None
    """Side of a token of the backbone; None where only the hub knows it."""
    trained_tile_px: int
    """Side of the tiles that it was trained on, in pixels of its own ground resolution."""
    band_names: tuple[str, ...]
    """Descriptions of the bands in the training scenes; empty if these have none."""
    pixel_size_m: float | None
    """Ground resolution of the training scenes, metres; None where they had no CRS."""
    scale: float = 1.0
    """Pixels of its own per pixel of the scene."""
    aspect: float = 1.0
    """Width of a pixel of the scene over its height, on the ground."""

    @property
    def tile_multiple(self) -> int:
        """Sides of tiles that it takes are multiples of this; 1 where it is not known."""
        return tile_multiple(self.patch_px or 1, self.scale, self.aspect)

    @property
    def tile_px(self) -> int:
        """Side of the tiles it was trained on, in pixels of the scene."""
        return scaled_tile_px(self.trained_tile_px, self.tile_multiple, self.scale)

    def at_pixel_size(self, pixel_size_m: float | None, *, aspect: float = 1.0) -> ModelDescription:
        """The same for scenes of another ground resolution; see `Segmentor.at_pixel_size`."""
        scale, aspect = resampling(pixel_size_m, self.pixel_size_m, aspect)
        return dataclasses.replace(self, scale=scale, aspect=aspect)


def model_folder(given: Any) -> Path:
    """The path of a model folder; ModelFolderError if something else was given."""
    return Path(path_text(given, "model", "a model folder", error=ModelFolderError))


def model_source(given: Any) -> str | TileModel:
    """A model as segmentation takes it: the path of a folder as text, or a `TileModel`.

    Raises:
        ModelFolderError: it is neither.
    """
    if isinstance(given, str | os.PathLike):
        return str(model_folder(given))
    if all(hasattr(given, name) for name in _OF_TILE_MODEL):
        model: TileModel = given
        return model
    raise wrong_argument(
        given,
        "model",
        "a model folder, a loaded Segmentor or another TileModel",
        error=ModelFolderError,
        way_out="give the folder that train_model wrote",
    )


def describe_model(folder: str | Path) -> ModelDescription:
    """Read config.json of a model folder, and that of the backbone in it.

    Raises:
        ModelFolderError: the folder is missing, incomplete, damaged or of another kind.
    """
    config = read_model_config(folder)
    return ModelDescription(
        legend=Legend.from_json(config["legend"]),
        bands=tuple(config["bands"]),
        band_names=tuple(config.get("band_names", ())),
        patch_px=_patch_px(Path(folder), config["backbone"]),
        trained_tile_px=config["tile_px"],
        pixel_size_m=config["pixel_size_m"],
    )


def model_fingerprint(model: str | Path | TileModel) -> dict[str, Any]:
    """What changes when the predictions of a model do, as plain JSON.

    For a model folder the digest of its config.json, which holds those of all its files (loading
    compares them); for a `TileModel` its attribute `fingerprint`, and nothing where it has none.
    """
    if isinstance(model, str | Path):
        return {"config": _digest_of_config(Path(model))}
    fingerprint = getattr(model, "fingerprint", None)
    return {} if fingerprint is None else {"fingerprint": str(fingerprint)}


def _digest_of_config(folder: Path) -> str:
    try:
        return hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()
    except OSError as error:
        raise ModelFolderError(
            f"{folder}: {CONFIG} cannot be read ({one_line(error)}); check the disk."
        ) from error


def _patch_px(folder: Path, reference: Mapping[str, Any] | None) -> int | None:
    """The patch that a backbone's config.json names; loading the model says what is wrong there."""
    if reference is not None and not has_backbone(reference["name"]):
        return known_patch_px(NO_BACKBONE)
    try:
        patch_px = read_json_object(folder / BACKBONE / CONFIG).get("patch_size")
    except WrongJsonError:
        return None
    return patch_px if isinstance(patch_px, int) and 0 < patch_px < 1 << 16 else None
