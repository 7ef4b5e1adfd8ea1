"""Where the outputs of many scenes go, and that no two of them meet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geodinoseg.batch.scenes import ListedScene
from geodinoseg.errors import OutputError

_HOLDS_ITS_STYLE = ".gpkg"
_KNOWN = re.compile(r"\{(stem|parent)\}")
_PLACEHOLDER = re.compile(r"\{\w*\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputNames:
    """What the outputs of a scene are called; `{stem}` stands for the scene's name."""

    class_raster: str = "{stem}.tif"
    confidence: str | None = None
    probabilities: str | None = None
    polygons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFiles:
    """The outputs of one scene."""

    class_raster: Path
    confidence: Path | None
    probabilities: Path | None
    polygons: tuple[Path, ...]

    @property
    def rasters(self) -> tuple[Path, ...]:
        """Class raster first."""
        return tuple(p for p in (self.class_raster, self.confidence, self.probabilities) if p)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them, class raster first."""
        return (*self.rasters, *self.polygons)


def planned_files(
    scenes: Sequence[ListedScene], folder: Path, names: OutputNames
) -> tuple[MapFiles, ...]:
    """Where the outputs of each scene go.

    Raises:
        OutputError: two are one file, or would share a style file; one is a scene, or its name
            holds what stands for nothing.
    """
    maps = tuple(_files_of(scene, folder, names) for scene in scenes)
    _check_no_scene(scenes, maps)
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


def _check_no_scene(scenes: Sequence[ListedScene], maps: Sequence[MapFiles]) -> None:
    named = {Path(scene.path).resolve() for scene in scenes}
    for files in maps:
        for path in files.paths:
            if path.resolve() in named:
                raise OutputError(
                    f"{path}: is one of the scenes, or a map of an earlier run among them; give "
                    f"the maps a folder of their own."
                )


def _files_of(scene: ListedScene, folder: Path, names: OutputNames) -> MapFiles:
    def place(template: str) -> Path:
        name = template.replace("{parent}", Path(scene.path).parent.name)
        name = name.replace("{stem}", scene.stem)
        unknown = _PLACEHOLDER.search(_KNOWN.sub("", template))
        if unknown:
            raise OutputError(
                f"{template}: {unknown[0]} stands for nothing; use {{stem}} and {{parent}}."
            )
        if Path(name).name != name or name in {"", ".", ".."}:
            raise OutputError(f"{name}: is no file name; outputs lie in one folder, {folder}.")
        return folder / name

    return MapFiles(
        class_raster=place(names.class_raster),
        confidence=place(names.confidence) if names.confidence else None,
        probabilities=place(names.probabilities) if names.probabilities else None,
        polygons=tuple(map(place, names.polygons)),
    )
