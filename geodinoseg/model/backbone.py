"""DINOv2 and DINOv3 backbones from a hub name or a folder: layers, bands, 4-bit, LoRA."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
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


_FOUR_BIT_BLOCK = 64
"""Weights that share a scale, bitsandbytes' default."""


def read_backbone_config(source: str | Path, *, revision: str | None = None) -> PretrainedConfig:
    """The configuration of a backbone, checked to be one that we know.

    Args:
        source: a hub name such as `facebook/dinov2-base`, or a folder.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: it cannot be found, or is of another kind.
    """
    _check_place(source)
    try:
        # Not AutoConfig: for a kind that it does not know it offers to run the folder's own code.
        values, _ = PretrainedConfig.get_config_dict(str(source), revision=revision)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"backbone {source}: cannot be found. A name on the hub needs the network the first "
            f"time; without it give --backbone a folder that holds config.json and "
            f"model.safetensors ({one_line(error)[:160]})."
        ) from error
    kind = str(values.get("model_type")) if isinstance(values, dict) else "unknown"
    if kind not in _CLASSES:
        raise ModelError(
            f"backbone {source}: is of kind {kind!r}; these are known: {', '.join(_CLASSES)}."
        )
    values.pop("auto_map", None)  # names of code that nobody here may run, nor pass on
    try:
        return _CLASSES[kind].config_class.from_dict(values)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ModelError(
            f"backbone {source}: its config.json is damaged; fetch it again "
            f"({one_line(error)[:160]})."
        ) from error


