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
    from geodinoseg.assessment.area_estimates import AreaEstimates, estimate_areas
    from geodinoseg.assessment.map_assessment import MapAssessment
    from geodinoseg.assessment.report import write_report
    from geodinoseg.assessment.sample import SampleDesign, SampleOptions, draw_sample
    from geodinoseg.assessment.sample_assessment import SampleAssessment, evaluate_sample
    from geodinoseg.class_rasters.class_raster import ClassRaster, open_class_raster
    from geodinoseg.cluster.dask_workers import connected_workers
    from geodinoseg.cluster.local import local_workers
    from geodinoseg.errors import GeodinosegError
    from geodinoseg.evaluation import EvaluationOptions, evaluate_map
    from geodinoseg.legend import Legend, LegendClass
    from geodinoseg.many_scenes import segment_scenes
    from geodinoseg.map_files import OutputNames
    from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
    from geodinoseg.model.model_folder import load_model
    from geodinoseg.model.segmentor import Segmentor
    from geodinoseg.pictures.figures import side_by_side
    from geodinoseg.plan import SegmentSettings
    from geodinoseg.polygons.polygonization import polygonize, write_polygons
    from geodinoseg.polygons.stream import PolygonOptions
    from geodinoseg.scene import Scene, open_scene
    from geodinoseg.scene_list import listed_scenes
    from geodinoseg.segmentation import segment_scene
    from geodinoseg.tile_model import TileModel
    from geodinoseg.training.settings import Augmentation, LabelOptions, TrainingSettings
    from geodinoseg.training.trainer import train_model
    from geodinoseg.training.training_plan import plan_training

_HOMES = {
    "AreaEstimates": "assessment.area_estimates",
    "Augmentation": "training.settings",
    "ClassRaster": "class_rasters.class_raster",
    "DinoV2Segmentor": "model.dinov2_segmentor",
    "EvaluationOptions": "evaluation",
    "GeodinosegError": "errors",
    "LabelOptions": "training.settings",
    "Legend": "legend",
    "LegendClass": "legend",
    "MapAssessment": "assessment.map_assessment",
    "OutputNames": "map_files",
    "PolygonOptions": "polygons.stream",
    "SampleAssessment": "assessment.sample_assessment",
    "SampleDesign": "assessment.sample",
    "SampleOptions": "assessment.sample",
    "Scene": "scene",
    "SegmentSettings": "plan",
    "Segmentor": "model.segmentor",
    "TileModel": "tile_model",
    "TrainingSettings": "training.settings",
    "connected_workers": "cluster.dask_workers",
    "draw_sample": "assessment.sample",
    "estimate_areas": "assessment.area_estimates",
    "evaluate_map": "evaluation",
    "evaluate_sample": "assessment.sample_assessment",
    "listed_scenes": "scene_list",
    "load_model": "model.model_folder",
    "local_workers": "cluster.local",
    "open_class_raster": "class_rasters.class_raster",
    "open_scene": "scene",
    "plan_training": "training.training_plan",
    "polygonize": "polygons.polygonization",
    "segment_scene": "segmentation",
    "segment_scenes": "many_scenes",
    "side_by_side": "pictures.figures",
    "train_model": "training.trainer",
    "write_polygons": "polygons.polygonization",
    "write_report": "assessment.report",
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
