"""How much a map shows its tiles, by tile size and overlap, and what that costs.

    python tests/benchmarks/seams.py                     the tables of docs/seams.md, twenty minutes
    python tests/benchmarks/seams.py --only linear       one of the models
    python tests/benchmarks/seams.py --experiments       what else was tried, six minutes

On one thread of a CPU. Prints rows of Markdown: share of the overlap on which tiles disagree, pieces
of straight borders at joins and elsewhere with the p value, mean IoU and CPU seconds. Land and labels
are those of `accuracy.py`: a head is trained on one part, and mean IoU is measured on the other. Joins
are counted there and, for roofs, on a window of the second drone scene, too; p values of two scenes are
combined by Fisher's method. The scene of nine bands is counted whole, for it is small.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accuracy import be_quiet
from accuracy_data import BACKBONE, SAMPLES, Dataset, banepa, cut, lataseno
from scipy.stats import combine_pvalues
from seams_experiments import experiments

import geodinoseg as gds
from geodinoseg.rasters.seams import Seams
from geodinoseg.segmentation.plan import make_plan

HEADER = (
    "| | tile, px | overlap, px | tiles disagree | straight at joins | elsewhere | p | mean IoU "
    "| CPU, s |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)
TRIED_ON_PX = (224, 518)
"""Tiles of the experiments."""
TILES_PX = (224, 336, 448, 518)
"""Of 14-px patches; DINOv2 was trained with 518."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, the scenes that it maps, and the labels of the first."""

    name: str
    model: gds.Segmentor
    scenes: tuple[Path, ...]
    dataset: Dataset

    def row(self, tile_px: int, overlap_px: int | None, work: Path) -> str:
        """Map all scenes, and say what is in a row of the table."""
        chosen = gds.SegmentationSettings(tile_px=tile_px, overlap_px=overlap_px)
        output, seams, began = work / "map.tif", [], time.process_time()
        for scene in reversed(self.scenes):  # the labelled one last, to be evaluated
            raster = gds.segment_scene(scene, self.model, output, settings=chosen, overwrite=True)
            seams.append(raster.seams)
        spent_s = time.process_time() - began
        score = gds.evaluate_map(
            output, self.dataset.labels, label_options=self.dataset.options
        ).accuracy.mean_iou
        overlap = overlap_px if overlap_px is not None else default_overlap_px(self, tile_px)
        cells = [self.name, tile_px, overlap, *shown(seams), f"{score:.3f}"]
        return f"| {' | '.join(map(str, cells))} | {spent_s:.0f} |"


def shown(seams: Sequence[Seams]) -> list[str]:
    """Cells of the table: of all scenes together."""
    found = [one.straight for one in seams if one.straight.p_value is not None]
    p_value = combine_pvalues([one.p_value for one in found]).pvalue if found else float("nan")
    return [
        percent(sum(one.disagreeing_px for one in seams), sum(one.overlap_px for one in seams)),
        percent(
            sum(one.changed_at_joins for one in found), sum(one.at_joins for one in found), digits=2
        ),
        percent(
            sum(one.changed_elsewhere for one in found),
            sum(one.elsewhere for one in found),
            digits=2,
        ),
        f"{p_value:.2g}" if found else "-",
    ]


def percent(count: int, of: int, *, digits: int = 1) -> str:
    return f"{100 * count / of:.{digits}f}%" if of else "-"


def default_overlap_px(case: Case, tile_px: int) -> int:
    chosen = gds.SegmentationSettings(tile_px=tile_px)
    return make_plan(case.scenes[0], case.model, chosen)[0].grid.overlap_px


def trained(dataset: Dataset, work: Path, **network: object) -> gds.Segmentor:
    """A model of the dataset's training part, on the backbone of the sample model."""
    return gds.train_model(
        dataset.train,
        dataset.labels,
        work / "trained.model",
        label_options=dataset.options,
        settings=gds.TrainingSettings(stage="head"),
        network={"backbone": BACKBONE, **network},
        device="cpu",
        overwrite=True,
    )


def cases(work: Path) -> dict[str, Callable[[], Case]]:
    """By name; each is trained when it is called."""
    roofs, land = banepa(work), lataseno(work)
    second = cut(SAMPLES / "banepa_apply.tif", work / "second.tif", cols=(0, 1400), rows=(0, 1400))

    def case(name: str, dataset: Dataset, model: gds.Segmentor, *more: Path) -> Case:
        return Case(name=name, model=model, scenes=(dataset.test, *more), dataset=dataset)

    return {
        "sample": lambda: case(
            "sample model", roofs, gds.load_model(SAMPLES / "banepa.model"), second
        ),
        "linear": lambda: case(
            "roofs, linear head", roofs, trained(roofs, work, linear_head=True), second
        ),
        "fused": lambda: case(
            "roofs, fused head", roofs, trained(roofs, work, fused_head=True), second
        ),
        "lataseno": lambda: case(
            "9 bands, fused head",
            land,
            trained(land, work, fused_head=True),
            SAMPLES / "lataseno_s2.tif",
        ),
    }


def table(case: Case, work: Path) -> Iterable[str]:
    """A row for each tile and overlap: the default, and twice as much."""
    for tile_px in TILES_PX:
        overlap_px = default_overlap_px(case, tile_px)
        yield case.row(tile_px, None, work)
        yield case.row(tile_px, min(2 * overlap_px, tile_px // 2), work)


def tried(work: Path) -> Iterable[str]:
    """A row for each experiment and tile, of a linear head on roofs."""
    roofs, scenes = banepa(work), cases(work)["sample"]().scenes
    for name, model in experiments(roofs, TRIED_ON_PX):
        case = Case(name=name, model=model, scenes=scenes, dataset=roofs)
        for tile_px in TRIED_ON_PX:
            yield case.row(tile_px, None, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("sample", "linear", "fused", "lataseno"))
    parser.add_argument("--experiments", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    be_quiet()
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.experiments:
            rows = tried(work)
        else:
            known = cases(work)
            chosen = [options.only] if options.only else list(known)
            rows = (row for name in chosen for row in table(known[name](), work))
        for row in rows:
            print(row, flush=True)


if __name__ == "__main__":
    main()
