"""config.json of a model folder, read and checked key by key. Loads no torch.

Whatever was edited, truncated or forged is refused here before anything is built from it; the rest
of the model may then rely on types and ranges.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from geodinoseg.errors import LegendError, ModelError, ModelFolderError, one_line
from geodinoseg.legend import Legend
from geodinoseg.model.json_object import OtherJsonError, WrongJsonError, read_json_object
from geodinoseg.model.parameters import NO_BACKBONE, check_parameters
from geodinoseg.version import __version__

FORMAT = "geodinoseg-model"
FORMAT_VERSION = 1

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
BACKBONE = "backbone"

_PICKLES = {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth", ".joblib"}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

# Far above any useful model, far below what would exhaust the memory of the machine.
_LARGEST = {
    "n_block": 12,
    "channels": 16_384,
    "k_size": 31,
    "n_features": 256,
    "num_classes": 65_535,
    "r": 4_096,
    "lora_alpha": 1_000_000,
}
_LARGEST_BAND = 65_535
_LONGEST_NAME = 1_000
_LARGEST_TILE_PX = 65_536
_LARGEST_NUMBER = 1e38
_LEAST_TEMPERATURE = 0.01

_Check = Callable[[Any], bool]


def is_model_folder(folder: Path) -> bool:
    """Whether a folder is a geodinoseg model, by its config.json."""
    try:
        return read_json_object(folder / CONFIG).get("format") == FORMAT
    except WrongJsonError:
        return False


def read_model_config(folder: str | Path) -> dict[str, Any]:
    """Read config.json of a model folder: the keys that `write_model` writes, each within range.

    Raises:
        ModelFolderError: the folder is missing, incomplete, damaged or of another kind.
    """
    place = Path(folder)
    _check_files(place)
    try:
        config = read_json_object(place / CONFIG)
    except OtherJsonError as error:
        raise ModelFolderError(
            f"{place}: {CONFIG} {error}, so it is not a geodinoseg model; give a folder that "
            f"'geodinoseg train' wrote, or copy it again."
        ) from error
    except WrongJsonError as error:
        raise ModelFolderError(f"{place}: {CONFIG} {error}; copy the folder again.") from error
    _check_kind(place, config)
    try:
        _check_keys(config)
    except (ValueError, LegendError, ModelError) as error:
        raise ModelFolderError(
            f"{place}: {CONFIG} is incomplete or damaged; copy the folder again, or train anew "
            f"({one_line(error)[:200]})."
        ) from error
    return dict(config)


def _check_files(place: Path) -> None:
    if not place.exists():
        raise ModelFolderError(
            f"{place}: no such model folder; give one that 'geodinoseg train' wrote."
        )
    if not place.is_dir():
        raise ModelFolderError(f"{place}: is a file; give the folder that holds {CONFIG}.")
    if not (place / CONFIG).is_file():
        raise ModelFolderError(
            f"{place}: {CONFIG} is missing; give a folder that 'geodinoseg train' wrote, whole."
        )


def _check_kind(place: Path, config: Mapping[str, Any]) -> None:
    if config.get("format") != FORMAT:
        raise ModelFolderError(
            f"{place}: is not a geodinoseg model, but of another kind; give a folder that "
            f"'geodinoseg train' wrote. (A backbone goes into training: train --backbone.)"
        )
    if config.get("format_version") != FORMAT_VERSION:
        raise ModelFolderError(
            f"{place}: was written in format {str(config.get('format_version'))[:40]!r}, this "
            f"geodinoseg ({__version__}) reads {FORMAT_VERSION}; use the version that wrote it "
            f"({str(config.get('geodinoseg_version'))[:40]})."
        )
    _check_links(place)
    pickles = sorted(p.name for p in place.rglob("*") if p.suffix.lower() in _PICKLES)
    if pickles:
        raise ModelFolderError(
            f"{place}: holds {pickles[0]}, a format that can run code when it is loaded; a model "
            f"consists of safetensors and JSON. Remove it if it is a stray file."
        )
    if not (place / WEIGHTS).is_file():
        raise ModelFolderError(f"{place}: {WEIGHTS} is missing; copy the whole folder again.")


def _check_links(place: Path) -> None:
    """Refuse links out of the folder."""
    inside = place.resolve()
    for path in place.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise ModelFolderError(
                f"{place}: {path.relative_to(place)} is a link to a file outside the folder; copy "
                f"the folder with its files (cp -rL)."
            )


def _check_keys(config: Mapping[str, Any]) -> None:
    """Raise ValueError or LegendError for a key that is missing, mistyped or out of range."""
    _check_each(config, "", _TOP)
    _check_each(config, "", {n: check for n, check in _OPTIONAL.items() if n in config})
    statistics = config["statistics"]
    _check_each(statistics, "statistics: ", _STATISTICS)
    if "scale" in statistics or "offset" in statistics:
        _check_each(statistics, "statistics: ", _UNITS)
    network = config["network"]
    _check_each(network, "network: ", _NETWORK | (_FUSED if "fused_head" in network else {}))
    _check_known(network, "network: ", _NETWORK | _FUSED)
    if config["backbone"] is not None:
        _check_each(config["backbone"], "backbone: ", _REFERENCE)
        check_parameters({**network, "backbone": config["backbone"]["name"]})
    if WEIGHTS not in config["sha256"]:
        raise ValueError(f"sha256 of {WEIGHTS} is missing")
    legend = Legend.from_json(config["legend"])
    bands = len(config["bands"])
    lengths = {len(statistics[name]) for name in ("mean", "std", "low", "high")}
    lengths |= {len(statistics[name]) for name in _UNITS if name in statistics}
    lengths |= {len(config["band_names"])} - {0} if "band_names" in config else set()
    if network["num_classes"] != len(legend) or lengths != {bands}:
        raise ValueError("legend, bands, statistics and network do not fit each other")


def _check_each(values: Mapping[str, Any], where: str, checks: Mapping[str, _Check]) -> None:
    for name, is_right in checks.items():
        if name not in values:
            raise ValueError(f"{where}{name} is missing")
        if not is_right(values[name]):
            raise ValueError(f"{where}{name} cannot be {str(values[name])[:60]!r}")


def _check_known(values: Mapping[str, Any], where: str, checks: Mapping[str, _Check]) -> None:
    unknown = sorted(values.keys() - checks.keys())
    if unknown:
        raise ValueError(f"{where}{unknown[0]} is unknown")


def _whole(low: int, high: int) -> _Check:
    return lambda value: type(value) is int and low <= value <= high


def _is_number(value: Any) -> bool:
    # A comparison, not isfinite: JSON holds whole numbers that no float can.
    return type(value) in {int, float} and abs(value) < _LARGEST_NUMBER


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(_is_number(entry) for entry in value)


def _stds(value: Any) -> bool:
    return _numbers(value) and all(entry > 0 for entry in value)


def _scales(value: Any) -> bool:
    return _numbers(value) and all(entry != 0 for entry in value)


def _is(*kinds: type) -> _Check:
    return lambda value: type(value) in kinds


def _bands(value: Any) -> bool:
    is_band = _whole(1, _LARGEST_BAND)
    return isinstance(value, list) and bool(value) and all(is_band(band) for band in value)


def _entries(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and type(entry.get("class_id")) is int for entry in value
    )


def _checksums(value: Any) -> bool:
    """File names that stay within the folder, each with its SHA-256."""
    return isinstance(value, dict) and all(
        type(checksum) is str
        and _SHA256.fullmatch(checksum)
        and not PurePosixPath(name).is_absolute()
        and ".." not in PurePosixPath(name).parts
        for name, checksum in value.items()
    )


def _hub_name(value: Any) -> bool:
    """`owner/name` and no path, which could lead anywhere; or `none`."""
    if type(value) is not str:
        return False
    return value == NO_BACKBONE or (_HUB_NAME.fullmatch(value) is not None and ".." not in value)


def _revision(value: Any) -> bool:
    """Whether a value can be a branch, tag or commit; the hub's cache has a file of that name."""
    if type(value) is not str:
        return value is None
    return _REVISION.fullmatch(value) is not None and ".." not in value


