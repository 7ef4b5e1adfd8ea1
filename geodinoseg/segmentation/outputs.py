"""The polygon files that follow a map, written before its parts go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geodinoseg.legend import Legend
from geodinoseg.polygons.ground import check_place
from geodinoseg.polygons.polygonize import write_polygons
from geodinoseg.polygons.writer import check_vector_output, crs_in_file
from geodinoseg.progress import Progress, part_of
from geodinoseg.rasters.class_raster import ClassRaster
from geodinoseg.rasters.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPolygons:
    """Files for the polygons of one class raster."""

    files: tuple[Path, ...]
    """Their endings say the format."""
    replaced: frozenset[Path]
    """Those of them that may be there already."""

    @classmethod
    def of(cls, files: Iterable[Path], *, own: Collection[Path], overwrite: bool) -> MapPolygons:
        """Files of which those that an earlier part of the same run wrote may be replaced.

        Args:
            files: where the polygons go.
            own: whole paths of what that run put in place; see `parts.interrupted_outputs`.
            overwrite: whether all may be replaced.
        """
        files = tuple(files)
        replaced = frozenset(path for path in files if overwrite or path.resolve() in own)
        return cls(files=files, replaced=replaced)

    def check(self, scene: Scene, legend: Legend, *, inputs: Sequence[Path]) -> None:
        """Say before any work what stands in their way.

        Args:
            scene: gives the place; must not be replaced.
            legend: of the map; its names must fit the format.
            inputs: further files that must not be replaced.

        Raises:
            SceneError: the scene has no place on the ground.
            OutputError: a file cannot be written.
        """
        check_place(scene.path, scene.geobox)
        for path in self.files:
            check_vector_output(
                path, legend=legend, overwrite=path in self.replaced, inputs=[scene.path, *inputs]
            )
            crs_in_file(path, scene.geobox.crs)

    def write(self, raster: ClassRaster, *, progress: Progress) -> None:
        """Write them one after the other; whatever ends it says that the raster is whole.

        Raises:
            OutputError: as `write_polygons`.
        """
        for index, path in enumerate(self.files):
            stage = part_of(progress, index / len(self.files), (index + 1) / len(self.files))
            try:
                write_polygons(raster, path, overwrite=path in self.replaced, progress=stage)
            except BaseException as error:
                error.add_note(f"{raster.path} is whole, its polygons are not.")
                raise
