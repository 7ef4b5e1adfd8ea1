"""Many scenes: files, folders, patterns, lists and STAC items, and where their maps go."""

from __future__ import annotations

import glob
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from geodinoseg.errors import OutputError, SceneError, one_line
from geodinoseg.files.arguments import listed, path_text
from geodinoseg.files.atomic import PathLike, check_folder_of
from geodinoseg.polygons.settings import PLAIN_POLYGONS, PolygonSettings
from geodinoseg.segmentation.outputs import RASTER_SUFFIXES, MapFiles

_log = logging.getLogger(__name__)
_RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img")
_IS_A_PATTERN = re.compile(r"[*?[]")
_LARGEST_ITEM_BYTES = 16 << 20
_RASTER_TYPES = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2")
_HOLDS_ITS_STYLE = ".gpkg"
_KNOWN = re.compile(r"\{(stem|parent)\}")
_PLACEHOLDER = re.compile(r"\{\w*\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedScene:
    """A scene among many."""

    path: str
    """A file, or any path that GDAL reads."""
    stem: str
    """Stands for `{stem}` in the names of its outputs."""

    @property
    def public_name(self) -> str:
        """The path without the parts of an address that may be secret: user, query, fragment."""
        prefix, found, rest = self.path.rpartition("/vsicurl/")
        parts = urlsplit(rest if found else self.path)
        if not parts.scheme or not parts.netloc:
            return self.path
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        return prefix + found + plain.geturl()


def find_scenes(
    named: PathLike | Iterable[PathLike],
    *,
    list_file: PathLike | None = None,
    asset: str | None = None,
) -> tuple[ListedScene, ...]:
    """Find scenes by name, each once, in the order in which they are named.

    Args:
        named: one or several files or addresses; folders, for the rasters in them; patterns such as
            `tiles/*.tif`; `@list.txt`; STAC items (`.json`).
        list_file: a text file of such names, one a line; `#` begins a comment.
        asset: which raster of a STAC item that has several.

    Raises:
        SceneError: no scene is found, or a list or an item cannot be read.
    """
    lines = [path_text(name, "scenes", error=SceneError) for name in listed(named)]
    if list_file is not None:
        lines.append(f"@{path_text(list_file, 'list_file', error=SceneError)}")
    found: dict[str, ListedScene] = {}
    paths = list(_expand(lines))
    for path in paths:
        scene = _scene_of(path, asset)
        found.setdefault(os.path.abspath(path) if os.path.exists(path) else path, scene)
    if asset is not None and not any(map(_is_stac, paths)):
        _log.warning("--asset %s has no effect: no STAC item is among the scenes.", asset)
    if not found:
        raise SceneError("no scene was named; give files, a folder, a pattern or a list.")
    return tuple(found.values())


def listed_scenes(
    scenes: PathLike | ListedScene | Iterable[PathLike | ListedScene],
) -> tuple[ListedScene, ...]:
    """The scenes of a batch: those that `find_scenes` found, and those it finds by the names."""
    given = listed(scenes)
    if not any(isinstance(scene, ListedScene) for scene in given):
        return find_scenes(given)
    found: list[ListedScene] = []
    for scene in given:
        found += [scene] if isinstance(scene, ListedScene) else find_scenes(scene)
    return tuple(found)


def _expand(named: Iterable[str]) -> Iterator[str]:
    for name in named:
        if name.startswith("@") and not os.path.exists(name):
            yield from _expand(_read_list(Path(name[1:])))
        elif os.path.isdir(name):  # a GDAL path need not be a file's
            yield from _not_empty(sorted(_rasters_in(Path(name))), name, "holds no raster")
        elif _IS_A_PATTERN.search(name) and not os.path.exists(name) and "://" not in name:
            matches = sorted(glob.glob(name, recursive=True))  # absolute patterns
            yield from _not_empty(matches, name, "no file matches")
        else:
            yield name


def _read_list(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # a BOM, as editors of Windows write it
    except (OSError, ValueError) as error:
        raise SceneError(
            f"{path}: is not a readable list of scenes ({one_line(error)}); give a text file "
            f"with one scene a line."
        ) from error
    stripped = [_unquoted(line.strip()) for line in lines]
    kept = [line for line in stripped if line and not line.startswith("#")]
    if any(line.startswith("@") for line in kept):
        raise SceneError(f"{path}: names another list; name the scenes in one.")
    return kept


def _unquoted(line: str) -> str:
    """Without the quotes that file managers and shells add; quotes of the file's own name stay."""
    quoted = len(line) > 1 and line[0] == line[-1] and line[0] in "\"'"
    return line[1:-1] if quoted and not os.path.exists(line) else line


def _rasters_in(folder: Path) -> list[str]:
    return [str(path) for path in folder.iterdir() if path.suffix.lower() in _RASTERS]


def _not_empty(paths: list[str], name: str, fault: str) -> list[str]:
    if not paths:
        raise SceneError(f"{name}: {fault}; check the name.")
    return paths


def _is_stac(path: str) -> bool:
    return path.lower().endswith(".json") and os.path.isfile(path)


def _scene_of(path: str, asset: str | None) -> ListedScene:
    if _is_stac(path):
        return _stac_scene(Path(path), asset)
    return ListedScene(path=path, stem=Path(urlsplit(path).path if "://" in path else path).stem)


def _stac_scene(path: Path, asset: str | None) -> ListedScene:
    """The raster of a STAC item: the named asset, or its only raster."""
    item = _read_item(path)
    assets = item["assets"]
    rasters = [name for name, entry in assets.items() if _is_raster(entry)]
    chosen = asset or (rasters[0] if len(rasters) == 1 else None)
    if chosen is None or chosen not in assets:
        raise SceneError(
            f"{path}: choose one of its assets with --asset: {', '.join(rasters or assets)}."
        )
    href = str(assets[chosen]["href"])
    place = href if urlsplit(href).scheme or href.startswith("/") else str(path.parent / href)
    return ListedScene(path=place, stem=re.sub(r"[^\w.-]", "_", str(item.get("id", path.stem))))


def _read_item(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_ITEM_BYTES:
            raise ValueError("it is too large")  # noqa: TRY301 (reported as the others are)
        item: dict[str, Any] = json.loads(path.read_text("utf-8"))
        for entry in item["assets"].values():
            urljoin("", entry["href"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SceneError(
            f"{path}: is not a readable STAC item ({one_line(error)}); give an item with its "
            f"assets, or a raster."
        ) from error
    return item


def _is_raster(entry: dict[str, Any]) -> bool:
    kind, href = str(entry.get("type", "")), urlsplit(str(entry["href"])).path
    return kind.startswith(_RASTER_TYPES) or (not kind and href.lower().endswith(_RASTERS))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputNames:
    """Names of a scene's outputs, in which `{stem}` is its name and `{parent}` its folder's.

    A name that begins with a dot or an underscore is appended to the stem: `.gpkg` is short for
    `{stem}.gpkg`.
    """

    class_raster: str = "{stem}.tif"
    confidence: str | None = None
    probabilities: str | None = None
    polygons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Complete short names, and take a single name of polygons, too."""
        for name in ("class_raster", "confidence", "probabilities"):
            object.__setattr__(self, name, _completed(getattr(self, name)))
        object.__setattr__(self, "polygons", tuple(map(_completed, listed(self.polygons))))


def _completed(name: Any) -> Any:
    return "{stem}" + name if isinstance(name, str) and name[:1] in {".", "_"} else name


def planned_files(
    scenes: Sequence[ListedScene],
    folder: Path,
    names: OutputNames,
    polygon_settings: PolygonSettings | None = None,
) -> tuple[MapFiles, ...]:
    """The output paths of each scene, and the settings of their polygons.

    Raises:
        OutputError: two outputs have the same path or would share a style file, an output has the
            path of a scene, a name has an unknown placeholder, or polygon settings are given
            without a name for polygons.
    """
    settings = polygon_settings or PLAIN_POLYGONS
    if settings != PLAIN_POLYGONS and not names.polygons:
        raise OutputError(f"{folder}: polygon settings require a name for polygons.")
    maps = tuple(
        replace(_files_of(scene, folder, names), polygon_settings=settings) for scene in scenes
    )
    _check_not_a_scene(scenes, maps)
    seen: dict[Path, str] = {}
    for scene, files in zip(scenes, maps, strict=True):
        for path in files.paths:
            # QGIS looks for the style of a file in a `.qml` of its stem, which holds one.
            place = path if path.suffix.lower() == _HOLDS_ITS_STYLE else path.with_suffix(".qml")
            if place in seen:
                raise OutputError(
                    f"{path}: {scene.public_name} and {seen[place]} would both write it, or share "
                    f"its style; give names that differ, such as --name-template "
                    f"'{{parent}}_{{stem}}.tif'."
                )
            seen[place] = scene.public_name
    return maps


def check_names(folder: Path, names: OutputNames) -> None:
    """Check that maps of these names can be written into a folder, which may not exist yet.

    Raises:
        OutputError: the folder cannot be written to, or a name has the ending of another format.
    """
    for name in filter(None, (names.class_raster, names.confidence, names.probabilities)):
        _check_suffix(name, RASTER_SUFFIXES)
    if names.polygons:
        from geodinoseg.polygons.writer import VECTOR_FORMATS  # noqa: PLC0415 (a second GDAL)

        for name in names.polygons:
            _check_suffix(name, tuple(VECTOR_FORMATS))
    check_folder_of(folder / "map" if folder.exists() else folder)


def _check_suffix(name: str, suffixes: tuple[str, ...]) -> None:
    if not name.lower().endswith(suffixes):
        raise OutputError(f"{name}: the name must end in {' or '.join(suffixes)}.")


def _check_not_a_scene(scenes: Sequence[ListedScene], maps: Sequence[MapFiles]) -> None:
    named = {Path(scene.path).resolve() for scene in scenes}
    for files in maps:
        for path in files.paths:
            if path.resolve() in named:
                raise OutputError(
                    f"{path}: is one of the scenes, or a map of an earlier run among them; give "
                    f"the maps a folder of their own."
                )


def _files_of(scene: ListedScene, folder: Path, names: OutputNames) -> MapFiles:
    def path(template: str | None) -> Path | None:
        return _output_path(template, scene, folder) if template else None

    return MapFiles(
        class_raster=_output_path(names.class_raster, scene, folder),
        confidence=path(names.confidence),
        probabilities=path(names.probabilities),
        polygons=tuple(_output_path(template, scene, folder) for template in names.polygons),
    )


def _output_path(template: str, scene: ListedScene, folder: Path) -> Path:
    name = template.replace("{parent}", Path(scene.path).parent.name)
    name = name.replace("{stem}", scene.stem)
    unknown = _PLACEHOLDER.search(_KNOWN.sub("", template))
    if unknown:
        raise OutputError(
            f"{template}: {unknown[0]} is not a placeholder; use {{stem}} and {{parent}}."
        )
    if Path(name).name != name or name in {"", ".", ".."}:
        raise OutputError(
            f"{name}: is not a file name; give one, as outputs go into one folder, {folder}."
        )
    return folder / name
