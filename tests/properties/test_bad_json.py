"""JSON that holds something else than expected: one line that names the file."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import rasterio
from chips import write_export
from model_fixtures import backbone_folder
from rasters import write_raster
from safetensors.torch import load_file, save_file

from geodinoseg.batch.scenes import find_scenes
from geodinoseg.cluster.connect import check_scheduler
from geodinoseg.errors import GeodinosegError
from geodinoseg.labels.chip_folder import find_chips
from geodinoseg.model.backbone import pretrained_rgb
from geodinoseg.rasters.class_raster import LEGEND_TAG, open_class_raster
from geodinoseg.rasters.legend_file import read_legend_file
from geodinoseg.training.checkpoint import read_record

OTHER_JSON = ["[]", "null", "3", '"text"', "true", "", "{", "{}", "[null]", '{"classes": 3}']


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def stac_item(folder, text):
    path = written(folder, "item.json", text)
    return path, lambda: find_scenes([str(path)])


def scheduler_file(folder, text):
    path = written(folder, "scheduler.json", text)
    return path, lambda: check_scheduler(str(path))


def legend_file(folder, text):
    path = written(folder, "legend.json", text)
    return path, lambda: read_legend_file(str(path))


def legend_tag(folder, text):
    path = write_raster(folder / "map.tif", np.ones((1, 37, 53), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{LEGEND_TAG: text})
    return path, lambda: open_class_raster(path)


def description_of_chips(folder, text):
    write_export(folder / "chips")
    path = written(folder / "chips", "esri_model_definition.emd", text)
    return path, lambda: find_chips(str(folder / "chips"))


def rgb_of_a_backbone(folder, text):
    copied = shutil.copytree(backbone_folder(), folder / "bones")
    path = written(copied, "preprocessor_config.json", text)
    return path, lambda: pretrained_rgb(copied)


def checkpoint(folder, text):
    path = folder / "a.checkpoint"
    tensors = load_file(backbone_folder() / "model.safetensors")
    save_file(tensors, path, {"geodinoseg": text})
    return path, lambda: read_record(path)


READERS = [
    stac_item,
    scheduler_file,
    legend_file,
    legend_tag,
    description_of_chips,
    rgb_of_a_backbone,
    checkpoint,
]
RIGHT = {
    (legend_tag, ""): "GDAL removes an empty tag",
    (description_of_chips, "{}"): "every key is optional",
    (description_of_chips, '{"classes": 3}'): "every key is optional",
    (rgb_of_a_backbone, "{}"): "every key is optional",
    (rgb_of_a_backbone, '{"classes": 3}'): "every key is optional",
}


@pytest.mark.parametrize("text", OTHER_JSON)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_json_of_another_kind_is_an_error_in_one_line_that_names_the_file(reader, text, tmp_path):
    path, read = reader(tmp_path, text)
    if (reader, text) in RIGHT:
        read()
        return
    with pytest.raises(GeodinosegError) as caught:
        read()
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert len(message) < 1_000