def published_commit(source: str | Path, revision: str | None) -> str | None:
    """The commit of a backbone on the hub that was just loaded; None for a folder.

    Args:
        source: a hub name or a folder.
        revision: the branch, tag or commit that was asked for.
    """
    if Path(source).is_dir():
        return None
    # The hub's cache has a folder for each commit.
    path = try_to_load_from_cache(str(source), "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else revision


def pretrained_rgb(
    source: str | Path, *, revision: str | None = None
) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of RGB in [0, 1] that a published backbone was trained with.

    Args:
        source: a hub name or a folder.
        revision: branch, tag or commit on the hub.

    Returns:
        The values of its `preprocessor_config.json`; None where it has none, as a backbone that
        was built from a configuration.
    """
    try:
        values, _ = transformers.BaseImageProcessor.get_image_processor_dict(
            str(source), revision=revision
        )
    except (OSError, ValueError):
        return None
    mean, std = values.get("image_mean"), values.get("image_std")
    if not mean or not std:
        return None
    return [float(value) for value in mean], [float(value) for value in std]


def load_backbone(
    source: str | Path,
    *,
    n_features: int,
    quantize: bool = False,
    revision: str | None = None,
) -> PreTrainedModel:
    """A backbone with its weights, giving the layer-normed maps of its last layers.

    Args:
        source: a hub name or a folder, as `read_backbone_config` takes it.
        n_features: number of last layers whose feature maps come out.
        quantize: hold the linear layers in 4 bit (NF4, double quantization, bfloat16 arithmetic).
            Where that cannot be done, one warning is logged and full precision used.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: the backbone cannot be found or loaded, or has fewer layers.
    """
    config = read_backbone_config(source, revision=revision)
    _choose_layers(config, source, n_features)
    options = _four_bit_options(config) if quantize else {}
    return _load(source, config, revision, options)


def patch_embedding(backbone: nn.Module) -> nn.Conv2d:
    """The convolution that turns patches of pixels into tokens."""
    embeddings = backbone.get_submodule("embeddings.patch_embeddings")
    projection = getattr(embeddings, "projection", embeddings)
    assert isinstance(projection, nn.Conv2d)
    return projection


def widen_patch_embedding(backbone: PreTrainedModel, bands: int) -> None:
    """Make a backbone take another number of bands, in place.

    Band b takes the filters of the backbone's own band b modulo own (3 for RGB), times own /
    bands; what their sum then lacks of the old sum is spread evenly over the bands. So bands stay
    distinguishable, and an input that is the same in all bands gives the tokens it gave before.
    The new weights are a start; they can be trained, under LoRA too.

    Args:
        backbone: as `load_backbone` gives it.
        bands: bands of the input from now on.
    """
    old = patch_embedding(backbone)
    patch = (old.kernel_size[0], old.kernel_size[1])
    new = nn.Conv2d(bands, old.out_channels, patch, patch).to(old.weight)
    with torch.no_grad():
        filters_DNhw = old.weight[:, torch.arange(bands) % old.in_channels]
        filters_DNhw = filters_DNhw * (old.in_channels / bands)
        # Not 0 where bands is no multiple of own: some filters stand there once more than others.
        missing_Dhw = old.weight.sum(dim=1) - filters_DNhw.sum(dim=1)
        new.weight.copy_(filters_DNhw + missing_Dhw[:, None] / bands)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    embeddings = backbone.get_submodule("embeddings")
    holder = embeddings.get_submodule("patch_embeddings")
    if holder is old:
        embeddings.patch_embeddings = new
    else:
        holder.projection = new
        holder.num_channels = bands
    backbone.config.num_channels = bands


def with_lora(
    backbone: PreTrainedModel, *, r: int, lora_alpha: int, lora_dropout: float
) -> PeftModel:
    """The backbone with LoRA (rank-stabilized, on all linear layers); all else is frozen."""
    with quiet_libraries():
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415 (slow, not always needed)

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
    return bool(four_bit_layers(backbone))


def four_bit_layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers of bitsandbytes, without importing it; peft's wrappers have the same name."""
    return [
        module
        for module in backbone.modules()
        if type(module).__name__ == "Linear4bit" and not hasattr(module, "base_layer")
    ]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No bar per weight file, no line about what a user cannot change."""
    had_bars = transformers_logging.is_progress_bar_enabled()
    bitsandbytes_logger = logging.getLogger("bitsandbytes")
    level = bitsandbytes_logger.level
    transformers_logging.disable_progress_bar()
    # On its first import (peft imports it too) it logs that the optional package `kernels` is
    # absent; it works without.
    bitsandbytes_logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # peft 0.21 still asks transformers 5.23 by the old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            yield
    finally:
        bitsandbytes_logger.setLevel(level)
        if had_bars:
            transformers_logging.enable_progress_bar()


def _check_place(source: str | Path) -> None:
    """A folder that is not there is not asked for on the hub."""
    is_path = isinstance(source, Path) or source.startswith(("/", ".", "~"))
    if is_path and not Path(source).is_dir():
        raise ModelError(
            f"backbone {source}: no such folder; give one that holds config.json and "
            f"model.safetensors."
        )


def _choose_layers(config: PretrainedConfig, source: str | Path, n_features: int) -> None:
    layers = int(config.num_hidden_layers)
    if n_features > layers:
        raise ModelError(
            f"n_features={n_features}: the backbone {source} has {layers} layers; give 1 to "
            f"{layers}."
        )
    config.out_indices = list(range(layers - n_features + 1, layers + 1))


def _load(
    source: str | Path, config: PretrainedConfig, revision: str | None, options: dict[str, Any]
) -> PreTrainedModel:
    backbone_class = _CLASSES[config.model_type]
    try:
        with quiet_libraries():
            loaded, report = backbone_class.from_pretrained(
                str(source),
                config=config,
                revision=revision,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"backbone {source}: its weights cannot be loaded; fetch the folder again "
            f"({one_line(error)[:200]})."
        ) from error
    if report["missing_keys"]:
        # transformers fills them with random numbers and says so in a log only.
        raise ModelError(
            f"backbone {source}: its weights lack {len(report['missing_keys'])} tensors, such as "
            f"{min(report['missing_keys'])}; fetch the folder again."
        )
    backbone: PreTrainedModel = loaded
    return backbone


def _four_bit_options(config: PretrainedConfig) -> dict[str, Any]:
    """What `from_pretrained` needs for 4 bit; nothing, and a warning, where that cannot be done."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fault = _why_not_in_blocks(config) or _why_not_4_bit(device)
    if fault:
        logger.warning("4-bit is not to be had here, full precision instead: %s.", fault)
        return {}
    quantization = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": quantization, "device_map": {"": device}}


def _why_not_in_blocks(config: PretrainedConfig) -> str | None:
    """4-bit weights share a scale by the block, and on a CPU a block may not cross a row."""
    with torch.device("meta"):
        layers = _CLASSES[config.model_type](config).modules()
    widths = {layer.in_features for layer in layers if isinstance(layer, nn.Linear)}
    odd = sorted(width for width in widths if width % _FOUR_BIT_BLOCK)
    return f"a layer of width {odd[0]} is no multiple of {_FOUR_BIT_BLOCK}" if odd else None


def _why_not_4_bit(device: str) -> str | None:
    """Try it on one small layer: the only test that holds for every device and version."""
    try:
        with quiet_libraries():
            # transformers places 4-bit weights with it.
            import accelerate  # type: ignore[import-untyped]  # noqa: F401, PLC0415
            import bitsandbytes  # noqa: PLC0415 (needed for 4 bit only)

            layer = bitsandbytes.nn.Linear4bit(
                64, 64, quant_type="nf4", compute_dtype=torch.bfloat16
            )
            layer.to(device)(torch.ones(1, 64, device=device))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return one_line(error)[:160]
    return None
