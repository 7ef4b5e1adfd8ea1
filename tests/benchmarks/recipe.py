"""What each setting of the recipe of a head is worth: mean IoU and log loss on land apart.

    python tests/benchmarks/recipe.py --deadwood FOLDER                 all variants, two seeds: two hours
    python tests/benchmarks/recipe.py --variant "jitter 0.1" --seeds 1
    python tests/benchmarks/recipe.py --redraw recipe/recipe.json

Each variant differs from the recipe of `geodinoseg train` in one setting. A fused head is trained on
all labels of one side of a scene and maps the other side (`directions.py`). Variants that see the
same crops share their cached features. Results are written one by one; a run that was interrupted is
resumed by the same command.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import numpy as np
import rasterio
import torch
from accuracy import Results, open_results
from accuracy_data import BACKBONE, DIRECTIONS, Dataset, facing
from accuracy_report import markdown
from torch.nn import functional

import geodinoseg as gds
from geodinoseg.labels.classes import IGNORE
from geodinoseg.labels.open import open_labels
from geodinoseg.training import optimizer, run
from geodinoseg.training.head_stage import HeadStage
from geodinoseg.training.optimizer import Optimizer
from geodinoseg.training.sampler import Sampler
from geodinoseg.training.settings import Augmentation, TrainingSettings
from geodinoseg.windows import Window

PLACES = [place for place in DIRECTIONS if place[1] not in {"south to north", "west to east"}]
PLACES += [("deadwood", "west to east"), ("banepa", "south to north")]
_DECAY = 0.98
"""Of an average of weights: the last 50 steps count most."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One difference from the recipe."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Of `TrainingSettings`."""
    change: Callable[[], AbstractContextManager[object]] = nullcontext
    """In force during the training."""
    crops: str = ""
    """Variants with the same word here see the same crops."""


def _smoothing(value: float) -> Callable[[], AbstractContextManager[object]]:
    return partial(patch.object, optimizer, "LABEL_SMOOTHING", value)


def _jitter(value: float) -> dict[str, Any]:
    return {"augmentation": Augmentation(gain=value, offset=value)}


@contextmanager
def natural_sampling() -> Iterator[None]:
    """Crops around any labelled pixel: classes count as often as they are labelled."""
    original = Sampler._draw_window

    def draw(self: Sampler, rng: np.random.Generator) -> Any:
        counts = sum(split.counts.sum(axis=(0, 1)) for split in self._scenes)
        pixels = np.array([counts[class_index] for class_index, *_ in self._classes])
        chosen = self._classes[rng.choice(len(pixels), p=pixels / pixels.sum())]
        with patch.object(self, "_classes", [chosen]):
            return original(self, rng)

    with patch.object(Sampler, "_draw_window", draw):
        yield


@contextmanager
def class_weights() -> Iterator[None]:
    """Cross-entropy weighted by one over the root of a class's pixels in the batch."""
    original = functional.cross_entropy

    def weighted(logits: torch.Tensor, labels: torch.Tensor, **options: Any) -> torch.Tensor:
        if options.get("reduction") == "none":
            return original(logits, labels, **options)
        counts = torch.bincount(labels[labels != IGNORE], minlength=logits.shape[1])
        weight = counts.clamp(min=1).to(logits.dtype).rsqrt() * (counts > 0)
        return original(logits, labels, weight=weight / weight.mean(), **options)

    with patch.object(functional, "cross_entropy", weighted):
        yield


@contextmanager
def averaged_weights() -> Iterator[None]:
    """At the end the head has an exponential moving average of its weights."""
    step, train_epoch = Optimizer.step, HeadStage.train_epoch
    averages: dict[int, list[torch.Tensor]] = {}

    def averaging_step(self: Optimizer, *args: Any) -> float:
        loss = step(self, *args)
        weights = [p.detach() for p in self._parameters]
        kept = averages.setdefault(id(self), [w.clone() for w in weights])
        for average, weight in zip(kept, weights, strict=True):
            average.lerp_(weight, 1 - _DECAY)
        return loss

    def with_average(self: HeadStage, epoch: int) -> float:
        loss = train_epoch(self, epoch)
        if epoch == self._source.settings.stage_one_epochs - 1:
            for fold in self._folds:
                own = fold.optimizer
                for weight, average in zip(own._parameters, averages[id(own)], strict=True):
                    weight.data.copy_(average)
        return loss

    with (
        patch.object(Optimizer, "step", averaging_step),
        patch.object(HeadStage, "train_epoch", with_average),
    ):
        yield


VARIANTS = {
    "recipe": Variant(),
    "jitter 0.1": Variant(settings=_jitter(0.1), crops="jitter 0.1"),
    "jitter 0.2": Variant(settings=_jitter(0.2), crops="jitter 0.2"),
    "no label smoothing": Variant(change=_smoothing(0.0)),
    "label smoothing 0.1": Variant(change=_smoothing(0.1)),
    "300 steps of 4 crops": Variant(settings={"steps_per_epoch": 20}),
    "300 steps of 8 crops": Variant(settings={"steps_per_epoch": 20, "batch_size": 8}),
    "1,200 steps of 4 crops": Variant(settings={"epochs": 30}),
    "average of weights": Variant(change=averaged_weights),
    "class weights": Variant(change=class_weights),
    "natural sampling": Variant(change=natural_sampling, crops="natural"),
}