_TEXT = _is(str)

_TOP: dict[str, _Check] = {
    "legend": _entries,
    "bands": _bands,
    "statistics": _is(dict),
    "tile_px": _whole(1, _LARGEST_TILE_PX),
    "pixel_size_m": lambda value: value is None or (_is_number(value) and value > 0),
    "network": _is(dict),
    "backbone": _is(dict, type(None)),
    "training": _is(dict),
    "scores": _is(dict),
    "sha256": _checksums,
}
# Absent from the folders of older versions.
_OPTIONAL: dict[str, _Check] = {
    "band_names": lambda value: (
        isinstance(value, list)
        and all(type(name) is str and len(name) < _LONGEST_NAME for name in value)
    ),
    "temperature": lambda value: (
        _is_number(value) and _LEAST_TEMPERATURE <= value <= 1 / _LEAST_TEMPERATURE
    ),
}
_STATISTICS: dict[str, _Check] = {
    "mean": _numbers,
    "std": _stds,
    "low": _numbers,
    "high": _numbers,
    "dtype": _TEXT,
}
# Absent if the training scenes have no scale or offset.
_UNITS: dict[str, _Check] = {"scale": _scales, "offset": _numbers}
_NETWORK: dict[str, _Check] = {
    **{name: _whole(1, largest) for name, largest in _LARGEST.items()},
    "linear_head": _is(bool),
    "quantize": _is(bool),
    "peft": _is(bool),
    "size": _TEXT,
    "activation": _TEXT,
    "lora_dropout": _is_number,
}
# Absent from models with another head.
_FUSED: dict[str, _Check] = {"fused_head": _is(bool)}
_REFERENCE: dict[str, _Check] = {"name": _hub_name, "revision": _revision}
