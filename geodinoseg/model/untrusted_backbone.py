"""The backbone's own files, checked before anything is built from them: sizes, types, values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from geodinoseg.errors import ModelFolderError, one_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# Far above any published backbone, far below what would exhaust the memory of a machine.
_LARGEST = {
    "hidden_size": 16_384,
    "num_hidden_layers": 256,
    "num_attention_heads": 1_024,
    "intermediate_size": 131_072,
    "mlp_ratio": 64,
    "patch_size": 256,
    "image_size": 16_384,
    "num_channels": 65_535,
    "num_register_tokens": 4_096,
}
_MAY_BE_0 = {"num_register_tokens"}
# The head chooses which layers to use, whatever was saved.
_CHOSEN_HERE = ("stage_names", "out_features", "out_indices", "_out_features", "_out_indices")
_LONGEST_TEXT = 1_000
_MOST_ENTRIES = 1_000


def plain_backbone_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a backbone's config.json, each within its range, or a ValueError."""
    kept = {key: value for key, value in values.items() if key not in _CHOSEN_HERE}
    for name, largest in _LARGEST.items():
        if name in kept and not _is_size(name, kept[name], largest):
            raise ValueError(f"{name} cannot be {str(kept[name])[:60]!r}")
    for name, value in kept.items():
        if isinstance(value, list | dict):
            is_plain = len(value) <= _MOST_ENTRIES
        else:
            is_plain = not isinstance(value, str) or len(value) <= _LONGEST_TEXT
        if not is_plain:
            raise ValueError(f"{name[:60]} is too long")
    return kept


def _is_size(name: str, value: Any, largest: int) -> bool:
    if type(value) is not int and not (name == "mlp_ratio" and type(value) is float):
        return False
    return bool((0 if name in _MAY_BE_0 else 1) <= value <= largest)


def check_backbone_weights(
    place: Path, folder: Path, config: PretrainedConfig, kind: type[PreTrainedModel]
) -> None:
    """Compare the weights with the configuration before memory is taken, and look for NaN.

    place is the model folder, for messages; folder holds the backbone's safetensors files.
    """
    stored = sum(_finite_elements(place, path) for path in sorted(folder.glob("*.safetensors")))
    wanted = _elements_of(place, folder, config, kind)
    # Some files hold more than the backbone does, such as a mask token; none holds less.
    if wanted > stored:
        raise ModelFolderError(
            f"{place}: {folder.name}/config.json is that of a backbone of {wanted:,} weights, its "
            f"files hold {stored:,}; copy the whole folder again."
        )


def _elements_of(
    place: Path, folder: Path, config: PretrainedConfig, kind: type[PreTrainedModel]
) -> int:
    """Number of weights that a configuration needs; built without memory for them."""
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in kind(config).parameters())
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        # Whatever a forged value leads to in the code that builds the layers.
        raise ModelFolderError(
            f"{place}: cannot be loaded: {folder.name}/config.json describes no backbone; copy the "
            f"folder again ({type(error).__name__}: {one_line(error)[:160]})."
        ) from error


def _finite_elements(place: Path, path: Path) -> int:
    """Number of elements in a file, all of them finite."""
    count = 0
    try:
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                tensor = tensors.get_tensor(name)
                count += tensor.numel()
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    raise ModelFolderError(
                        f"{place}: {path.parent.name}/{path.name} holds {name}, which is not "
                        f"finite; train anew."
                    )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ModelFolderError(
            f"{place}: cannot be loaded: backbone {path.parent}: its weights are damaged; copy the "
            f"folder again ({one_line(error)[:160]})."
        ) from error
    return count
