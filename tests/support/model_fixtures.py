"""Small backbones of each kind, built from a configuration, and models on them."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from geodinoseg.legend import Legend
from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.segmentor import Segmentor

KINDS = ("dinov2", "with_registers", "dinov3")
HIDDEN, LAYERS = 64, 3
COMMIT = "0123456789abcdef0123456789abcdef01234567"

_FOLDER = tempfile.TemporaryDirectory(prefix="geodinoseg-backbones-", ignore_cleanup_errors=True)
_COMMON = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "image_size": 56,
}


def transformers_model(kind: str) -> PreTrainedModel:
    """The model that transformers builds of a kind, every weight and bias random."""
    torch.manual_seed(3)
    model: PreTrainedModel
    if kind == "dinov2":
        model = Dinov2Model(Dinov2Config(**_COMMON, mlp_ratio=2))
    elif kind == "with_registers":
        model = Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(**_COMMON, mlp_ratio=2, num_register_tokens=3)
        )
    else:
        model = DINOv3ViTModel(
            DINOv3ViTConfig(**_COMMON, intermediate_size=2 * HIDDEN, num_register_tokens=3)
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@functools.cache
def backbone_folder(kind: str = "dinov2") -> Path:
    """A folder as a published backbone has it: saved by the model, not by the backbone class."""
    folder = Path(_FOLDER.name) / kind
    save_quietly(transformers_model(kind), folder)
    return folder


@functools.cache
def published_backbone(name: str, kind: str = "dinov2") -> str:
    """Make the hub's cache hold a backbone under a name; the commit of its main branch."""
    repository = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    save_quietly(transformers_model(kind), repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return COMMIT


def save_quietly(model: PreTrainedModel, folder: Path) -> None:
    """Save without transformers' bar."""
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    transformers_logging.enable_progress_bar()


def small_network(**settings: Any) -> DinoV2Segmentor:
    """A network on a small backbone in full precision, without LoRA unless asked for."""
    torch.manual_seed(5)
    defaults = {"backbone": backbone_folder(), "quantize": False, "peft": False, "channels": 32}
    network = DinoV2Segmentor(**{**defaults, **settings})
    with torch.no_grad():  # batch norms that a head without any would not pass for
        for name, buffer in network.head.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return network.eval()


def randomize_lora(network: DinoV2Segmentor) -> None:
    """LoRA as after training: at its start it does nothing."""
    with torch.no_grad():
        for name, parameter in network.backbone.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn_like(parameter))


def small_segmentor(network: DinoV2Segmentor | None = None, **fields: Any) -> Segmentor:
    """A Segmentor of three classes for uint8 scenes at 0.1 m."""
    network = network or small_network()
    bands = network.bands
    defaults: dict[str, Any] = {
        "legend": Legend.of_names({0: "background", 3: "concrete", 7: "tin"}),
        "statistics": BandStatistics(
            mean=tuple(100.0 + 5 * band for band in range(bands)),
            std=tuple(40.0 + band for band in range(bands)),
            low=(10.0,) * bands,
            high=(240.0,) * bands,
            dtype="uint8",
        ),
        "bands": tuple(range(1, bands + 1)),
        "trained_tile_px": 56,
        "pixel_size_m": 0.1,
        "training": {"epochs": 2, "scenes": ["a.tif"]},
        "scores": {"mean_iou": 0.5},
    }
    network.requires_grad_(requires_grad=False).eval()
    return Segmentor(network=network, **{**defaults, **fields})


def raw_tile(
    bands: int = 3, height: int = 40, width: int = 54, batch: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw uint8 pixels and their validity, a corner without data."""
    generator = torch.Generator().manual_seed(11)
    pixels = torch.randint(0, 256, (batch, bands, height, width), generator=generator)
    valid = torch.ones(batch, height, width, dtype=torch.bool)
    valid[:, :7, :9] = False
    return pixels.to(torch.uint8), valid
