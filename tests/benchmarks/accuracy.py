"""How right the maps are, on real scenes: ours beside a random forest and a U-Net.

    python tests/benchmarks/accuracy.py                    all that the docs quote, about an hour
    python tests/benchmarks/accuracy.py --quick            the same way in a few minutes: does it run at all
    python tests/benchmarks/accuracy.py --backbone facebook/dinov2-base
    python tests/benchmarks/accuracy.py --redraw tests/benchmarks/accuracy.json

Every way learns on one part of a scene and is measured on another that lies apart, which nothing
was trained on or chosen by. Results are written as they come, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accuracy_data import BACKBONE, Dataset, datasets, fewer_polygons
from accuracy_report import draw, tables
from accuracy_rows import COMMONEST, FOREST, STAGES, UNET, UNET_LONGER, Bench, Recipe
from accuracy_timing import head_times

from geodinoseg import LabelOptions, open_scene
from geodinoseg.labels.open import open_labels

SHARES = (0.05, 0.1, 0.2, 0.5)
"""Of the training polygons; all of them are in the first table."""
WAYS = (COMMONEST, FOREST, *STAGES.values(), UNET)
GROWING = (FOREST, STAGES["head"], STAGES["lora"], UNET)
TIMES = "times of a head"
LONGER = 4
"""Times the CPU time of ours that one more U-Net gets, on the first dataset."""
QUICK = Recipe(head_epochs=2, epochs=1, steps_per_epoch=3, batch_size=4, trees=5)
_BEGAN = time.perf_counter()


class Results:
    """A JSON file of what was measured, piece by piece; a piece that is there is not run again.

    It is read anew before each change, so that runs of different datasets can share it.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        if not path.exists():
            self._write(facts | {"datasets": {}, "polygons": {}, "pieces": {}})
        if self._read()["recipe"] != facts["recipe"]:
            raise SystemExit(f"{path}: is of another recipe; give another folder with -o.")

    def note(self, where: str, key: str, value: Any) -> None:
        """Put a value into one of the file's tables."""
        values = self._read()
        values[where][key] = value
        self._write(values)

    def piece(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured under a key, measured now where it was not."""
        if key not in self._read()["pieces"]:
            say(f"{key} ...")
            piece = measure()
            self.note("pieces", key, piece)
            say(f"{key}: {piece.get('mean_iou', piece.get('steps')):.3f}")
        return dict(self._read()["pieces"][key])

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text("utf-8")))

    def _write(self, values: dict[str, Any]) -> None:
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
        beside.replace(self.path)


def main() -> None:
    options = _parser().parse_args()
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    results = options.redraw or output / "accuracy.json"
    if not options.redraw:
        measure(options, results)
    values = json.loads(results.read_text("utf-8"))
    text = tables(values)
    (output / "accuracy.md").write_text(text, "utf-8")
    draw(values, output)
    print(text)


def measure(options: argparse.Namespace, path: Path) -> None:
    """Run what has no result yet."""
    be_quiet()
    recipe = replace(QUICK if options.quick else Recipe(), backbone=options.backbone)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        known = datasets(work, options.deadwood)
        if options.deadwood is None:
            say("deadwood: left out, since no --deadwood FOLDER says where it is")
        chosen = options.dataset or list(known)
        opened = {name: known[name]() for name in chosen}
        facts = {
            "recipe": asdict(recipe) | {"backbone": shown(options.backbone)},
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        }
        results = Results(path, facts)
        ways = options.way or (*WAYS, UNET_LONGER, TIMES)
        for dataset in opened.values():
            results.note("datasets", dataset.name, described(dataset))
            bench = Bench(
                dataset=dataset,
                recipe=recipe,
                work=subfolder(work, dataset.name),
                labels=dataset.labels,
                options=dataset.options,
                say=say,
            )
            compare(bench, results, key=dataset.name, ways=[way for way in WAYS if way in ways])
        if "banepa" in opened:
            more_of_banepa(opened["banepa"], recipe, work, results, quick=options.quick, ways=ways)


def more_of_banepa(
    dataset: Dataset,
    recipe: Recipe,
    work: Path,
    results: Results,
    *,
    quick: bool,
    ways: Sequence[str],
) -> None:
    """Fewer polygons, the time that a cache saves, and a U-Net with more time."""
    results.note(
        "polygons", "1.0", fewer_polygons(dataset, 1.0, work / "all.tif", seed=recipe.seed)
    )
    benches = {}
    for share in SHARES[1:2] if quick else SHARES:
        folder = subfolder(work, f"share_{share}")
        labels = folder / "labels.tif"
        polygons = fewer_polygons(dataset, share, labels, seed=recipe.seed)
        results.note("polygons", str(share), polygons)
        benches[f"growth/{share}"] = Bench(
            dataset=dataset,
            recipe=recipe,
            work=folder,
            labels=labels,
            options=LabelOptions(),
            say=say,
        )
    for way in [way for way in GROWING if way in ways]:
        for key, bench in benches.items():
            compare(bench, results, key=key, ways=[way])
    for head in ("linear", "CNN") if TIMES in ways else ():
        results.piece(
            f"time/{head}",
            lambda head=head: head_times(dataset, recipe, work, linear=head == "linear"),
        )
    if UNET_LONGER in ways and not quick:
        bench = replace(
            next(iter(benches.values())), labels=dataset.labels, options=dataset.options
        )
        compare(bench, results, key=dataset.name, ways=[UNET_LONGER])


def subfolder(work: Path, name: str) -> Path:
    """A new folder."""
    (work / name).mkdir()
    return work / name


def compare(bench: Bench, results: Results, *, key: str, ways: Sequence[str]) -> None:
    """Each way once, on the labels of a bench."""
    stages = {title: stage for stage, title in STAGES.items()}
    for way in ways:
        if way in stages:
            results.piece(f"{key}/{way}", lambda way=way: bench.ours(stages[way]))
        elif way in {UNET, UNET_LONGER}:
            ours = results.piece(f"{key}/{STAGES['lora']}", lambda: bench.ours("lora"))
            seconds = ours["cpu_s"] * (1 if way == UNET else LONGER)
            results.piece(
                f"{key}/{way}",
                lambda size=ours["parameters"], seconds=seconds: bench.unet(
                    parameters=size, cpu_s=seconds
                ),
            )
        else:
            measures = {FOREST: bench.forest, COMMONEST: bench.commonest}
            results.piece(f"{key}/{way}", measures[way])


def described(dataset: Dataset) -> dict[str, Any]:
    """What the tables say of a dataset."""
    scene = open_scene(dataset.train)
    labels = open_labels(dataset.labels, scene.geobox, options=dataset.options)
    facts = {"title": dataset.title, "about": dataset.about}
    return facts | {"classes": list(labels.legend.names)}


def be_quiet() -> None:
    """Leave out warnings of the training: few polygons make for them on purpose."""
    logging.getLogger("geodinoseg").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning)


def open_results(folder: Path, name: str, backbone: str) -> Results:
    """The file of results of another benchmark, which runs quietly and on one thread."""
    be_quiet()
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    return Results(folder / name, {"recipe": {"backbone": shown(backbone)}})


def shown(backbone: str) -> str:
    """A backbone as results name it: no path of this machine."""
    if backbone == str(BACKBONE):
        return "sample_data/banepa.model/backbone"
    return Path(backbone).name if Path(backbone).is_dir() else backbone


def say(line: str) -> None:
    minutes, seconds = divmod(int(time.perf_counter() - _BEGAN), 60)
    print(f"{minutes:3d}:{seconds:02d} {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few steps, few trees")
    parser.add_argument(
        "--redraw", type=Path, metavar="JSON", help="only tables and figures, of results there are"
    )
    parser.add_argument("--backbone", default=str(BACKBONE), help="a folder or a name on the hub")
    parser.add_argument("--dataset", action="append", choices=("banepa", "lataseno", "deadwood"))
    parser.add_argument(
        "--way", action="append", choices=(*WAYS, UNET_LONGER, TIMES), help="of the rows"
    )
    parser.add_argument("--deadwood", type=Path, help="folder with R70C21.tif and R70C21.gpkg")
    parser.add_argument("-o", "--output", type=Path, default=Path("accuracy"), help="a folder")
    return parser


if __name__ == "__main__":
    main()
