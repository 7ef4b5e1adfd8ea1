"""A model as a folder that anyone can read: safetensors and JSON, never pickle, never code.

farmland.model/
  config.json         legend, statistics, bands, tile, resolution, network, training, scores
  model.safetensors   head with its batch norm statistics, LoRA, widened patch embedding
  backbone/           as transformers saves it; absent where config.json names it on the hub
  README.md           the model card
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from geodinoseg.devices import pick_device
from geodinoseg.errors import LegendError, ModelError, ModelFolderError, one_line
from geodinoseg.legend import Legend
from geodinoseg.model.backbone import load_backbone, patch_embedding
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.model_card import model_card
from geodinoseg.model.normalization import BandStatistics
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.outputs import check_output_folder, folder_written_beside
from geodinoseg.version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMAT = "geodinoseg-model"
FORMAT_VERSION = 1

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_BACKBONE = "backbone"
_LARGEST_CONFIG_BYTES = 16 << 20
_PICKLES = {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth", ".joblib"}


def save_model(segmentor: Segmentor, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model folder; it appears only when it is whole.

    The backbone is written too, unless it is that of a name on the hub, unchanged.

    Raises:
        OutputExistsError: a model is there, and overwrite is False.
        OutputError: the folder cannot be written, or holds other things.
    """
    target = check_output_folder(folder, overwrite=overwrite, is_ours=is_model_folder)
    with folder_written_beside(target) as fresh:
        write_model(segmentor, fresh)
    return target


def write_model(segmentor: Segmentor, folder: Path) -> None:
    """Write the files of a model into a folder that is there already."""
    network = segmentor.network
    save_file(_weights(network), folder / _WEIGHTS)
    inside = network.backbone_differs_from_source or Path(network.source).is_dir()
    if inside:
        _full_precision_backbone(network).save_pretrained(folder / _BACKBONE)
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "geodinoseg_version": __version__,
        "legend": segmentor.legend.to_json(),
        "bands": list(segmentor.bands),
        "statistics": segmentor.statistics.to_json(),
        "tile_px": segmentor.trained_tile_px,
        "pixel_size_m": segmentor.pixel_size_m,
        "network": network.settings,
        "backbone": None if inside else {"name": network.source, "revision": network.revision},
        "training": segmentor.training,
        "scores": segmentor.scores,
        "sha256": _checksums(folder),
    }
    (folder / _CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / "README.md").write_text(model_card(segmentor), "utf-8")


def load_model(folder: str | Path, *, device: str = "auto", precision: str = "auto") -> Segmentor:
    """Load a model folder for segmentation.

    LoRA is merged into the weights unless these are held in 4 bit.

    Args:
        folder: as `save_model` writes it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: see `devices.pick_precision`.

    Raises:
        ModelFolderError: the folder is missing, incomplete, damaged or of another kind.
        DeviceError: the device is not there.
    """
    place = Path(folder)
    where = pick_device(device)
    config = read_model_config(place)
    try:
        segmentor = _build(place, config, precision)
    except (KeyError, TypeError, ValueError, LegendError, ModelError) as error:
        raise ModelFolderError(
            f"{place}: {_CONFIG} is incomplete or damaged; copy the folder again, or train anew "
            f"({type(error).__name__}: {one_line(error)})."
        ) from error
    segmentor.network.to(where)
    return segmentor


