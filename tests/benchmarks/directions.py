"""How right the maps are from one side of a scene to the other, in all directions, with intervals.

    python tests/benchmarks/directions.py --deadwood FOLDER             all directions, three seeds: two hours
    python tests/benchmarks/directions.py --fraction 0.1 --draws 5      with a tenth of the labels
    python tests/benchmarks/directions.py --backbone facebook/dinov2-base
    python tests/benchmarks/directions.py --redraw tests/benchmarks/directions.json

Each row trains on one part of a scene and maps another part that lies apart: what `geodinoseg train
--stage head` does without any further option, the linear head alone, a U-Net that gets the same CPU
time, and a random forest that chooses its leaf size. Results are written one by one; a run that was
interrupted is resumed by the same command.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from accuracy import Results, open_results
from accuracy_data import BACKBONE, DIRECTIONS, facing, fewer_labels
from accuracy_report import markdown
from accuracy_rows import Bench, Recipe

import geodinoseg as gds

DEFAULTS, LINEAR, UNET, FOREST = "default", "linear head", "U-Net", "random forest"
WAYS = (DEFAULTS, LINEAR, UNET, FOREST)
UNET_WEIGHTS = 1_000_000
"""Few enough for hundreds of steps in the time."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is trained on what."""

    dataset: str
    direction: str
    fraction: float
    draw: int
    """Of the labels, where there is only a fraction of them."""
    seed: int

    @property
    def place(self) -> str:
        """The same for all seeds and draws."""
        return f"{self.dataset}/{self.direction}/{self.fraction:g}"

    @property
    def key(self) -> str:
        """In the file of results."""
        return f"{self.place}/{self.draw}/{self.seed}"


def main() -> None:
    options = _parser().parse_args()
    path = options.redraw
    if not path:
        results = open_results(options.output, "directions.json", options.backbone)
        path = results.path
        for trial in trials(options):
            measure(trial, results, options)
    print(table(json.loads(path.read_text("utf-8"))["pieces"]))


def trials(options: argparse.Namespace) -> Iterator[Trial]:
    """All that the command line asks for; the first seeds of all come first."""
    fraction = options.fraction
    rounds = options.seeds if fraction == 1 else options.draws
    for number in range(rounds):
        for dataset, direction in DIRECTIONS:
            is_wanted = not options.place or f"{dataset}/{direction}" in options.place
            if is_wanted and (dataset != "deadwood" or options.deadwood):
                yield Trial(
                    dataset=dataset,
                    direction=direction,
                    fraction=fraction,
                    draw=0 if fraction == 1 else number,
                    seed=number,
                )


def measure(trial: Trial, results: Results, options: argparse.Namespace) -> None:
    """Each way, where there is no result of it yet."""
    with tempfile.TemporaryDirectory() as name:
        bench = bench_of(trial, Path(name), options)
        for way in options.way or WAYS:
            results.piece(
                f"{trial.key}/{way}", lambda way=way: _measured(bench, way, trial, results)
            )


def bench_of(trial: Trial, work: Path, options: argparse.Namespace) -> Bench:
    """The parts of the scene, and the labels to train with."""
    dataset = facing(trial.dataset, trial.direction, work, options.deadwood)
    labels, label_options = dataset.labels, dataset.options
    if trial.fraction < 1:
        labels, label_options = work / "labels.tif", gds.LabelOptions()
        fewer_labels(dataset, trial.fraction, labels, seed=trial.draw)
    return Bench(
        dataset=dataset,
        recipe=Recipe(backbone=options.backbone, seed=trial.seed),
        work=work,
        labels=labels,
        options=label_options,
        say=lambda _: None,
    )


def _measured(bench: Bench, way: str, trial: Trial, results: Results) -> dict[str, Any]:
    if way == FOREST:
        return bench.forest()
    if way == UNET:
        ours = results.piece(f"{trial.key}/{DEFAULTS}", bench.chosen)
        settings = bench.recipe.defaults()
        return bench.unet(parameters=UNET_WEIGHTS, cpu_s=ours["cpu_s"], settings=settings)
    return bench.chosen(is_linear=way == LINEAR)


def table(pieces: dict[str, Any]) -> str:
    """Median mean IoU of each place and way, with the lowest and the highest."""
    places: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for key, piece in pieces.items():
        *place, _, _, way = key.split("/")
        places.setdefault("/".join(place), {}).setdefault(way, []).append(piece)
    rows = [
        [*_title(place), *(_interval(ways.get(way, [])) for way in WAYS), _error(ways)]
        for place, ways in sorted(places.items())
    ]
    return markdown(["", "direction", "labels", *WAYS, "calibration error"], rows)


def _title(place: str) -> list[str]:
    dataset, direction, fraction = place.split("/")
    return [dataset, direction, f"{float(fraction):.0%}"]


def _interval(pieces: list[dict[str, Any]]) -> str:
    scores = [piece["mean_iou"] for piece in pieces]
    if len(scores) <= 1:
        return "".join(f"{score:.3f}" for score in scores) or "-"
    return f"**{median(scores):.3f}** ({min(scores):.3f} to {max(scores):.3f})"


def _error(ways: dict[str, list[dict[str, Any]]]) -> str:
    errors = [piece["calibration"]["after"]["ece"] for piece in ways.get(DEFAULTS, [])]
    return f"{median(errors):.3f}" if errors else "-"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default=str(BACKBONE), help="a folder or a name on the hub")
    parser.add_argument("--deadwood", type=Path, help="folder with R70C21.tif and R70C21.gpkg")
    parser.add_argument(
        "--place",
        action="append",
        choices=["/".join(place) for place in DIRECTIONS],
        help="all by default",
    )
    parser.add_argument("--way", action="append", choices=WAYS, help="all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the labels")
    parser.add_argument("--draws", type=int, default=5, help="of a fraction of the labels")
    parser.add_argument("--redraw", type=Path, metavar="JSON", help="only the table")
    parser.add_argument("-o", "--output", type=Path, default=Path("directions"), help="a folder")
    return parser


if __name__ == "__main__":
    main()
