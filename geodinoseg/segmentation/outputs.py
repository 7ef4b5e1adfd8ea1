"""The output files of a segmentation: named, checked before any work, and locked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from geodinoseg.errors import OutputError
from geodinoseg.files.arguments import listed, output_path
from geodinoseg.files.atomic import PathLike, check_output
from geodinoseg.files.locks import check_unlocked, lock_output
from geodinoseg.legend import Legend
from geodinoseg.polygons.settings import PLAIN_POLYGONS, PolygonSettings
from geodinoseg.progress import Progress, part_of
from geodinoseg.rasters.class_raster import ClassRaster
from geodinoseg.rasters.cog import check_georeferencing
from geodinoseg.rasters.scene import Scene
from geodinoseg.rasters.sidecars import check_sidecars, raster_sidecars

RASTER_SUFFIXES = (".tif", ".tiff")
_CONTAINS_STYLE = ".gpkg"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFiles:
    """The output files of one segmentation."""

    class_raster: Path
    confidence: Path | None = None
    probabilities: Path | None = None
    polygons: tuple[Path, ...] = ()
    """Their suffixes determine the formats."""
    polygon_settings: PolygonSettings = PLAIN_POLYGONS
    """Minimum area, holes and simplification of the polygons."""
    replaceable: frozenset[Path] = frozenset()
    """The files that may be replaced if they exist."""

    @classmethod
    def named(
        cls,
        output: PathLike,
        *,
        confidence: bool | PathLike = False,
        probabilities: bool | PathLike = False,
        polygons: PathLike | Iterable[PathLike] = (),
        polygon_settings: PolygonSettings | None = None,
    ) -> MapFiles:
        """The outputs requested: True stands for `<output>_confidence.tif` and so on."""
        main = output_path(output)

        def path_of(layer: str, choice: bool | PathLike) -> Path | None:
            if choice is True:
                return main.with_name(f"{main.stem}_{layer}.tif")
            return None if choice is False else output_path(choice, layer)

        return cls(
            class_raster=main,
            confidence=path_of("confidence", confidence),
            probabilities=path_of("probabilities", probabilities),
            polygons=tuple(output_path(path, "polygons") for path in listed(polygons)),
            polygon_settings=polygon_settings or PLAIN_POLYGONS,
        )

    @property
    def rasters(self) -> tuple[Path, ...]:
        """The rasters, class raster first."""
        return tuple(p for p in (self.class_raster, self.confidence, self.probabilities) if p)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, class raster first."""
        return (*self.rasters, *self.polygons)

    def side_files(self) -> tuple[Path, ...]:
        """The existing files that readers take for part of these, by their names."""
        found = [side for path in self.rasters for side in raster_sidecars(path)]
        if self.polygons:
            from geodinoseg.polygons.sidecars import find_sidecars  # noqa: PLC0415 (a second GDAL)

            for path in self.polygons:
                found += find_sidecars(path, _vector_endings(path))
        return tuple(found)

    def names_to_write(self) -> list[str]:
        """Names of all files that a run may leave, side files included."""
        names = [path.name for path in self.paths]
        for path in self.rasters:
            names += [f"{path.name}.aux.xml", f"{path.stem}.qml"]
        for path in self.polygons:
            names += [path.stem + ending for ending in _vector_endings(path) if "*" not in ending]
        return names

    def replacing(self, own: Iterable[Path], *, overwrite: bool) -> MapFiles:
        """A copy with the files that may be replaced.

        Args:
            own: absolute paths of files written by an interrupted run of this map.
            overwrite: whether all files may be replaced.
        """
        own = frozenset(own)
        replaceable = (path for path in self.paths if overwrite or path.resolve() in own)
        return replace(self, replaceable=frozenset(replaceable))

    def check_rasters(self, scene: Scene) -> None:
        """Raise OutputError if a raster cannot be written, is the scene or is locked.

        Also if two rasters are the same file or share a style file, if old files beside one would
        be read as part of it, or if a GeoTIFF cannot hold the scene's georeferencing.
        """
        for path in self.rasters:
            overwrite = path in self.replaceable
            check_output(
                path, overwrite=overwrite, suffixes=RASTER_SUFFIXES, inputs=[scene.source.path]
            )
            check_sidecars(path, overwrite=overwrite)
        _check_distinct(self.rasters)
        _check_styles(self.class_raster, self.rasters[1:])
        check_georeferencing(scene.geobox, scene.source.path)
        for path in self.rasters:
            check_unlocked(path)

    def check_polygons(self, scene: Scene, legend: Legend) -> None:
        """Check the polygon files like the rasters; SceneError if the scene is not georeferenced.

        The class names must fit the format, and sizes in metres need a CRS.
        """
        self._check_ground(scene)
        if not self.polygons:
            return
        from geodinoseg.polygons.checks import check_vector_output  # noqa: PLC0415 (a second GDAL)
        from geodinoseg.polygons.ground import warn_of_areas  # noqa: PLC0415

        inputs: list[PathLike] = [scene.path, *self.rasters]
        for path in self.polygons:
            overwrite = path in self.replaceable
            check_vector_output(
                path, geobox=scene.geobox, legend=legend, overwrite=overwrite, inputs=inputs
            )
        for path in self.polygons:
            check_unlocked(path)
        _check_distinct(self.polygons)
        styled = [path for path in self.polygons if path.suffix.lower() != _CONTAINS_STYLE]
        for raster in self.rasters:
            _check_styles(raster, styled)
        warn_of_areas(scene.path, scene.geobox)

    def check_place(self, scene: Scene) -> None:
        """Refuse polygons without a position on the ground, or in a format that cannot store it.

        Also refuses sizes in metres if the scene's CRS has no length in metres. This is the part
        of `check_polygons` for a plan, which writes nothing.
        """
        self._check_ground(scene)
        if not self.polygons:
            return
        from geodinoseg.polygons.checks import check_crs  # noqa: PLC0415 (a second GDAL)

        for path in self.polygons:
            check_crs(path, scene.geobox)

    def _check_ground(self, scene: Scene) -> None:
        if not self.polygons:
            if self.polygon_settings != PLAIN_POLYGONS:
                raise OutputError(f"{self.class_raster}: polygon settings require polygons.")
            return
        from geodinoseg.polygons.ground import check_metres, check_place  # noqa: PLC0415 (pyproj)

        check_place(scene.path, scene.geobox)
        settings = self.polygon_settings
        check_metres(
            scene.path,
            scene.geobox,
            min_area_m2=settings.min_area_m2,
            fill_holes_m2=settings.fill_holes_m2,
            simplify_m=settings.simplify_m,
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock all files; OutputError if another process is writing one."""
        with ExitStack() as locks:
            for path in self.paths:
                locks.enter_context(lock_output(path))
            yield

    def write_polygons(self, raster: ClassRaster, *, progress: Progress) -> None:
        """Write the polygons, file by file; errors get a note that the raster is complete."""
        from geodinoseg.polygons.polygonize import write_map_polygons  # noqa: PLC0415 (2nd GDAL)

        settings, count = self.polygon_settings, len(self.polygons)
        for index, path in enumerate(self.polygons):
            stage = part_of(progress, index / count, (index + 1) / count)
            try:
                write_map_polygons(
                    raster, path, settings, overwrite=path in self.replaceable, progress=stage
                )
            except BaseException as error:
                error.add_note(f"{raster.path} is complete, its polygons are not.")
                raise


def _vector_endings(path: Path) -> tuple[str, ...]:
    """Endings of the files beside a vector file, its style included."""
    from geodinoseg.polygons.writer import format_of  # noqa: PLC0415 (a second GDAL)

    style = () if path.suffix.lower() == _CONTAINS_STYLE else (".qml",)
    return format_of(path).sidecars + style


def _check_distinct(paths: Sequence[Path]) -> None:
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise OutputError(f"{path}: two outputs cannot be the same file; give another name.")
        seen.add(path.resolve())


def _check_styles(raster: Path, others: Iterable[Path]) -> None:
    """QGIS reads the style of a file from a `.qml` of the same stem, which holds one style."""
    for other in others:
        if (other.parent.resolve(), other.stem) == (raster.parent.resolve(), raster.stem):
            raise OutputError(
                f"{other}: would share the style file {raster.stem}.qml with {raster.name}; give "
                f"one of them another name, or write polygons as .gpkg, which contains its style."
            )
