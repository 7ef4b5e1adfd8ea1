"""Parameters of the network, names of backbones and devices, and their checks. Loads no torch."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from geodinoseg.errors import DeviceError, ModelError
from geodinoseg.files.arguments import wrong_argument
from geodinoseg.model.json_object import WrongJsonError, read_json_object

Size = Literal["small", "base", "large"]
Activation = Literal["relu", "leakyrelu", "sigmoid", "tanh"]
HeadName = Literal["linear", "cnn", "fused"]

HUB_NAMES = {size: f"facebook/dinov2-{size}" for size in get_args(Size)}
"""The published backbone of each size."""

NO_BACKBONE = "none"
"""In place of a name or folder: the fused head alone, without features."""

DEFAULT_SIZE: Size = "base"
DEFAULT_BLOCKS, DEFAULT_CHANNELS = 4, 512
"""Of the CNN head."""

PATCH_PX = 14
"""Of the published backbones."""

_COUNTS = ("n_block", "channels", "k_size", "n_features", "num_classes", "r", "lora_alpha", "bands")
_SWITCHES = ("linear_head", "quantize", "peft", "fused_head")
_CHOICES = {"size": get_args(Size), "activation": get_args(Activation)}
PARAMETERS = (
    *(*_COUNTS, *_SWITCHES, *_CHOICES),
    *("lora_dropout", "backbone", "revision", "components", "rgb"),
)
"""Names of all arguments of `DinoV2Segmentor`."""


_DEVICE = re.compile(r"auto|(cpu|cuda)(:\d{1,2})?")
_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_LONGEST_PATH = 4_096
_PUBLISHER = HUB_NAMES[DEFAULT_SIZE].partition("/")[0]
_ALIKE = 0.75
"""Least similarity of two names of folders, of which one may be a typing error."""


def has_backbone(source: object) -> bool:
    """Whether the argument `backbone` means one; None does, that of `size`, and `none` does not."""
    return not isinstance(source, str) or source != NO_BACKBONE


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check arguments of `DinoV2Segmentor`, those that are given.

    Raises:
        ModelError: a value is invalid.
    """
    for name, value in _these(parameters, _COUNTS):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(f"{name}={value!r}: give a whole number of at least 1.")
    for name, value in _these(parameters, _SWITCHES):
        if not isinstance(value, bool):
            raise ModelError(f"{name}={value!r}: give True or False.")
    for name, value in _these(parameters, _CHOICES):
        if value not in _CHOICES[name]:
            raise ModelError(f"{name}={value!r}: give one of {', '.join(_CHOICES[name])}.")
    if parameters.get("k_size", 1) % 2 == 0:
        raise ModelError(
            f"k_size={parameters['k_size']}: give an odd number, so that the shape is kept."
        )
    _check_head(parameters)
    if not has_backbone(parameters.get("backbone")) and not parameters.get("fused_head"):
        raise ModelError(
            "backbone='none': only the fused head works without features; leave out --head, or "
            "give fused_head=True, or another backbone."
        )
    dropout = parameters.get("lora_dropout", 0)
    is_number = isinstance(dropout, int | float) and not isinstance(dropout, bool)
    if not is_number or not 0 <= dropout < 1:
        raise ModelError(f"lora_dropout={dropout!r}: give a fraction from 0 to below 1.")


def _check_head(parameters: Mapping[str, Any]) -> None:
    if parameters.get("linear_head", True):
        return
    if parameters.get("fused_head"):
        raise ModelError("fused_head=True and linear_head=False: give one head.")
    check_channels(
        parameters.get("channels", DEFAULT_CHANNELS), parameters.get("n_block", DEFAULT_BLOCKS)
    )


def head_name(settings: Mapping[str, Any]) -> HeadName:
    """The head that settings of `DinoV2Segmentor` describe."""
    if settings.get("fused_head", False):
        return "fused"
    return "linear" if settings["linear_head"] else "cnn"


def check_channels(channels: int, n_block: int) -> None:
    """Refuse channels of the CNN head that its pixel shuffles cannot divide."""
    shuffles = n_block // 2
    if channels % 4**shuffles:
        raise ModelError(
            f"channels={channels}: {shuffles} pixel shuffles take a quarter each; with "
            f"n_block={n_block} give a multiple of {4**shuffles}."
        )