def is_model_folder(folder: Path) -> bool:
    """Whether a folder's config.json says that it is a model of ours."""
    try:
        text = (folder / _CONFIG).read_text("utf-8")
        return bool(json.loads(text)["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_model_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a model folder, after a look at the files around it. Loads no weights.

    Raises:
        ModelFolderError: the folder is missing, incomplete, damaged or of another kind.
    """
    place = Path(folder)
    _check_files(place)
    try:
        config = json.loads((place / _CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(
            f"{place}: {_CONFIG} cannot be read; copy the folder again ({one_line(error)})."
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ModelFolderError(
            f"{place}: is not a geodinoseg model, but of another kind; give a folder that "
            f"'geodinoseg train' wrote."
        )
    if config.get("format_version") != FORMAT_VERSION:
        raise ModelFolderError(
            f"{place}: was written in format {config.get('format_version')!r}, this geodinoseg "
            f"({__version__}) reads {FORMAT_VERSION}; use the version that wrote it "
            f"({config.get('geodinoseg_version')})."
        )
    return config


def _check_files(place: Path) -> None:
    if not place.exists():
        raise ModelFolderError(f"{place}: no such model folder.")
    if not place.is_dir():
        raise ModelFolderError(f"{place}: is a file; a model is a folder that holds {_CONFIG}.")
    pickles = sorted(p.name for p in place.rglob("*") if p.suffix.lower() in _PICKLES)
    if pickles:
        raise ModelFolderError(
            f"{place}: holds {pickles[0]}, a format that can run code when it is loaded; a model "
            f"consists of safetensors and JSON. Remove it if it is a stray file."
        )
    for name in (_CONFIG, _WEIGHTS):
        if not (place / name).is_file():
            raise ModelFolderError(f"{place}: {name} is missing; copy the whole folder again.")
    if (place / _CONFIG).stat().st_size > _LARGEST_CONFIG_BYTES:
        raise ModelFolderError(f"{place}: {_CONFIG} is too large to be that of a model.")


def _build(place: Path, config: dict[str, Any], precision: str) -> Segmentor:
    _check_checksums(place, config["sha256"])
    legend = Legend.from_json(config["legend"])
    bands = tuple(int(band) for band in config["bands"])
    statistics = BandStatistics.from_json(config["statistics"])
    settings = dict(config["network"])
    if settings["num_classes"] != len(legend) or len(statistics.mean) != len(bands):
        raise ValueError("legend, bands, statistics and network do not fit each other")
    network = DinoV2Segmentor(**settings, bands=len(bands), **_backbone_source(place, config))
    _load_weights(network, place)
    network.merge_lora()
    network.requires_grad_(False).eval()
    pixel_size_m = config["pixel_size_m"]
    return Segmentor(
        network=network,
        legend=legend,
        statistics=statistics,
        bands=bands,
        trained_tile_px=int(config["tile_px"]),
        pixel_size_m=None if pixel_size_m is None else float(pixel_size_m),
        precision=precision,
        training=dict(config["training"]),
        scores=dict(config["scores"]),
    )


def _backbone_source(place: Path, config: dict[str, Any]) -> dict[str, Any]:
    reference = config["backbone"]
    if reference is None:
        return {"backbone": place / _BACKBONE}
    return {"backbone": str(reference["name"]), "revision": reference["revision"]}


def _full_precision_backbone(network: DinoV2Segmentor) -> PreTrainedModel:
    """The backbone without LoRA and not in 4 bit, as the model folder stores it."""
    base = network.base_backbone
    settings = network.settings
    if not (settings["peft"] or settings["quantize"]):
        return base
    # Frozen, so the source still has these weights, in full precision and without adapters.
    fresh = load_backbone(
        network.source,
        n_features=settings["n_features"],
        bands=network.bands,
        revision=network.revision,
    )
    patch_embedding(fresh).load_state_dict(patch_embedding(base).state_dict())
    return fresh


def _weights(network: DinoV2Segmentor) -> dict[str, torch.Tensor]:
    parts = {"head": network.head.state_dict()}
    if network.settings["peft"]:
        from peft import get_peft_model_state_dict  # noqa: PLC0415 (slow to import)

        parts["lora"] = get_peft_model_state_dict(network.backbone)
    parts["patch_embedding"] = patch_embedding(network.base_backbone).state_dict()
    return {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def _load_weights(network: DinoV2Segmentor, place: Path) -> None:
    try:
        stored = load_file(place / _WEIGHTS)
        broken = sorted(name for name, tensor in stored.items() if not tensor.isfinite().all())
        if broken:
            raise ModelFolderError(f"{place}: {_WEIGHTS} holds {broken[0]}, which is not finite.")
        network.head.load_state_dict(_part(stored, "head"))
        patch_embedding(network.base_backbone).load_state_dict(_part(stored, "patch_embedding"))
        if network.settings["peft"]:
            _load_lora(network, _part(stored, "lora"))
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise ModelFolderError(
            f"{place}: {_WEIGHTS} is damaged or of another model; copy the folder again "
            f"({one_line(error)[:160]})."
        ) from error


def _load_lora(network: DinoV2Segmentor, stored: dict[str, torch.Tensor]) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict  # noqa: PLC0415

    wanted = get_peft_model_state_dict(network.backbone)
    if {name: tensor.shape for name, tensor in wanted.items()} != {
        name: tensor.shape for name, tensor in stored.items()
    }:
        raise RuntimeError("the LoRA weights do not fit the network")
    set_peft_model_state_dict(network.backbone, stored)


def _part(stored: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    prefix = f"{part}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in stored.items()
        if name.startswith(prefix)
    }


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("*.safetensors"))
    return {str(path.relative_to(folder)): _sha256(path) for path in files}


def _check_checksums(place: Path, expected: dict[str, str]) -> None:
    if _WEIGHTS not in expected:
        raise KeyError(f"sha256 of {_WEIGHTS}")
    for name, checksum in expected.items():
        path = place / name
        if os.pardir in Path(name).parts or Path(name).is_absolute():
            raise ValueError(f"{name} lies outside the folder")
        if not path.is_file():
            raise ModelFolderError(f"{place}: {name} is missing; copy the whole folder again.")
        if _sha256(path) != checksum:
            raise ModelFolderError(
                f"{place}: {name} is not the file that was saved (its checksum differs); copy the "
                f"folder again."
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
