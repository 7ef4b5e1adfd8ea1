"""Baselines for the sample model: a random forest on pixels and neighbourhoods, and a constant.

Example, once the training scene is cut into a part to learn from and one to test on:

    python sample_data/baselines.py train.tif test.tif sample_data/banepa_buildings.geojson \
        --class-field roof --ignore-class clay_tiles --unlabelled background -o scores.json

The forest is a fair opponent: it uses means and standard deviations of several neighbourhoods,
equally many pixels of each class, and a leaf size chosen on blocks kept out of the training part.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import uniform_filter
from sklearn.ensemble import RandomForestClassifier

from geodinoseg.evaluation.accuracy import Accuracy, confusion_matrix
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.labels import Labels
from geodinoseg.labels.open import open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.rasters.scene import Scene, open_scene
from geodinoseg.windows import Window, windows_over

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

NEIGHBOURHOODS_PX = (3, 9, 25, 51)
TREES = 150
PIXELS_PER_CLASS = 15_000
LEAVES = (2, 20, 100)
"""Fewest pixels of a leaf, to choose from."""

_HALO_PX = max(NEIGHBOURHOODS_PX) // 2
_ROWS_AT_ONCE = 256
_TUNING_BLOCK_PX = 256
_TUNING_FRACTION = 0.25
_RGB = 3


def pixel_features(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Features of each pixel.

    Args:
        pixels: (bands, height, width); red, green and blue come first where there are three.

    Returns:
        (features, height, width): the bands, their mean (brightness) and their range (chroma); of
        red, green and blue also 2 g - r - b (excess green) and the fractions of red and green; mean
        and standard deviation of each of these, and the mean slope of brightness, in each
        neighbourhood.
    """
    layers = _layers(pixels.astype(np.float32))
    slope = np.hypot(*np.gradient(layers[0]))
    features = [*layers, *(_smoothed(slope, side_px) for side_px in NEIGHBOURHOODS_PX)]
    for layer in layers:
        for side_px in NEIGHBOURHOODS_PX:
            mean = _smoothed(layer, side_px)
            variance = _smoothed(layer * layer, side_px) - mean * mean
            features += [mean, np.sqrt(np.maximum(variance, 0))]
    return np.stack(features)


def feature_rows(
    scene: Scene, labels: Labels
) -> Iterator[tuple[Window, NDArray[np.float32], NDArray[np.int64]]]:
    """The scene from top to bottom: window, features (features, h, w), labels (h, w).

    Pixels without data have the label IGNORE.
    """
    for core in windows_over(
        height=scene.height, width=scene.width, rows=_ROWS_AT_ONCE, cols=scene.width
    ):
        top = max(core.row_off - _HALO_PX, 0)
        rows = min(core.row_end + _HALO_PX, scene.height) - top
        halo = Window(col_off=0, row_off=top, width=scene.width, height=rows)
        pixels, valid = scene.read(halo)
        inner = slice(core.row_off - top, core.row_end - top)
        known = np.where(valid[inner], labels.read(core), IGNORE).astype(np.int64)
        yield core, pixel_features(pixels)[:, inner], known


