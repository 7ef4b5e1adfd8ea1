"""DINOv2 and DINOv3 backbones from a hub name or a folder: layers, bands, 4-bit, LoRA."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn
from transformers import (
    Dinov2Backbone,
    Dinov2WithRegistersBackbone,
    DINOv3ViTBackbone,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from geodinoseg.errors import ModelError, one_line

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.getLogger(__name__)

HUB_NAMES = {size: f"facebook/dinov2-{size}" for size in ("small", "base", "large")}
"""The published backbone of each size."""

_CLASSES: dict[str, type[PreTrainedModel]] = {
    "dinov2": Dinov2Backbone,
    "dinov2_with_registers": Dinov2WithRegistersBackbone,
    "dinov3_vit": DINOv3ViTBackbone,
}


def read_backbone_config(source: str | Path, *, revision: str | None = None) -> PretrainedConfig:
    """The configuration of a backbone, checked to be one that we know.

    Args:
        source: a hub name such as `facebook/dinov2-base`, or a folder.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: it cannot be found, or is of another kind.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(str(source), revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"backbone {source}: cannot be found; give small, base or large, a name on the hub "
            f"(needs the network the first time), or a folder with config.json and "
            f"model.safetensors ({one_line(error)[:160]})."
        ) from error
    if config.model_type not in _CLASSES:
        raise ModelError(
            f"backbone {source}: is of kind {config.model_type!r}; these are known: "
            f"{', '.join(_CLASSES)}."
        )
    return config


def pretrained_rgb(source: str | Path) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of RGB in [0, 1] that a published backbone was trained with.

    Args:
        source: a hub name or a folder.

    Returns:
        The values of its `preprocessor_config.json`; None where it has none, as a backbone that
        was built from a configuration.
    """
    try:
        values, _ = transformers.BaseImageProcessor.get_image_processor_dict(str(source))
    except OSError:
        return None
    if "image_mean" not in values or "image_std" not in values:
        return None
    return list(values["image_mean"]), list(values["image_std"])


def load_backbone(
    source: str | Path,
    *,
    n_features: int,
    bands: int = 3,
    quantize: bool = False,
    revision: str | None = None,
) -> PreTrainedModel:
    """A backbone with its weights, giving the layer-normed maps of its last layers.

    Args:
        source: a hub name or a folder, as `read_backbone_config` takes it.
        n_features: number of last layers whose feature maps come out.
        bands: bands of the input; where they differ from the backbone's own, its patch embedding
            is widened, see `widen_patch_embedding`.
        quantize: hold the linear layers in 4 bit (NF4, double quantization, bfloat16 arithmetic).
            Where that cannot be done, one warning is logged and full precision used.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: the backbone cannot be found or loaded, or has fewer layers.
    """
    config = read_backbone_config(source, revision=revision)
    _choose_layers(config, source, n_features)
    backbone = None
    if quantize:
        backbone = _load_in_4_bit(source, config, revision)
    if backbone is None:
        backbone = _load(source, config, revision, dtype=torch.float32)
    if bands != backbone.config.num_channels:
        widen_patch_embedding(backbone, bands)
    return backbone


def patch_embedding(backbone: nn.Module) -> nn.Conv2d:
    """The convolution that turns patches of pixels into tokens."""
    embeddings = backbone.get_submodule("embeddings.patch_embeddings")
    projection = getattr(embeddings, "projection", embeddings)
    assert isinstance(projection, nn.Conv2d)
    return projection


def widen_patch_embedding(backbone: PreTrainedModel, bands: int) -> None:
    """Make a backbone take another number of bands, in place.

    Band b takes the filters of the backbone's own band b modulo 3 (of however many it has),
    times own / bands: bands stay distinguishable, and an input that is the same in all bands
    gives about the tokens it gave before. The new weights are a start; training fits them.
    """
    old = patch_embedding(backbone)
    new = nn.Conv2d(bands, old.out_channels, old.kernel_size, old.stride).to(old.weight)
    with torch.no_grad():
        order = torch.arange(bands) % old.in_channels
        new.weight.copy_(old.weight[:, order] * (old.in_channels / bands))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    embeddings = backbone.get_submodule("embeddings")
    holder = embeddings.get_submodule("patch_embeddings")
    if holder is old:
        embeddings.patch_embeddings = new
    else:
        holder.projection = new
        holder.num_channels = bands  # type: ignore[assignment]
    backbone.config.num_channels = bands


def with_lora(
    backbone: PreTrainedModel, *, r: int, lora_alpha: int, lora_dropout: float
) -> PeftModel:
    """The backbone with LoRA (rank-stabilized, on all linear layers); all else is frozen."""
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 (slow to import, not always needed)

    config = LoraConfig(
        target_modules="all-linear",
        use_rslora=True,
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
    )
    return get_peft_model(backbone, config)


def is_quantized(backbone: nn.Module) -> bool:
    """Whether any weight is held in 4 bit."""
    return any(type(module).__name__ == "Linear4bit" for module in backbone.modules())


def _choose_layers(config: PretrainedConfig, source: str | Path, n_features: int) -> None:
    layers = int(config.num_hidden_layers)
    if n_features > layers:
        raise ModelError(
            f"n_features={n_features}: the backbone {source} has {layers} layers; give 1 to "
            f"{layers}."
        )
    config.out_indices = list(range(layers - n_features + 1, layers + 1))


def _load(
    source: str | Path, config: PretrainedConfig, revision: str | None, **options: Any
) -> PreTrainedModel:
    backbone_class = _CLASSES[config.model_type]
    try:
        with _quiet_transformers():
            loaded: PreTrainedModel = backbone_class.from_pretrained(
                str(source), config=config, revision=revision, use_safetensors=True, **options
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"backbone {source}: its weights cannot be loaded ({one_line(error)[:200]})."
        ) from error
    return loaded


def _load_in_4_bit(
    source: str | Path, config: PretrainedConfig, revision: str | None
) -> PreTrainedModel | None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    quantization = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    try:
        return _load(
            source,
            config,
            revision,
            quantization_config=quantization,
            device_map={"": device},
            dtype=torch.float32,
        )
    except (ImportError, ModelError) as error:
        if isinstance(error, ModelError) and not _mentions_bitsandbytes(error):
            raise
        logger.warning("4-bit is not to be had here, full precision instead: %s", one_line(error))
        return None


def _mentions_bitsandbytes(error: BaseException) -> bool:
    return "bitsandbytes" in str(error) or "4bit" in str(error)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bar per weight file, no line about an absent optional package of bitsandbytes."""
    had_bars = transformers_logging.is_progress_bar_enabled()
    bitsandbytes_logger = logging.getLogger("bitsandbytes")
    level = bitsandbytes_logger.level
    transformers_logging.disable_progress_bar()
    bitsandbytes_logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        bitsandbytes_logger.setLevel(level)
        if had_bars:
            transformers_logging.enable_progress_bar()
