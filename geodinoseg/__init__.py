"""geodinoseg: from a large scene to a land-cover map, with DINOv2.

The way of the data:

    path -> Scene -> tile rows (each source block decoded once) -> tile batches on the device
         -> Segmentor: class probabilities -> Stitcher -> class rows -> ClassRaster (COG)
         -> coverage polygons -> GPKG / Shapefile / GeoParquet / FlatGeobuf / GeoJSON

Floors, imports go down only: cli; training, segmentation; the model, stitcher, plan; rasters,
labels, polygons; grid, legend, outputs, errors. Nothing is imported until it is used, so
`import geodinoseg` loads no torch.

    import geodinoseg as gds
    gds.train_model("ortho.tif", "fields.gpkg", "farmland.model")
    raster = gds.segment_scene("ortho.tif", "farmland.model", "landcover.tif", confidence=True)
    gds.write_polygons(raster, "landcover.gpkg")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from geodinoseg.version import __version__

if TYPE_CHECKING:
    from geodinoseg.batch.scenes import OutputNames, listed_scenes
    from geodinoseg.batch.segment_scenes import segment_scenes
    from geodinoseg.cluster.client import connected_workers
    from geodinoseg.cluster.local import local_workers
    from geodinoseg.errors import GeodinosegError
    from geodinoseg.evaluation.evaluate import EvaluationOptions, MapAssessment, evaluate_map
    from geodinoseg.evaluation.report.write import write_report
    from geodinoseg.evaluation.sampling.areas import AreaEstimates, estimate_areas
    from geodinoseg.evaluation.sampling.draw import SampleDesign, SampleOptions, draw_sample
    from geodinoseg.evaluation.sampling.evaluate import SampleAssessment, evaluate_sample
    from geodinoseg.labels.options import LabelOptions
    from geodinoseg.legend import Legend, LegendClass
    from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
    from geodinoseg.model.folder import load_model, save_model
    from geodinoseg.model.segmentor import Segmentor
    from geodinoseg.model.tile_model import TileModel
    from geodinoseg.plots.map_figure import side_by_side
    from geodinoseg.polygons.polygonize import polygonize, write_polygons
    from geodinoseg.polygons.stream import PolygonOptions
    from geodinoseg.rasters.class_raster import ClassRaster, open_class_raster
    from geodinoseg.rasters.scene import Scene, open_scene
    from geodinoseg.segmentation.segment import segment_scene
    from geodinoseg.segmentation.settings import SegmentSettings
    from geodinoseg.training.plan import plan_training
    from geodinoseg.training.settings import Augmentation, TrainingSettings
    from geodinoseg.training.train import train_model

_HOMES = {
    "AreaEstimates": "evaluation.sampling.areas",
    "Augmentation": "training.settings",
    "ClassRaster": "rasters.class_raster",
    "DinoV2Segmentor": "model.dinov2_segmentor",
    "EvaluationOptions": "evaluation.evaluate",
    "GeodinosegError": "errors",
    "LabelOptions": "labels.options",
    "Legend": "legend",
    "LegendClass": "legend",
    "MapAssessment": "evaluation.evaluate",
    "OutputNames": "batch.scenes",
    "PolygonOptions": "polygons.stream",
    "SampleAssessment": "evaluation.sampling.evaluate",
    "SampleDesign": "evaluation.sampling.draw",
    "SampleOptions": "evaluation.sampling.draw",
    "Scene": "rasters.scene",
    "SegmentSettings": "segmentation.settings",
    "Segmentor": "model.segmentor",
    "TileModel": "model.tile_model",
    "TrainingSettings": "training.settings",
    "connected_workers": "cluster.client",
    "draw_sample": "evaluation.sampling.draw",
    "estimate_areas": "evaluation.sampling.areas",
    "evaluate_map": "evaluation.evaluate",
    "evaluate_sample": "evaluation.sampling.evaluate",
    "listed_scenes": "batch.scenes",
    "load_model": "model.folder",
    "local_workers": "cluster.local",
    "open_class_raster": "rasters.class_raster",
    "open_scene": "rasters.scene",
    "plan_training": "training.plan",
    "polygonize": "polygons.polygonize",
    "save_model": "model.folder",
    "segment_scene": "segmentation.segment",
    "segment_scenes": "batch.segment_scenes",
    "side_by_side": "plots.map_figure",
    "train_model": "training.train",
    "write_polygons": "polygons.polygonize",
    "write_report": "evaluation.report.write",
}

__all__ = [
    "AreaEstimates",
    "Augmentation",
    "ClassRaster",
    "DinoV2Segmentor",
    "EvaluationOptions",
    "GeodinosegError",
    "LabelOptions",
    "Legend",
    "LegendClass",
    "MapAssessment",
    "OutputNames",
    "PolygonOptions",
    "SampleAssessment",
    "SampleDesign",
    "SampleOptions",
    "Scene",
    "SegmentSettings",
    "Segmentor",
    "TileModel",
    "TrainingSettings",
    "__version__",
    "connected_workers",
    "draw_sample",
    "estimate_areas",
    "evaluate_map",
    "evaluate_sample",
    "listed_scenes",
    "load_model",
    "local_workers",
    "open_class_raster",
    "open_scene",
    "plan_training",
    "polygonize",
    "save_model",
    "segment_scene",
    "segment_scenes",
    "side_by_side",
    "train_model",
    "write_polygons",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'geodinoseg' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"geodinoseg.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
