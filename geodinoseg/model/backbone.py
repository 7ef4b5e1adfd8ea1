"""DINOv2 and DINOv3 backbones from a hub name or a folder: their last layers, with LoRA."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn
from transformers import (
    Dinov2Backbone,
    Dinov2WithRegistersBackbone,
    DINOv3ViTBackbone,
    PretrainedConfig,
    PreTrainedModel,
)

from geodinoseg.errors import ModelError, one_line
from geodinoseg.model.hub import CONFIG_FILE, RGB_FILE, backbone_folder
from geodinoseg.model.json_object import WrongJsonError, read_json_object
from geodinoseg.model.no_backbone import NoBackbone, NoBackboneConfig
from geodinoseg.model.parameters import HUB_NAMES, has_backbone
from geodinoseg.model.quantization import quantization_options, quiet_libraries
from geodinoseg.model.sample_dropout import use_sample_dropout
from geodinoseg.model.untrusted_backbone import plain_backbone_values

if TYPE_CHECKING:
    from peft import PeftModel

_CLASSES: dict[str, type[PreTrainedModel]] = {
    "dinov2": Dinov2Backbone,
    "dinov2_with_registers": Dinov2WithRegistersBackbone,
    "dinov3_vit": DINOv3ViTBackbone,
}
_RGB = 3
_IMAGENET_RGB = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""Mean and standard deviation of RGB in DINOv2's training."""


def read_backbone_config(source: str | Path, *, revision: str | None = None) -> PretrainedConfig:
    """The configuration of a backbone of a kind that we know, from a hub name or a folder."""
    if not has_backbone(source):
        return NoBackboneConfig()
    return _read_config(source, backbone_folder(source, revision=revision, weights=False))


def backbone_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of transformers that a configuration belongs to."""
    return _CLASSES[config.model_type]


def pretrained_rgb(
    source: str | Path, *, revision: str | None = None
) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of RGB in [0, 1] that a published backbone was trained with.

    None without a backbone or a `preprocessor_config.json`, for instance for a backbone built from
    a configuration. For the published sizes they are constants, so that they do not depend on the
    content of the hub's cache.
    """
    if not has_backbone(source):
        return None
    path = backbone_folder(source, revision=revision, weights=False) / RGB_FILE
    if not path.is_file():
        return _IMAGENET_RGB if str(source) in HUB_NAMES.values() else None
    try:
        values = read_json_object(path)
        mean, std = values.get("image_mean"), values.get("image_std")
        if not mean or not std:
            return None
        return [float(value) for value in mean], [float(value) for value in std]
    except (WrongJsonError, TypeError, ValueError) as error:
        raise ModelError(
            f"backbone {source}: its {RGB_FILE} is damaged; fetch it again, or remove the file "
            f"({one_line(error)[:160]})."
        ) from error


def load_backbone(
    source: str | Path,
    *,
    n_features: int,
    quantize: bool = False,
    revision: str | None = None,
) -> PreTrainedModel:
    """A backbone with its weights, giving the layer-normed maps of its last n_features layers.

    quantize holds the linear layers in 4 bit (NF4, double quantization, bfloat16 arithmetic); if
    that is unavailable, one warning is logged and full precision used.
    """
    if not has_backbone(source):
        return NoBackbone(NoBackboneConfig())
    folder = backbone_folder(source, revision=revision)
    config = _read_config(source, folder)
    _choose_layers(config, source, n_features)
    options = quantization_options(config, _CLASSES[config.model_type]) if quantize else {}
    return _load(source, folder, config, options)


def blank_backbone(
    config: PretrainedConfig, *, n_features: int, bands: int, device: torch.device
) -> PreTrainedModel:
    """A backbone whose weights are all zero, for a trial of its speed."""
    if isinstance(config, NoBackboneConfig):
        return NoBackbone(config)
    config = copy.deepcopy(config)
    _choose_layers(config, config.model_type, n_features)
    config.num_channels = bands
    with torch.device("meta"):
        backbone = _CLASSES[config.model_type](config)
    blank: PreTrainedModel = backbone.to_empty(device=device).eval()
    with torch.no_grad():
        for tensor in (*blank.parameters(), *blank.buffers()):
            tensor.zero_()
    return blank


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
        lora = get_peft_model(backbone, config)
    use_sample_dropout(lora)
    return lora


