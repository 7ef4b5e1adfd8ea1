"""4-bit quantization of the backbone: whether it is available, its options, its layers.

bitsandbytes and peft are slow to import and not always needed, so they are imported in functions,
and their messages are suppressed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from geodinoseg.errors import one_line

logger = logging.getLogger(__name__)

_BLOCK = 64
"""Weights that share a scale, bitsandbytes' default."""


def quantization_options(
    config: PretrainedConfig, backbone_class: type[PreTrainedModel]
) -> dict[str, Any]:
    """Arguments of `from_pretrained` for 4 bit; none, and a warning, if it is unavailable."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fault = _why_not_in_blocks(config, backbone_class) or _why_not_on(device)
    if fault:
        logger.warning("4-bit quantization is unavailable here (%s); using full precision.", fault)
        return {}
    quantization = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": quantization, "device_map": {"": device}}


def is_quantized(backbone: nn.Module) -> bool:
    """Whether any weight is held in 4 bit."""
    return bool(quantized_layers(backbone))


def quantized_layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers of bitsandbytes, without importing it; peft's wrappers have the same name."""
    return [
        module
        for module in backbone.modules()
        if type(module).__name__ == "Linear4bit" and not hasattr(module, "base_layer")
    ]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress bars per weight file and messages about what a user cannot change."""
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


def _why_not_in_blocks(
    config: PretrainedConfig, backbone_class: type[PreTrainedModel]
) -> str | None:
    """Weights share a scale by the block, and on a CPU a block may not cross a row."""
    with torch.device("meta"):
        layers = backbone_class(config).modules()
    widths = {layer.in_features for layer in layers if isinstance(layer, nn.Linear)}
    odd = sorted(width for width in widths if width % _BLOCK)
    return f"the width of a layer, {odd[0]}, is not a multiple of {_BLOCK}" if odd else None


def _why_not_on(device: str) -> str | None:
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
