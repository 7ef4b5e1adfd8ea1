# Each public name, once: lazy_loader reads this file at run time, type checkers read it as it is.
from . import errors as errors
from .batch.scenes import (
    OutputNames as OutputNames,
    find_scenes as find_scenes,
)
from .batch.segment_scenes import segment_scenes as segment_scenes
from .cluster.client import connect_workers as connect_workers
from .cluster.local import local_workers as local_workers
from .errors import GeodinosegError as GeodinosegError
from .evaluation.class_areas import (
    ClassArea as ClassArea,
    measure_areas as measure_areas,
)
from .evaluation.evaluate import (
    EvaluationOptions as EvaluationOptions,
    MapEvaluation as MapEvaluation,
    evaluate_map as evaluate_map,
)
from .evaluation.report.write import write_report as write_report
from .evaluation.sampling.areas import (
    AreaEstimates as AreaEstimates,
    estimate_areas as estimate_areas,
)
from .evaluation.sampling.draw import (
    SampleDesign as SampleDesign,
    SampleOptions as SampleOptions,
    draw_sample as draw_sample,
)
from .evaluation.sampling.evaluate import (
    SampleEvaluation as SampleEvaluation,
    evaluate_sample as evaluate_sample,
)
from .labels.options import LabelOptions as LabelOptions
from .legend import (
    Legend as Legend,
    LegendClass as LegendClass,
)
from .model.dinov2_segmentor import DinoV2Segmentor as DinoV2Segmentor
from .model.folder import (
    load_model as load_model,
    save_model as save_model,
)
from .model.segmentor import Segmentor as Segmentor
from .model.tile_model import TileModel as TileModel
from .plots.map_figure import plot_map as plot_map
from .polygons.polygonize import (
    polygonize as polygonize,
    write_polygons as write_polygons,
)
from .polygons.settings import PolygonSettings as PolygonSettings
from .polygons.stream import PolygonOptions as PolygonOptions
from .polygons.style_map import style_map as style_map
from .rasters.class_raster import (
    ClassRaster as ClassRaster,
    open_class_raster as open_class_raster,
)
from .rasters.scene import (
    Scene as Scene,
    open_scene as open_scene,
)
from .segmentation.segment import (
    plan_segmentation as plan_segmentation,
    segment_scene as segment_scene,
)
from .segmentation.settings import SegmentationSettings as SegmentationSettings
from .training.plan import plan_training as plan_training
from .training.settings import (
    Augmentation as Augmentation,
    TrainingSettings as TrainingSettings,
)
from .training.train import train_model as train_model
from .version import __version__ as __version__