def _read_config(source: str | Path, folder: Path) -> PretrainedConfig:
    """The configuration in the folder of a source."""
    try:
        # Not AutoConfig: for an unknown kind it offers to run the folder's own code.
        values = read_json_object(folder / CONFIG_FILE)
    except WrongJsonError as error:
        raise ModelError(
            f"backbone {source}: {folder / CONFIG_FILE} {error}; give a folder that holds "
            f"config.json and model.safetensors, or fetch it again."
        ) from error
    kind = str(values.get("model_type"))[:60]
    if kind not in _CLASSES:
        raise ModelError(
            f"backbone {source}: is of kind {kind!r}; these are known: {', '.join(_CLASSES)}."
        )
    values.pop("auto_map", None)  # names of code that must not be run
    try:
        return _CLASSES[kind].config_class.from_dict(plain_backbone_values(values))
    except (TypeError, ValueError, ZeroDivisionError, StrictDataclassError) as error:
        raise ModelError(
            f"backbone {source}: its config.json is damaged; fetch it again "
            f"({one_line(error)[:160]})."
        ) from error


def _choose_layers(config: PretrainedConfig, source: str | Path, n_features: int) -> None:
    layers = int(config.num_hidden_layers)
    if n_features > layers:
        raise ModelError(
            f"n_features={n_features}: the backbone {source} has {layers} layers; give 1 to "
            f"{layers}."
        )
    config.out_indices = list(range(layers - n_features + 1, layers + 1))
    # As the heads expect them, whatever was saved.
    config.apply_layernorm = config.reshape_hidden_states = True


def _load(
    source: str | Path, folder: Path, config: PretrainedConfig, options: dict[str, Any]
) -> PreTrainedModel:
    backbone_class = _CLASSES[config.model_type]
    try:
        with quiet_libraries():
            loaded, report = backbone_class.from_pretrained(
                str(folder),
                config=config,
                local_files_only=True,
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
        # transformers fills them with random numbers, and only logs it.
        raise ModelError(
            f"backbone {source}: its weights lack {len(report['missing_keys'])} tensors, such as "
            f"{min(report['missing_keys'])}; fetch the folder again."
        )
    backbone: PreTrainedModel = loaded
    return backbone


def patch_embedding(backbone: nn.Module) -> nn.Conv2d:
    """The convolution that turns patches of pixels into tokens."""
    embeddings = backbone.get_submodule("embeddings.patch_embeddings")
    projection = getattr(embeddings, "projection", embeddings)
    assert isinstance(projection, nn.Conv2d)
    return projection


def widen_patch_embedding(
    backbone: PreTrainedModel, bands: int, components: NDArray[np.float32] | None = None
) -> None:
    """Make a backbone take another number of bands, in place.

    Band b takes the filters of the backbone's own band b modulo own (3 for RGB), times own /
    bands; what their sum then lacks of the old sum is spread evenly over the bands. So bands stay
    distinguishable, and an input that is the same in all bands gives the tokens it gave before.
    The new weights are a start; they can be trained, under LoRA too.

    With components (components, bands) the tokens are those of the first components, in place of
    the backbone's own bands; if there are fewer, they are repeated.
    """
    old = patch_embedding(backbone)
    patch = (old.kernel_size[0], old.kernel_size[1])
    new = nn.Conv2d(bands, old.out_channels, patch, patch).to(old.weight)
    with torch.no_grad():
        if components is None:
            new.weight.copy_(_widened(old.weight, bands))
        else:
            own = [index % len(components) for index in range(old.in_channels)]
            matrix = torch.from_numpy(components[own]).to(old.weight)
            new.weight.copy_(torch.einsum("dohw,on->dnhw", old.weight, matrix))
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


def rgb_selection(
    backbone: PreTrainedModel, rgb: tuple[int, int, int], bands: int
) -> NDArray[np.float32]:
    """(3, bands), as the components of `widen_patch_embedding`: 1 where a channel is a band.

    Raises:
        ModelError: the positions are not of three bands, or the backbone takes others.
    """
    own = int(backbone.config.num_channels)
    if len(rgb) != _RGB or len({*rgb} & {*range(bands)}) != _RGB:
        raise ModelError(f"rgb={rgb}: give three different positions below {bands}.")
    if own != _RGB:
        raise ModelError(
            f"the backbone takes {own} bands, not red, green and blue; give another --backbone, or "
            f"--band-projection pca."
        )
    return np.eye(bands, dtype=np.float32)[list(rgb)]


def _widened(filters_Dohw: torch.Tensor, bands: int) -> torch.Tensor:
    own = filters_Dohw.shape[1]
    filters_DNhw = filters_Dohw[:, torch.arange(bands) % own] * (own / bands)
    # Not 0 unless bands is a multiple of own: some filters occur once more than others.
    missing_Dhw = filters_Dohw.sum(dim=1) - filters_DNhw.sum(dim=1)
    return filters_DNhw + missing_Dhw[:, None] / bands
