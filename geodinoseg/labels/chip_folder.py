"""Folders of image chips and their label chips, as ArcGIS exports them or as plain pairs.

Finds the pairs by name; opens no raster. ArcGIS's "Export Training Data For Deep Learning" writes
images/, labels/, map.txt (one line per pair), esri_accumulated_stats.json and
esri_model_definition.emd (both JSON; the classes have Value, Name and Color). Of its formats only
Classified_Tiles gives the class of each pixel, and there a pixel of no class is 0.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from geodinoseg.errors import LabelError
from geodinoseg.rasters.class_style import ClassStyle
from geodinoseg.rasters.legend_file import classes_of_json, read_text

_log = logging.getLogger(__name__)
_IMAGES = ("images", "image", "img", "imgs")
_LABELS = ("labels", "masks", "annotations", "label", "mask", "annotation", "gt")
_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".mrf", ".img", ".bmp")
_EMD = "esri_model_definition.emd"
_STATISTICS = "esri_accumulated_stats.json"
_MAP = "map.txt"
_PIXELWISE = "classified_tiles"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipFolder:
    """Pairs of an image and a label raster of its size, pixel for pixel."""

    path: str
    """The folder."""
    pairs: tuple[tuple[str, str], ...]
    """Image and label of each, in the order of their names."""
    style: ClassStyle
    """Numbers, names and colours of the classes, where the folder describes them."""
    zero_is_unlabelled: bool
    """Whether the value 0 is no label, as in ArcGIS's exports that list no class 0."""


def find_chips(folder: str, labels: str | None = None) -> ChipFolder:
    """Pair the chips of a folder.

    Args:
        folder: with images/ and labels/ (or masks/, annotations/) whose files share their stems,
            or with NAME.tif beside NAME_mask.tif or NAME_label.tif; of images alone where `labels`
            is given.
        labels: folder of the label chips.

    Raises:
        LabelError: a folder is missing or holds no pair, the export is not of pixels, or its
            description is damaged.
    """
    root, home = Path(folder), None if labels is None else Path(labels)
    if home is not None and not home.is_dir():
        raise LabelError(
            f"{folder}: is a folder of image chips, but its labels {labels} are not a folder of "
            f"label chips; give one, or scenes as files."
        )
    images, masks = _rasters_of(root, home)
    listed = _listed_pairs(root) if home is None else []
    pairs = listed or [(images[stem], masks[stem]) for stem in images if stem in masks]
    if not pairs:
        raise LabelError(
            f"{folder}: holds no image chip with its label chip; give images/ and labels/ (or "
            f"masks/) with the same names, or NAME.tif beside NAME_mask.tif, or the folder of the "
            f"labels with --labels."
        )
    _warn_of_unpaired(folder, images, masks, pairs)
    # The description of an export lies beside its images/ and labels/.
    homes = [root] if home is None else [root, home, home.parent, root.parent]
    style = _described_classes(homes)
    has_zero = any(entry.class_id == 0 for entry in style.classes)
    return ChipFolder(
        path=folder,
        pairs=tuple((str(image), str(label)) for image, label in sorted(pairs)),
        style=style,
        zero_is_unlabelled=_is_export(homes) and not has_zero,
    )


def joined(folders: Sequence[ChipFolder]) -> ChipFolder:
    """The pairs of several folders as those of one; their classes must agree."""
    first = folders[0]
    for other in folders[1:]:
        if (other.style, other.zero_is_unlabelled) != (first.style, first.zero_is_unlabelled):
            raise LabelError(
                f"{other.path}: has other classes than {first.path}; export both alike, or train "
                f"on one of them."
            )
    pairs = tuple(pair for folder in folders for pair in folder.pairs)
    return replace(first, pairs=pairs, path=", ".join(folder.path for folder in folders))


def _rasters_of(root: Path, labels: Path | None) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and labels by the stem that pairs share."""
    home = _first_folder(root if labels is None else labels, _LABELS) or labels
    if home is None:
        return _side_by_side(_by_stem(root))
    _check_pixelwise(home)
    images = _by_stem(_first_folder(root, _IMAGES) or root)
    masks = _by_stem(home)
    # A label may be called NAME_mask even in a folder of its own.
    return images, {stem if stem in images else _bare(stem): masks[stem] for stem in masks}


def _side_by_side(rasters: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images, and the NAME_mask that lies beside a NAME."""
    masks = {
        _bare(stem): path
        for stem, path in rasters.items()
        if _bare(stem) != stem and _bare(stem) in rasters
    }
    taken = set(masks.values())
    return {stem: path for stem, path in rasters.items() if path not in taken}, masks


def _by_stem(folder: Path) -> dict[str, Path]:
    rasters = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES)
    return {path.stem: path for path in rasters if not path.name.startswith(".")}


def _bare(stem: str) -> str:
    """`NAME` of `NAME_mask` and the like."""
    bare, separator, last = stem.rpartition("_")
    return bare if separator and last.lower() in {*_LABELS, "seg", "lab"} else stem


def _first_folder(root: Path, names: Sequence[str]) -> Path | None:
    folders = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def _check_pixelwise(labels: Path) -> None:
    """Refuse bounding boxes: object labels lie in XML or text files."""
    suffixes = {path.suffix.lower() for path in labels.iterdir() if path.is_file()}
    if suffixes & {".xml", ".txt"} and not suffixes & set(_SUFFIXES):
        raise LabelError(
            f"{labels}: holds bounding boxes of objects, not a class for each pixel; export the "
            f"training data as Classified Tiles."
        )


def _is_export(homes: Sequence[Path]) -> bool:
    return any((home / name).is_file() for home in homes for name in (_EMD, _STATISTICS, _MAP))


def _listed_pairs(root: Path) -> list[tuple[Path, Path]]:
    """The pairs of an export's list that exist: image first, label last in a line."""
    if not (root / _MAP).is_file():
        return []
    found = []
    for line in read_text(str(root / _MAP)).splitlines():
        cells = line.split("\t") if "\t" in line else line.split()
        if len(cells) > 1:
            image, label = (
                root / PureWindowsPath(cells[end].strip()).as_posix() for end in (0, -1)
            )
            if label.suffix.lower() in _SUFFIXES and image.is_file() and label.is_file():
                found.append((image, label))
    return found


def _warn_of_unpaired(
    folder: str,
    images: dict[str, Path],
    masks: dict[str, Path],
    pairs: Iterable[tuple[Path, Path]],
) -> None:
    taken = {path for pair in pairs for path in pair}
    alone = [sum(path not in taken for path in chips.values()) for chips in (images, masks)]
    if any(alone):
        _log.warning(
            "%s: left out %d image chips without a label chip and %d label chips without an image.",
            folder,
            *alone,
        )


def _described_classes(homes: Sequence[Path]) -> ClassStyle:
    """The classes of an export's description, once its format is checked."""
    found = [home / name for name in (_EMD, _STATISTICS) for home in homes]
    for path in dict.fromkeys(path for path in found if path.is_file()):
        text = read_text(str(path))
        content = _json_object(path, text)
        mode = str(content.get("MetaDataMode", _PIXELWISE))
        if mode.lower() != _PIXELWISE:
            raise LabelError(
                f"{path}: is of the format {mode}, which does not give the class of each pixel; "
                f"export the training data as Classified Tiles."
            )
        if content.get("Classes"):
            return ClassStyle(classes_of_json(str(path), text))
    return ClassStyle()


def _json_object(path: Path, text: str) -> dict[str, object]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise LabelError(
            f"{path}: is not a JSON object, as such a file should be; export the training data "
            f"again, or remove it, then the numbers of the chips are the classes."
        )
    return content
