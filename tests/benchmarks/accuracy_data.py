"""What `accuracy.py` measures on: scenes cut into a part to learn from and a part to test on."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_edt

from geodinoseg import LabelOptions, Scene, open_scene
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.labels import Labels
from geodinoseg.labels.open import open_labels
from geodinoseg.rasters.map_rows import ClassRows
from geodinoseg.rasters.map_writer import class_raster_writer
from geodinoseg.windows import Window

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sample_data"))
from make_sample_model import cut  # beside the sample data, not installed

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_data"
BILINEAR = rasterio.enums.Resampling.bilinear
BACKBONE = SAMPLES / "banepa.model" / "backbone"
DIRECTIONS = (
    ("lataseno", "north to south"),
    ("lataseno", "south to north"),
    ("lataseno", "east to west"),
    ("lataseno", "west to east"),
    ("deadwood", "east to west"),
    ("deadwood", "west to east"),
    ("banepa", "north to south"),
    ("banepa", "south to north"),
)
"""Datasets, and from which side of them to which."""
PATCH_PX = 10
"""Side of the patches of a label raster that stand for polygons."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A scene in two parts that share no pixel and do not touch, and its labels."""

    name: str
    """As `--dataset` takes it."""
    title: str
    """Above its table."""
    about: str
    """Which part is which, under the title."""
    train: Path
    """Everything that learns, or chooses anything, sees this part alone."""
    test: Path
    """Measured on, once."""
    labels: Path
    """Of both parts."""
    options: LabelOptions
    """How the labels are read."""
    crop_px: int
    """Side of training crops and of tiles."""
    forest_block_px: int
    """Side of the blocks that the forest chooses its leaf size on."""
    longer: int = 1
    """Stage two lasts so many times as many epochs: small crops take less time."""
    finer: int = 1
    """Our network learns from the training part resampled to so many times as many rows and
    columns; it maps the test part as it is."""


def banepa(work: Path) -> Dataset:
    """Roofs on a drone orthomosaic, in columns that the sample backbone never saw."""
    scene, cols = SAMPLES / "banepa_train.tif", (2368, 3072)
    return Dataset(
        name="banepa",
        title="Banepa: roofs on a drone orthomosaic, 3 bands, 0.13 m",
        about="Columns 2,368 to 3,072 of `banepa_train.tif`, which lie 64 px or more from all that "
        "the backbone was trained on. Rows 0 to 1,472 train, rows 1,536 to 3,072 test. Roofs of "
        "clay tiles and of unknown material do not count.",
        train=cut(scene, work / "banepa_north.tif", cols=cols, rows=(0, 1472)),
        test=cut(scene, work / "banepa_south.tif", cols=cols, rows=(1536, 3072)),
        labels=SAMPLES / "banepa_buildings.geojson",
        options=LabelOptions(
            class_field="roof", unlabelled="background", ignore_classes=("clay_tiles",)
        ),
        crop_px=224,
        forest_block_px=256,
    )


def lataseno(work: Path) -> Dataset:
    """Four broad CORINE classes on nine bands of Sentinel-2."""
    scene = SAMPLES / "lataseno_s2.tif"
    return Dataset(
        name="lataseno",
        title="Lätäseno: land cover on Sentinel-2, 9 bands, 10 m",
        about="Rows 0 to 118 of `lataseno_s2.tif` train, rows 130 to 247 test. The labels are four "
        "groups of CORINE classes on a 20 m grid in another CRS; they were not drawn on this "
        "image. The backbone knows three bands; its patch embedding is widened to nine. A patch of 14 "
        "px would cover 140 m, so our network learns from the training part resampled to 3.3 m; it "
        "maps the test part as it is.",
        train=cut(scene, work / "lataseno_north.tif", rows=(0, 118)),
        test=cut(scene, work / "lataseno_south.tif", rows=(130, 247)),
        labels=SAMPLES / "lataseno_classes.tif",
        options=LabelOptions(),
        crop_px=112,
        forest_block_px=48,
        longer=3,
        finer=3,
    )


def deadwood(work: Path, folder: Path) -> Dataset:
    """Standing and fallen dead trees on one small drone plot."""
    scene = folder / "R70C21.tif"
    return Dataset(
        name="deadwood",
        title="Deadwood plot: dead trees on a drone image, 3 bands, 0.05 m",
        about="Columns 392 to 640 of `R70C21.tif` train, columns 0 to 376 test. 23 polygons in "
        "all: too few for a claim, enough to see that nothing breaks. Our network learns from the "
        "training part resampled to 2.4 cm; it maps the test part as it is.",
        train=cut(scene, work / "deadwood_east.tif", cols=(392, 640)),
        test=cut(scene, work / "deadwood_west.tif", cols=(0, 376)),
        labels=folder / "R70C21.gpkg",
        options=LabelOptions(class_field="label", unlabelled="background"),
        crop_px=112,
        forest_block_px=64,
        longer=3,
        finer=2,
    )


def datasets(work: Path, deadwood_folder: Path | None) -> dict[str, Callable[[], Dataset]]:
    """Those there are, by name; each is cut when it is called."""
    known: dict[str, Callable[[], Dataset]] = {
        "banepa": lambda: banepa(work),
        "lataseno": lambda: lataseno(work),
    }
    if deadwood_folder is not None:
        known["deadwood"] = lambda: deadwood(work, deadwood_folder)
    return known


