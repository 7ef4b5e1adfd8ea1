"""Weights in 4 bit: whether they are to be had, how to ask for them, where they are.

bitsandbytes and peft are slow to import and not always needed, so they are imported in functions,
and kept from talking to the user.
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


def four_bit_options(
    config: PretrainedConfig, backbone_class: type[PreTrainedModel]
) -> dict[str, Any]:
    """What `from_pretrained` needs for 4 bit; nothing, and a warning, where that cannot be done."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fault = _why_not_in_blocks(config, backbone_class) or _why_not_4_bit(device)
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


def _why_not_in_blocks(
    config: PretrainedConfig, backbone_class: type[PreTrainedModel]
) -> str | None:
    """4-bit weights share a scale by the block, and on a CPU a block may not cross a row."""
    with torch.device("meta"):
        layers = backbone_class(config).modules()
    widths = {layer.in_features for layer in layers if isinstance(layer, nn.Linear)}
    odd = sorted(width for width in widths if width % _BLOCK)
    return f"a layer of width {odd[0]} is no multiple of {_BLOCK}" if odd else None


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