def main() -> None:
    options = _parser().parse_args()
    path = options.redraw
    if not path:
        results = open_results(options.output, "recipe.json", options.backbone)
        path = results.path
        for seed in range(options.seeds):
            for place in PLACES:
                if "/".join(place) in (options.place or ["/".join(p) for p in PLACES]):
                    measure_place(place, seed, results, options)
    print(table(json.loads(path.read_text("utf-8"))["pieces"]))


def measure_place(
    place: tuple[str, str], seed: int, results: Results, options: argparse.Namespace
) -> None:
    """All variants at one place."""
    if place[0] == "deadwood" and not options.deadwood:
        return
    with tempfile.TemporaryDirectory() as name, shared_crops() as share:
        work = Path(name)
        dataset = facing(*place, work, options.deadwood)
        for title in options.variant or VARIANTS:
            share(VARIANTS[title].crops)
            results.piece(
                f"{'/'.join(place)}/{seed}/{title}",
                lambda title=title: measure(dataset, VARIANTS[title], seed, work, options.backbone),
            )


def measure(
    dataset: Dataset, variant: Variant, seed: int, work: Path, backbone: str
) -> dict[str, Any]:
    """Train, map, and compare."""
    settings = TrainingSettings(
        stage="head", seed=seed, **({"validation_share": 0.0} | variant.settings)
    )
    with ExitStack() as exits:
        exits.enter_context(variant.change())
        model = gds.train_model(
            dataset.train,
            dataset.labels,
            work / "variant.model",
            label_options=dataset.options,
            settings=settings,
            network={
                "backbone": backbone,
                "quantize": False,
                "n_features": 2,
                "fused_head": True,
            },
            device="cpu",
            overwrite=True,
        )
    output, chances = work / "map.tif", work / "probabilities.tif"
    gds.segment_scene(
        dataset.test, model, output, probabilities=chances, device="cpu", overwrite=True
    )
    accuracy = gds.evaluate_map(output, dataset.labels, label_options=dataset.options).accuracy
    return {"mean_iou": accuracy.mean_iou, "log_loss": log_loss(chances, dataset, model.legend)}


def log_loss(chances: Path, dataset: Dataset, legend: gds.Legend) -> float:
    """Mean of -log of the probability of the true class over the labelled pixels of the test part."""
    scene = gds.open_scene(dataset.test)
    labels = open_labels(dataset.labels, scene.geobox, options=dataset.options, legend=legend)
    known = labels.read(Window(col_off=0, row_off=0, width=scene.width, height=scene.height))
    with rasterio.open(chances) as source:
        values, valid = source.read().astype(np.float64), source.read_masks(1) > 0
    values /= values.sum(axis=0).clip(1e-9)
    counted = valid & (known != IGNORE)
    of_true = np.take_along_axis(values, np.where(counted, known, 0)[None].astype(int), axis=0)[0]
    return float(-np.log(of_true[counted].clip(1e-6)).mean())


@contextmanager
def shared_crops() -> Iterator[Callable[[str], None]]:
    """Cached crops are computed once for all variants that have the same word."""
    compute, cached, word = run.cache_crops, {}, ""

    def choose(name: str) -> None:
        nonlocal word
        word = name

    def cache_crops(*args: Any, **options: Any) -> Any:
        if word not in cached:
            cached[word] = compute(*args, **options)
        return cached[word]

    with patch.object(run, "cache_crops", cache_crops):
        yield choose


def table(pieces: dict[str, Any]) -> str:
    """Mean over seeds of each variant: at each place, and what it gains on the recipe."""
    scores: dict[str, dict[str, list[dict[str, float]]]] = {}
    for key, piece in pieces.items():
        dataset, direction, _, title = key.split("/")
        scores.setdefault(title, {}).setdefault(f"{dataset}, {direction}", []).append(piece)
    places = list(scores["recipe"])
    rows = [
        [title, *(_cell(of.get(place, [])) for place in places)] for title, of in scores.items()
    ]
    return markdown(["", *places], rows)


def _cell(pieces: list[dict[str, float]]) -> str:
    if not pieces:
        return "-"
    return " / ".join(f"{mean(p[name] for p in pieces):.3f}" for name in ("mean_iou", "log_loss"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default=str(BACKBONE), help="a folder or a name on the hub")
    parser.add_argument("--deadwood", type=Path, help="folder with R70C21.tif and R70C21.gpkg")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="all by default")
    parser.add_argument("--place", action="append", choices=["/".join(place) for place in PLACES])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--redraw", type=Path, metavar="JSON", help="only the table")
    parser.add_argument("-o", "--output", type=Path, default=Path("recipe"), help="a folder")
    return parser


if __name__ == "__main__":
    main()
