"""The rows of the tables of `accuracy.py`: each way learns on one part and maps the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_calibration import map_reliability
from accuracy_data import BACKBONE, Dataset, resampled
from accuracy_unet import parameters_of, train_unet
from baselines import Forest, feature_rows  # beside the sample data, not installed

import geodinoseg as gds
from geodinoseg.evaluation.accuracy import Accuracy, confusion_matrix
from geodinoseg.labels.labels import Labels
from geodinoseg.labels.open import open_labels
from geodinoseg.rasters.scene import open_scene
from geodinoseg.training.data import read_training_data

TRIAL_TREES = 40
"""Of the forests that choose leaves and weights; the one that maps has more."""
STAGES = {"head": "head only", "lora": "head + LoRA", "full": "head + every weight"}
FOREST, UNET, COMMONEST = "random forest", "U-Net from scratch", "always the commonest class"
UNET_LONGER = "U-Net, 4 times the time"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and on what our rows train; the rest is the product's default."""

    backbone: str = str(BACKBONE)
    """A folder, or a name on the hub."""
    head_epochs: int = 15
    """Of the head on a frozen backbone."""
    epochs: int = 6
    """Of LoRA, or of every weight, that follow."""
    steps_per_epoch: int = 20
    """Batches of an epoch."""
    batch_size: int = 8
    """Crops of a batch."""
    n_features: int = 2
    """Last layers that the linear head sees; the sample backbone was trained to give two."""
    trees: int = 150
    """Of the forest."""
    seed: int = 0
    """Of everything that is drawn."""

    def settings(self, dataset: Dataset, stage: str) -> gds.TrainingSettings:
        """Of `train_model`."""
        return gds.TrainingSettings(
            stage=stage,
            head_epochs=self.head_epochs,
            epochs=self.epochs * dataset.longer,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            crop_px=dataset.crop_px,
            seed=self.seed,
        )

    def defaults(self) -> gds.TrainingSettings:
        """Of `train_model`, for the heads alone; in a quick run with few steps."""
        settings = gds.TrainingSettings(stage="head", seed=self.seed)
        steps = min(settings.steps_per_epoch, self.steps_per_epoch)
        epochs = min(settings.epochs, self.head_epochs)
        return replace(settings, epochs=epochs, steps_per_epoch=steps)

    def network(self) -> dict[str, Any]:
        """Of `train_model`."""
        return {
            "backbone": self.backbone,
            "quantize": False,
            "n_features": self.n_features,
            "linear_head": True,
        }


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One dataset with the labels to learn from, and where its files go."""

    dataset: Dataset
    recipe: Recipe
    work: Path
    labels: Path
    """To learn from; what is measured is always measured on the dataset's own."""
    options: gds.LabelOptions
    """How these are read."""
    say: Callable[[str], None]

    def ours(self, stage: str) -> dict[str, Any]:
        """Train by the product, segment the test part by the product, compare by the product."""
        model = self.work / f"{stage}.model"
        scene = self.dataset.train
        if self.dataset.finer > 1:
            scene = resampled(scene, self.dataset.finer, self.work / "finer.tif")
        with timed() as spent:
            segmentor = gds.train_model(
                scene,
                self.labels,
                model,
                label_options=self.options,
                settings=self.recipe.settings(self.dataset, stage),
                network=self.recipe.network(),
                device="cpu",
                overwrite=True,
                progress=reports(self.say, STAGES[stage]),
            )
        facts = {
            "parameters": parameters_of(segmentor.network),
            "validation": segmentor.scores.get("mean_iou_by_stage"),
            "kept": segmentor.training["kept"],
        }
        output = model.with_suffix(".tif")
        facts |= spent | self.mapped(segmentor, output)
        return facts | {"calibration": self._calibration(segmentor, output)}

    def chosen(self, *, is_linear: bool = False) -> dict[str, Any]:
        """The heads that `train` tries by default, or the linear one, on the scene as it is."""
        model = self.work / "chosen.model"
        network = self.recipe.network()
        if not is_linear:
            del network["linear_head"]
        with timed() as spent:
            segmentor = gds.train_model(
                self.dataset.train,
                self.labels,
                model,
                label_options=self.options,
                settings=self.recipe.defaults(),
                network=network,
                device="cpu",
                overwrite=True,
                progress=reports(self.say, "heads"),
            )
        facts = {
            "parameters": parameters_of(segmentor.network),
            "validation": segmentor.scores.get("log_loss_by_stage"),
            "kept": segmentor.training["kept"],
            "outcome": segmentor.training["outcome"],
        }
        output = model.with_suffix(".tif")
        facts |= spent | self.mapped(segmentor, output)
        return facts | {"calibration": self._calibration(segmentor, output)}

    def forest(self) -> dict[str, Any]:
        """The forest of `baselines.py`, which chooses its leaves and weights by itself."""
        train, test, train_labels, test_labels = self._opened()
        with timed() as spent:
            forest = Forest(
                seed=self.recipe.seed,
                weighings=("even", "scene"),
                trees=self.recipe.trees,
                trial_trees=min(self.recipe.trees, TRIAL_TREES),
                tuning_block_px=self.dataset.forest_block_px,
            ).fit(train, train_labels)
        matrix = sum(
            confusion_matrix(known, forest.predict(features), len(train_labels.legend))
            for _, features, known in feature_rows(test, test_labels)
        )
        choice = {"leaf_px": forest.leaf_px, "weighing": forest.weighing}
        return choice | spent | score(Accuracy(np.asarray(matrix)))

    def commonest(self) -> dict[str, Any]:
        """Every pixel as the class that the training part has most of."""
        _, test, train_labels, test_labels = self._opened()
        classes = len(train_labels.legend)
        commonest = int(train_labels.class_blocks(256).sum(axis=(0, 1)).argmax())
        matrix = sum(
            confusion_matrix(known, np.full_like(known, commonest), classes)
            for _, _, known in feature_rows(test, test_labels)
        )
        return {"class": train_labels.legend.names[commonest]} | score(Accuracy(np.asarray(matrix)))

    def unet(
        self, *, parameters: int, cpu_s: float, settings: gds.TrainingSettings | None = None
    ) -> dict[str, Any]:
        """A U-Net of a size, trained for so much CPU time, mapped by the same engine."""
        settings = settings or self.recipe.settings(self.dataset, "head")
        with timed() as spent:
            data = read_training_data(
                self.dataset.train,
                self.labels,
                bands=None,
                options=self.options,
                settings=settings,
            )
            model, steps = train_unet(
                data,
                settings,
                parameters=parameters,
                seconds=cpu_s,
                progress=reports(self.say, UNET, every=0),
            )
        facts = {"parameters": parameters_of(model.network), "steps": steps}
        return facts | spent | self.mapped(model, self.work / "unet.tif")

    def mapped(self, model: Any, output: Path) -> dict[str, Any]:
        """The scores of a model's map of the test part, which is left at `output`."""
        gds.segment_scene(
            self.dataset.test, model, output, confidence=True, device="cpu", overwrite=True
        )
        result = gds.evaluate_map(output, self.dataset.labels, label_options=self.dataset.options)
        return score(result.accuracy)

    def _calibration(self, segmentor: gds.Segmentor, output: Path) -> dict[str, Any]:
        """Confidence on the test part with the temperature that training found, and without it."""
        plain = output.with_name("plain.tif")
        self.mapped(replace(segmentor, temperature=1.0), plain)
        of = (self.dataset.labels, self.dataset.options)
        return {
            "temperature": segmentor.temperature,
            "before": map_reliability(plain, *of),
            "after": map_reliability(output, *of),
        }

    def _opened(self) -> tuple[Any, Any, Labels, Labels]:
        train, test = open_scene(self.dataset.train), open_scene(self.dataset.test)
        known = open_labels(self.labels, train.geobox, options=self.options)
        asked = open_labels(
            self.dataset.labels,
            test.geobox,
            options=self.dataset.options,
            legend=known.legend,
        )
        return train, test, known, asked


def score(accuracy: Accuracy) -> dict[str, Any]:
    """What a row keeps of an accuracy."""
    values = accuracy.to_json()
    return {name: values[name] for name in ("mean_iou", "iou", "overall_accuracy", "pixels")}


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds of the process on all cores, and by the clock, once the block has ended."""
    spent: dict[str, float] = {}
    cpu, wall = time.process_time(), time.perf_counter()
    yield spent
    spent["cpu_s"] = time.process_time() - cpu
    spent["wall_s"] = time.perf_counter() - wall


def reports(
    say: Callable[[str], None], what: str, *, every: float = 0.1
) -> Callable[[float, str], None]:
    """A progress callable that says a line whenever so much more is done."""
    said = -1.0

    def progress(fraction: float, message: str) -> None:
        nonlocal said
        if fraction >= said + every:
            said = fraction
            say(f"{what}: {fraction:.0%} {message}")

    return progress
