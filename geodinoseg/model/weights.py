"""The tensors of a model folder, to and from safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from geodinoseg.errors import ModelError, ModelFolderError, one_line
from geodinoseg.model.backbone import load_backbone, patch_embedding, widen_patch_embedding
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor, make_head
from geodinoseg.model.quantization import is_quantized, quiet_libraries

Tensors = dict[str, torch.Tensor]

_LORA_A = ".lora_A.weight"


def save_weights(network: DinoV2Segmentor, path: Path) -> None:
    """Head with its batch norm statistics, LoRA and patch embedding, as one safetensors file."""
    parts = {
        "head": network.head.state_dict(),
    }
    if network.has_backbone:
        parts["patch_embedding"] = patch_embedding(network.base_backbone).state_dict()
    if network.settings["peft"]:
        parts["lora"] = _lora_of(network)
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    save_file(tensors, path)


def save_backbone(network: DinoV2Segmentor, folder: Path) -> None:
    """Write the backbone in full precision and without LoRA, as transformers saves it."""
    base = network.base_backbone
    with quiet_libraries():
        if is_quantized(base):
            # Frozen, so the source has these weights in full precision.
            fresh = load_backbone(
                network.source,
                n_features=network.settings["n_features"],
                revision=network.revision,
            )
            if fresh.config.num_channels != network.bands:
                widen_patch_embedding(fresh, network.bands)
            patch_embedding(fresh).load_state_dict(patch_embedding(base).state_dict())
            fresh.save_pretrained(folder)
        else:
            # peft keeps the layer that it wraps under another name, beside its own tensors.
            plain = {
                name.replace(".base_layer.", "."): tensor
                for name, tensor in base.state_dict().items()
                if ".lora_" not in name
            }
            base.save_pretrained(folder, state_dict=plain)


def has_weights_of_source(network: DinoV2Segmentor) -> bool:
    """Whether the backbone is that of its source, apart from patch embedding and LoRA.

    It is if LoRA or quantization froze the weights; else they are compared. A missing source counts
    as different.
    """
    if network.settings["peft"] or is_quantized(network.backbone):
        return True
    try:
        source = load_backbone(
            network.source, n_features=network.settings["n_features"], revision=network.revision
        ).state_dict()
    except ModelError:
        return False
    embedding = patch_embedding(network.base_backbone)
    apart = {id(tensor) for tensor in embedding.state_dict(keep_vars=True).values()}
    return all(
        torch.equal(tensor.detach().cpu(), source[name])
        for name, tensor in network.base_backbone.state_dict(keep_vars=True).items()
        if id(tensor) not in apart
    )


def add_weights(digest: hashlib._Hash, network: nn.Module) -> None:
    """Add every weight and buffer of a network to a digest, by name, type and value.

    They are taken from memory; no file is read again. A base backbone (344 MB) takes 0.3 s.
    """
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {getattr(value, 'dtype', '')} ".encode())
        if isinstance(value, torch.Tensor):
            digest.update(f"{tuple(value.shape)} ".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
        else:
            digest.update(repr(value).encode())


def read_weights(place: Path, path: Path) -> Tensors:
    """The tensors of a safetensors file, checked to be finite; place is the model folder."""
    try:
        stored: Tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFolderError(
            f"{place}: {path.name} is damaged; copy the folder again ({one_line(error)[:160]})."
        ) from error
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelFolderError(
                f"{place}: {path.name} holds {name}, which is not finite; train anew."
            )
    return stored


def check_fit(
    settings: Mapping[str, Any], stored: Tensors, *, in_channels: int, patch_px: int, bands: int
) -> None:
    """Compare head and LoRA with the stored tensors before any memory is taken for them.

    Raises ValueError if they are those of another network.
    """
    with torch.device("meta"):
        head = make_head(settings, in_channels=in_channels, patch_px=patch_px, bands=bands)
    _check_same_shapes(head.state_dict(), _part(stored, "head"), "head")
    ranks = {t.shape[0] for name, t in _part(stored, "lora").items() if name.endswith(_LORA_A)}
    if ranks != ({settings["r"]} if settings["peft"] else set()):
        raise ValueError("the LoRA weights are of another rank than the network")


def load_weights(network: DinoV2Segmentor, stored: Tensors) -> None:
    """Load stored tensors into a network; ValueError if they are those of another network."""
    modules: dict[str, nn.Module] = {"head": network.head}
    if network.has_backbone:
        modules["patch_embedding"] = patch_embedding(network.base_backbone)
    for what, module in modules.items():
        tensors = _part(stored, what)
        _check_same_shapes(module.state_dict(), tensors, what)
        module.load_state_dict(tensors)
    if network.settings["peft"]:
        from peft import set_peft_model_state_dict  # noqa: PLC0415 (slow to import)

        tensors = _part(stored, "lora")
        _check_same_shapes(_lora_of(network), tensors, "LoRA")
        set_peft_model_state_dict(network.backbone, tensors)


def _lora_of(network: DinoV2Segmentor) -> Tensors:
    from peft import get_peft_model_state_dict  # noqa: PLC0415 (slow to import)

    # False: else peft asks the hub whether the vocabulary changed.
    tensors: Tensors = get_peft_model_state_dict(network.backbone, save_embedding_layers=False)
    return tensors


def _part(stored: Tensors, part: str) -> Tensors:
    prefix = f"{part}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in stored.items()
        if name.startswith(prefix)
    }


def _check_same_shapes(wanted: Tensors, stored: Tensors, what: str) -> None:
    if {n: t.shape for n, t in wanted.items()} != {n: t.shape for n, t in stored.items()}:
        raise ValueError(f"the weights of the {what} are those of another network")
