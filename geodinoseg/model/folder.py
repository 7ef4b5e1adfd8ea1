"""A model as a folder that anyone can read: safetensors and JSON, never pickle, never code.

farmland.model/
  config.json         legend, statistics, bands, tile, resolution, network, training, scores
  model.safetensors   head with its batch norm statistics, LoRA, patch embedding
  backbone/           as transformers saves it; absent if config.json names it on the hub, or says
                      that there is none
  README.md           the model card
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geodinoseg.errors import ModelError, ModelFolderError, one_line
from geodinoseg.files.arguments import wrong_argument
from geodinoseg.files.atomic import PathLike, atomic_folder, check_output_folder
from geodinoseg.legend import Legend
from geodinoseg.model.backbone import backbone_class, read_backbone_config
from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.card import model_card
from geodinoseg.model.config import (
    BACKBONE,
    CONFIG,
    FORMAT,
    FORMAT_VERSION,
    WEIGHTS,
    is_model_folder,
    read_model_config,
)
from geodinoseg.model.description import model_folder
from geodinoseg.model.devices import pick_device
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.parameters import NO_BACKBONE
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.model.untrusted_backbone import check_backbone_weights
from geodinoseg.model.weights import (
    check_fit,
    has_weights_of_source,
    load_weights,
    read_weights,
    save_backbone,
    save_weights,
)
from geodinoseg.version import __version__


def save_model(segmentor: Segmentor, folder: PathLike, *, overwrite: bool = False) -> Path:
    """Write a model folder; it appears only when it is complete.

    The backbone is written too, unless it is an unchanged one from the hub.

    Args:
        segmentor: the model.
        folder: the model folder to write.
        overwrite: whether to replace a model that exists.

    Returns:
        The folder.

    Raises:
        OutputExistsError: a model exists, and overwrite is False.
        OutputError: the folder cannot be written, or holds other things.
        ModelError: it is no Segmentor; or the backbone is quantized, and the source of its full
            weights is gone.
    """
    if not isinstance(segmentor, Segmentor):
        raise wrong_argument(
            segmentor,
            "segmentor",
            "a Segmentor",
            error=ModelError,
            way_out="give what train_model or load_model returned, then the folder",
        )
    target = check_output_folder(folder, overwrite=overwrite, is_ours=is_model_folder)
    with atomic_folder(target) as fresh:
        write_model(segmentor, fresh)
    return target


def write_model(segmentor: Segmentor, folder: Path) -> None:
    """Write the files of a model into an existing folder."""
    network = segmentor.network
    save_weights(network, folder / WEIGHTS)
    reference = _reference(network)
    if reference is None:
        save_backbone(network, folder / BACKBONE)
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "geodinoseg_version": __version__,
        "legend": segmentor.legend.to_json(),
        "bands": list(segmentor.bands),
        "band_names": list(segmentor.band_names),
        "statistics": segmentor.statistics.to_json(),
        "tile_px": segmentor.trained_tile_px,
        "pixel_size_m": segmentor.pixel_size_m,
        "temperature": segmentor.temperature,
        "network": network.settings,
        "backbone": reference,
        "training": _plain(segmentor.training),
        "scores": _plain(segmentor.scores),
        "sha256": _checksums(folder),
    }
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / CONFIG).write_text(text + "\n", "utf-8")
    (folder / "README.md").write_text(model_card(segmentor), "utf-8")
    for path in folder.rglob("*.safetensors"):
        # safetensors makes its files readable by their owner alone.
        path.chmod((folder / CONFIG).stat().st_mode)


def load_model(folder: PathLike, *, device: str = "auto", precision: str = "auto") -> Segmentor:
    """Load a model folder for segmentation.

    LoRA is merged into the weights unless these are quantized.

    Args:
        folder: as `save_model` writes it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: see `devices.pick_precision`.

    Raises:
        ModelFolderError: the folder is missing, incomplete, damaged or of another kind.
        DeviceError: there is no such device.

    Example:
        >>> import geodinoseg as gds
        >>> model = gds.load_model("crops.model", device="cpu")
        >>> model.bands, model.tile_px
        ((1, 2, 3), 518)
    """
    place = model_folder(folder)
    where = pick_device(device)
    config = read_model_config(place)
    _check_checksums(place, config["sha256"])
    network = _load_network(place, config)
    network.merge_lora()
    network.requires_grad_(requires_grad=False).eval()
    return Segmentor(
        network=network.to(where),
        legend=Legend.from_json(config["legend"]),
        statistics=BandStatistics.from_json(config["statistics"]),
        bands=tuple(config["bands"]),
        band_names=tuple(config.get("band_names", ())),
        trained_tile_px=config["tile_px"],
        pixel_size_m=config["pixel_size_m"],
        temperature=float(config.get("temperature", 1.0)),
        precision=precision,
        training=config["training"],
        scores=config["scores"],
    )


def _reference(network: DinoV2Segmentor) -> dict[str, str | None] | None:
    """Name and revision of the backbone on the hub; None if it has to be in the folder.

    The name is `none` without a backbone.
    """
    if not network.has_backbone:
        return {"name": NO_BACKBONE, "revision": None}
    if network.backbone_differs_from_source or network.source_is_folder:
        return None
    # A training loop of the user's own may have trained the backbone without setting the flag.
    if not has_weights_of_source(network):
        return None
    return {"name": network.source, "revision": network.revision}


def _load_network(place: Path, config: Mapping[str, Any]) -> DinoV2Segmentor:
    stored = read_weights(place, place / WEIGHTS)
    settings = config["network"]
    reference = config["backbone"] or {"name": place / BACKBONE, "revision": None}
    source, revision = reference["name"], reference["revision"]
    try:
        backbone = read_backbone_config(source, revision=revision)
        check_fit(
            settings,
            stored,
            in_channels=backbone.hidden_size * settings["n_features"],
            patch_px=backbone.patch_size,
            bands=len(config["bands"]),
        )
        if config["backbone"] is None:
            check_backbone_weights(place, place / BACKBONE, backbone, backbone_class(backbone))
        network = DinoV2Segmentor(
            **settings, backbone=source, revision=revision, bands=len(config["bands"])
        )
        load_weights(network, stored)
    except ModelError as error:
        raise ModelFolderError(f"{place}: cannot be loaded: {error}") from error
    except ValueError as error:
        raise ModelFolderError(
            f"{place}: {WEIGHTS} is that of another model ({error}); copy the whole folder again."
        ) from error
    return network


def _plain(value: Any) -> Any:
    """A value as plain JSON: NaN as null, paths as text, NumPy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file so far, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _check_checksums(place: Path, expected: Mapping[str, str]) -> None:
    for path in sorted(place.rglob("*.safetensors")):
        if path.relative_to(place).as_posix() not in expected:
            raise ModelFolderError(
                f"{place}: {path.relative_to(place)} has no checksum in {CONFIG}; copy the folder "
                f"again, or remove it if it is a stray file."
            )
    for name, checksum in expected.items():
        path = place / name
        if not path.is_file():
            raise ModelFolderError(f"{place}: {name} is missing; copy the whole folder again.")
        if _sha256(path) != checksum:
            raise ModelFolderError(
                f"{place}: {name} is not the file that was saved (its checksum differs); copy the "
                f"folder again."
            )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise ModelFolderError(
            f"{path}: cannot be read ({one_line(error)}); check the disk."
        ) from error
