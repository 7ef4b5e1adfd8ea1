"""A folder with all that a small run of each command needs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasters import write_raster
from sampled_maps import fill, map_classes, write_map
from trainings import NAMES, ColorField

from geodinoseg.evaluation.sampling.draw import SampleOptions, draw_sample


@dataclass(frozen=True)
class Workshop:
    """Inputs of commands, and the folder of their outputs."""

    folder: Path
    model: Path
    backbone: Path
    prefix: str = ""
    """Of the names of all files but GeoPackages, where GDAL leaves out line breaks."""

    def path(self, name: str) -> Path:
        """An input."""
        return self.folder / self._name(name)

    def output(self, name: str) -> Path:
        """An output."""
        return self.folder / "out" / self._name(name)

    def _name(self, name: str) -> str:
        return name if name.endswith(".gpkg") else f"{self.prefix}{name}"

    def call(self, command: str) -> list[object]:
        """The words of a run that succeeds within a second or two."""
        scene, labels, class_raster = map(self.path, ("scene.tif", "labels.gpkg", "map.tif"))
        words: dict[str, list[object]] = {
            "segment": [scene, "--model", self.model, "-o", self.output("map.tif")],
            "train": [
                *(scene, "--labels", labels, "-o", self.output("new.model")),
                *("--backbone", self.backbone, "--no-quantize", "--stage", "head"),
                *("--epochs", 1, "--steps-per-epoch", 1, "--batch-size", 2),
                *("--crop", 56, "--cached-crops", 4),
            ],
            "polygonize": [class_raster, "-o", self.output("map.gpkg")],
            "evaluate": [class_raster, "--labels", labels],
            "sample": [class_raster, "-o", self.output("points.gpkg"), "--min-per-class", 5],
            "picture": [scene, class_raster, "-o", self.output("map.png")],
            "style": [self.path("styled.tif"), self.path("legend.csv")],
            "info": [scene],
        }
        return [command, *words[command]]

    def clear(self) -> None:
        """Remove all outputs."""
        shutil.rmtree(self.folder / "out")
        (self.folder / "out").mkdir()


def open_workshop(
    folder: Path, *, field: ColorField, model: Path, backbone: Path, prefix: str = ""
) -> Workshop:
    """Make the inputs: scene, labels, class raster, and points whose reference is filled in."""
    (folder / "out").mkdir(parents=True)
    workshop = Workshop(folder=folder, model=model, backbone=backbone, prefix=prefix)
    shutil.copy(field.scene, workshop.path("scene.tif"))
    shutil.copy(field.labels, workshop.path("labels.gpkg"))
    # A map with a few mistakes in it.
    ids = np.roll(field.channels, 3, axis=1)
    for name in ("map.tif", "styled.tif"):
        write_map(workshop.path(name), ids, dict(enumerate(NAMES)))
    workshop.path("legend.csv").write_text("id,name,color\n0,field,#112233\n")
    certainty = np.where(ids == field.channels, 90, 55).astype(np.uint8)
    write_raster(workshop.path("sure.tif"), certainty[None], nodata=255)
    points = workshop.path("points.gpkg")
    draw_sample(workshop.path("map.tif"), points, options=SampleOptions(points=60, min_per_class=5))
    fill(points, {number: NAMES[class_id] for number, class_id in map_classes(points).items()})
    return workshop