def _layers(bands: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    layers = [bands.mean(axis=0), np.ptp(bands, axis=0), *bands]
    if len(bands) >= _RGB:
        red, green, blue = bands[:_RGB]
        total = red + green + blue + 1
        layers += [2 * green - red - blue, 100 * red / total, 100 * green / total]
    return layers


def _smoothed(layer: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    return np.asarray(uniform_filter(layer, side_px, mode="nearest"))


class Forest:
    """A random forest whose leaf size was chosen on blocks kept out of its training.

    With more than one of `weighings`, so were the class weights: equal ("even"), or by frequency
    in the scene ("scene").
    """

    def __init__(
        self,
        *,
        seed: int,
        jobs: int = -1,
        weighings: Sequence[str] = ("even",),
        tuning_block_px: int = _TUNING_BLOCK_PX,
        trees: int = TREES,
        trial_trees: int = TREES,
    ) -> None:
        self._seed, self._jobs = seed, jobs
        self._count, self._trial_count = trees, trial_trees
        self._weighings = tuple(weighings)
        self._block_px = tuning_block_px
        self.leaf_px, self.weighing = 0, self._weighings[0]

    def fit(self, scene: Scene, labels: Labels) -> Forest:
        """Choose the fewest pixels of a leaf and the weights, then learn from the whole scene."""
        drawn, classes, tuning = self._drawn(scene, labels)
        totals = labels.class_blocks(self._block_px).sum(axis=(0, 1))
        scores = {}
        for choice in product(LEAVES, self._weighings):
            trial = self._grown(
                drawn[~tuning], classes[~tuning], totals, *choice, trees=self._trial_count
            )
            guess = trial.predict(drawn[tuning])
            scores[choice] = _mean_iou(classes[tuning], guess, totals)
        self.leaf_px, self.weighing = max(scores, key=scores.__getitem__)
        self._trees = self._grown(
            drawn, classes, totals, self.leaf_px, self.weighing, trees=self._count
        )
        return self

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Class indices (h, w) from features (features, h, w)."""
        table = features.reshape(len(features), -1).T
        return np.asarray(self._trees.predict(table)).reshape(features.shape[1:])

    def _drawn(
        self, scene: Scene, labels: Labels
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
        """Equally many pixels of each class: (n, features), class (n,), whether for tuning (n,)."""
        rng = np.random.default_rng(self._seed)
        side_px = self._block_px
        totals = labels.class_blocks(side_px).sum(axis=(0, 1))
        chance = np.minimum(PIXELS_PER_CLASS / np.maximum(totals, 1), 1.0)
        blocks = (scene.height // side_px + 1, scene.width // side_px + 1)
        is_tuning = rng.random(blocks) < _TUNING_FRACTION
        tables, classes, tuning = [], [], []
        for window, features, known in feature_rows(scene, labels):
            taken = (known >= 0) & (rng.random(known.shape) < chance[known])
            rows, cols = np.nonzero(taken)
            tables.append(features[:, rows, cols].T)
            classes.append(known[rows, cols])
            block = (rows + window.row_off) // side_px, cols // side_px
            tuning.append(is_tuning[block])
        return np.concatenate(tables), np.concatenate(classes), np.concatenate(tuning)

    def _grown(
        self,
        table: NDArray[np.float32],
        classes: NDArray[np.int64],
        totals: NDArray[np.int64],
        leaf_px: int,
        weighing: str,
        *,
        trees: int,
    ) -> RandomForestClassifier:
        forest = RandomForestClassifier(
            trees, min_samples_leaf=leaf_px, n_jobs=self._jobs, random_state=self._seed
        )
        weights = None
        if weighing == "scene":
            drawn = np.bincount(classes, minlength=len(totals))
            weights = (totals / np.maximum(drawn, 1))[classes]
        return forest.fit(table, classes, sample_weight=weights)


def _mean_iou(
    reference: NDArray[np.int64], guess: NDArray[np.int64], totals: NDArray[np.int64]
) -> float:
    """Mean IoU of a sample, each class weighed by its pixels in the scene, not in the sample."""
    matrix = confusion_matrix(reference, guess, len(totals))
    weights = totals / np.maximum(matrix.sum(axis=1), 1)
    return Accuracy(np.rint(matrix * weights[:, None]).astype(np.int64)).mean_iou


def score_baselines(
    train: Scene,
    train_labels: Labels,
    test: Scene,
    test_labels: Labels,
    *,
    seed: int = 0,
    block_px: int = _TUNING_BLOCK_PX,
) -> dict[str, Accuracy]:
    """Accuracy on the test scene of the forest and of the commonest class everywhere, by name.

    The forest chooses its leaf size on blocks with a side of block_px.
    """
    classes = len(train_labels.legend)
    commonest = int(train_labels.class_blocks(block_px).sum(axis=(0, 1)).argmax())
    forest = Forest(seed=seed, tuning_block_px=block_px).fit(train, train_labels)
    matrices = np.zeros((2, classes, classes), dtype=np.int64)
    for _, features, known in feature_rows(test, test_labels):
        matrices[0] += confusion_matrix(known, forest.predict(features), classes)
        matrices[1] += confusion_matrix(known, np.full_like(known, commonest), classes)
    names = "random forest", f"always {train_labels.legend.names[commonest]}"
    return dict(zip(names, map(Accuracy, matrices), strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Score both baselines and print a table of each."""
    options = _parser().parse_args(arguments)
    train, test = open_scene(options.train), open_scene(options.test)
    label_options = LabelOptions(
        class_field=options.class_field,
        unlabelled=options.unlabelled,
        ignore_classes=tuple(options.ignore_class),
    )
    train_labels = open_labels(options.labels, train.geobox, options=label_options)
    test_labels = open_labels(
        options.labels, test.geobox, options=label_options, legend=train_labels.legend
    )
    accuracies = score_baselines(train, train_labels, test, test_labels, seed=options.seed)
    for name, accuracy in accuracies.items():
        print(f"{name}\n{accuracy.table(train_labels.legend)}\n")
    if options.output:
        scores = {name: accuracy.to_json() for name, accuracy in accuracies.items()}
        facts = {"classes": list(train_labels.legend.names), "baselines": scores}
        Path(options.output).write_text(json.dumps(facts, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Score the baselines of a scene's labels.")
    parser.add_argument("train", help="raster to learn from")
    parser.add_argument("test", help="raster to test on; no pixel in common with TRAIN")
    parser.add_argument("labels", help="polygons or a label raster that covers both")
    parser.add_argument("--class-field")
    parser.add_argument("--ignore-class", action="append", default=[])
    parser.add_argument("--unlabelled", choices=("ignore", "background"), default="ignore")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", help="JSON file for the scores")
    return parser


if __name__ == "__main__":
    main()