def check_docstrings() -> None:
    """Refuse a Python without docstrings, from which transformers builds classes.

    Raises:
        ModelError: Python runs with -OO.
    """
    if sys.flags.optimize > 1:
        raise ModelError(
            "Python runs with -OO or PYTHONOPTIMIZE=2, which removes docstrings that the "
            "library transformers needs; unset PYTHONOPTIMIZE, or set it to 1."
        )


def check_backbone_source(source: str | Path, *, revision: str | None = None) -> None:
    """Refuse a folder that does not exist, rather than look for it on the hub.

    `none` means no backbone. Else only `owner/name` can be a name on the hub. It is a path all the
    same if a folder `owner` exists here, or one that is spelled alike and holds a folder like
    `name`; not if a revision is given, which folders do not have, or if the owner is that of the
    published backbones.

    Raises:
        ModelError: the source is a path (by its form, or because it exists) but not a folder, or
            it is not a valid name on the hub.
    """
    if not has_backbone(source):
        return
    if not isinstance(source, str | Path):
        raise wrong_argument(
            source,
            "backbone",
            "a folder or a name on the hub",
            error=ModelError,
            way_out=f"give one such as {HUB_NAMES['base']}",
        )
    text = str(source)
    if not 0 < len(text) <= _LONGEST_PATH:
        raise ModelError(
            f"backbone {text[:40]!r}: a folder or model cannot have a name of {len(text):,} "
            f"characters; give a folder, or a name on the hub such as {HUB_NAMES['base']}."
        )
    if os.path.isdir(source):
        return
    if _is_path(source, revision):
        similar = similar_folder(text)
        meant = f"did you mean {similar}? Else give one" if similar else "give one"
        raise ModelError(
            f"backbone {text[:200]}: no such folder; {meant} that holds config.json and "
            f"model.safetensors, or a name on the hub such as {HUB_NAMES['base']}."
        )
    if _NAME.fullmatch(text) is None:
        raise ModelError(
            f"backbone {text[:200]!r}: is neither a folder nor a name on the hub; give one such as "
            f"{HUB_NAMES['base']}."
        )


def _is_path(source: str | Path, revision: str | None) -> bool:
    """Whether a source that is not a folder can only be meant as one."""
    if isinstance(source, Path) or source.startswith(("/", ".", "~")) or source.count("/") != 1:
        return True
    if "\\" in source or os.path.exists(source):
        return True
    owner = source.partition("/")[0]
    if revision is not None or owner == _PUBLISHER:
        return False
    return os.path.isdir(owner) or similar_folder(source) is not None


def similar_folder(path: str) -> str | None:
    """An existing folder whose path is spelled like this one; None if there is none."""
    found = "/" if path.startswith("/") else ""
    for name in filter(None, path.split("/")):
        here = os.path.join(found, name)
        if not os.path.isdir(here):
            alike = get_close_matches(name, _folders_in(found), n=1, cutoff=_ALIKE)
            if not alike:
                return None
            here = os.path.join(found, alike[0])
        found = here
    return found


def _folders_in(folder: str) -> list[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []


def known_patch_px(backbone: str | Path | None) -> int | None:
    """Patch size of the published backbones (for None) or of a folder; None if unknown.

    1 without a backbone.
    """
    if backbone is None:
        return PATCH_PX
    if not has_backbone(backbone):
        return 1
    try:
        patch_px = read_json_object(Path(backbone) / "config.json").get("patch_size")
    except WrongJsonError:
        return None
    return patch_px if type(patch_px) is int and patch_px > 0 else None


def check_device_name(name: str) -> None:
    """Refuse a name that no device has; whether the device exists, `pick_device` tells."""
    if _DEVICE.fullmatch(name) is None:
        raise DeviceError(f"device {name!r}: give auto, cpu, cuda or cuda:N.")


def _these(parameters: Mapping[str, Any], names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    return ((name, parameters[name]) for name in names if name in parameters)