def facing(name: str, direction: str, work: Path, deadwood_folder: Path | None) -> Dataset:
    """A dataset of `DIRECTIONS`, with its sides swapped or split the other way."""
    dataset = datasets(work, deadwood_folder)[name]()
    if (name, direction) == ("lataseno", "east to west"):
        dataset = _halves(dataset, work, east_first=True)
    elif (name, direction) == ("lataseno", "west to east"):
        dataset = _halves(dataset, work, east_first=False)
    elif (name, direction) == ("deadwood", "west to east"):
        # As many columns to train on as the other way round.
        scene = deadwood_folder / "R70C21.tif"
        dataset = replace(
            dataset,
            train=cut(scene, work / "deadwood_first.tif", cols=(0, 248)),
            test=cut(scene, work / "deadwood_last.tif", cols=(264, 640)),
        )
    elif direction == "south to north":
        dataset = replace(dataset, train=dataset.test, test=dataset.train)
    return dataset


def _halves(dataset: Dataset, work: Path, *, east_first: bool) -> Dataset:
    """The eastern and the western half of the Lätäseno scene, 12 columns apart."""
    scene = SAMPLES / "lataseno_s2.tif"
    with rasterio.open(scene) as source:
        width = source.width
    west = cut(scene, work / "lataseno_west.tif", cols=(0, width // 2 - 6))
    east = cut(scene, work / "lataseno_east.tif", cols=(width // 2 + 6, width))
    first, last = (east, west) if east_first else (west, east)
    return replace(dataset, train=first, test=last)


def resampled(scene: Path, times: int, output: Path) -> Path:
    """A scene with so many times as many rows and columns, bilinear."""
    with rasterio.open(scene) as source:
        height, width = source.height * times, source.width * times
        profile = source.profile | {
            "height": height,
            "width": width,
            "transform": source.transform @ rasterio.Affine.scale(1 / times),
        }
        pixels = source.read(out_shape=(source.count, height, width), resampling=BILINEAR)
        with rasterio.open(output, "w", **profile) as target:
            target.write(pixels)
    return output


def fewer_polygons(dataset: Dataset, share: float, output: Path, *, seed: int) -> int:
    """The training part's labels with a share of its polygons of each class, all else unknown.

    Background goes with the nearest polygon: both are known or neither is. So with few polygons
    the classes keep about their shares, and the whole gives all labels there are. Smaller shares
    are parts of larger ones.

    Args:
        dataset: labelled by polygons, all else background.
        share: of the polygons of each class that reach the training part; at least one stays.
        output: label raster to write.
        seed: of the order in which polygons are taken.

    Returns:
        How many polygons stay.
    """
    scene = open_scene(dataset.train)
    labels = open_labels(dataset.labels, scene.geobox, options=dataset.options)
    channels = labels.read(_everything(scene))
    frame = _classed_polygons(dataset, scene)
    owners = rasterize(
        [(geometry, number) for number, geometry in enumerate(frame.geometry, start=1)],
        out_shape=channels.shape,
        transform=scene.geobox.transform,
        dtype="int32",
    )
    nearest = distance_transform_edt(owners == 0, return_distances=False, return_indices=True)
    owners = owners[tuple(nearest)]
    kept = _taken(frame[dataset.options.class_field].to_numpy(), share, seed=seed) + 1
    _write_known(np.isin(owners, kept), channels, scene, labels, output)
    return len(kept)


def fewer_labels(dataset: Dataset, share: float, output: Path, *, seed: int) -> int:
    """As `fewer_polygons`; of a label raster, a share of its patches of 10 px of each class."""
    if dataset.options.class_field is not None:
        return fewer_polygons(dataset, share, output, seed=seed)
    scene = open_scene(dataset.train)
    labels = open_labels(dataset.labels, scene.geobox, options=dataset.options)
    channels = labels.read(_everything(scene))
    rows, cols = (np.arange(length) // PATCH_PX for length in channels.shape)
    classes = len(labels.legend)
    owners = (rows[:, None] * (cols[-1] + 1) + cols) * classes + channels
    patches = np.unique(owners[channels != IGNORE])
    kept = patches[_taken(patches % classes, share, seed=seed)]
    _write_known(np.isin(owners, kept), channels, scene, labels, output)
    return len(kept)


def _everything(scene: Scene) -> Window:
    return Window(col_off=0, row_off=0, width=scene.width, height=scene.height)


def _write_known(
    known: np.ndarray, channels: np.ndarray, scene: Scene, labels: Labels, output: Path
) -> None:
    """A label raster of the known pixels, (height, width)."""
    known = known & (channels != IGNORE)
    class_ids = np.where(known, labels.legend.class_ids[channels], labels.legend.nodata)
    with class_raster_writer(output, scene.geobox, labels.legend) as writer:
        rows = class_ids.astype(labels.legend.dtype)
        writer.write(ClassRows(window=_everything(scene), class_ids=rows))


def _classed_polygons(dataset: Dataset, scene: Scene) -> geopandas.GeoDataFrame:
    """Those that reach the training part and have a class that counts, in the scene's CRS."""
    frame = geopandas.read_file(dataset.labels).to_crs(scene.geobox.crs)
    classes = frame[dataset.options.class_field]
    with rasterio.open(dataset.train) as source:
        inside = frame.intersects(shapely.box(*source.bounds))
    return frame[inside & classes.notna() & ~classes.isin(dataset.options.ignore_classes)]


def _taken(classes: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """Places of the polygons that stay, (n,)."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(np.flatnonzero(classes == name)) for name in np.unique(classes)]
    return np.concatenate([order[: max(1, math.ceil(share * len(order)))] for order in orders])
