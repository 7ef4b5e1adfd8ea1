"""What it costs that nothing is lost: parts, checksums, resuming, and memory against its limit.

    python tests/benchmarks/parts.py                  as the docs quote it
    python tests/benchmarks/parts.py --side 2000      a quick look

Prints ratios; what is compared runs in one call, in turn, each in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from engine import CheapModel, peak_mb, write_scene

from geodinoseg.model.band_statistics import BandStatistics
from geodinoseg.model.devices import FittingBatches
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.segmentor import Segmentor
from geodinoseg.progress import no_progress
from geodinoseg.rasters.map_writer import class_raster_writer
from geodinoseg.segmentation import segment as segmentation
from geodinoseg.segmentation.inference import class_rows
from geodinoseg.segmentation.missing_pixels import CollarWatch
from geodinoseg.segmentation.plan import make_plan
from geodinoseg.segmentation.runner import TileProgress
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.segmentation.tile_grid import first_run

TILE, OVERLAP = 512, 128


class KnownCheapModel(CheapModel):
    fingerprint = "cheap"


def small_dinov2(folder: Path) -> Segmentor:
    """DINOv2 small with random weights: its forward pass costs what a trained one's does."""
    from transformers import Dinov2Backbone, Dinov2Config
    from transformers.utils import logging

    logging.disable_progress_bar()
    backbone = folder / "backbone"
    if not backbone.exists():
        torch.manual_seed(0)
        config = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)
        Dinov2Backbone(config).save_pretrained(backbone)
    torch.manual_seed(1)  # the head's weights: every process must have the same model
    network = DinoV2Segmentor(
        backbone=backbone, num_classes=8, quantize=False, peft=False, linear_head=True
    )
    statistics = BandStatistics(
        mean=(120.0,) * 3, std=(50.0,) * 3, low=(0.0,) * 3, high=(255.0,) * 3, dtype="uint8"
    )
    return Segmentor(
        network=network.requires_grad_(requires_grad=False).eval(),
        legend=CheapModel.legend,
        statistics=statistics,
        bands=(1, 2, 3),
        trained_tile_px=518,
    )


def model_of(name: str, folder: Path):
    return KnownCheapModel() if name == "cheap" else small_dinov2(folder)


def settings_of(name: str, max_memory: int) -> SegmentationSettings:
    sizes = {"tile_px": TILE, "overlap_px": OVERLAP} if name == "cheap" else {}
    return SegmentationSettings(batch_size=4, max_memory=max_memory, **sizes)


def in_parts(scene: Path, model, output: Path, settings: SegmentationSettings) -> None:
    segmentation.segment_scene(scene, model, output, settings=settings, overwrite=True)


def without_parts(scene: Path, model, output: Path, settings: SegmentationSettings) -> None:
    """The same rows straight into the writer, panel by panel: what a run without parts would do."""
    plan, model = make_plan(scene, model, settings)
    batches, tiles = FittingBatches(plan.batch_size), TileProgress(plan.chunks, no_progress)
    collar, left = CollarWatch(plan.scene), list(plan.chunks)
    tags = segmentation._tags(plan, model)
    with class_raster_writer(output, plan.scene.geobox, plan.legend, tags=tags) as writer:
        while left:
            run = first_run(left)
            (chunk,) = plan.grid.joined(run, cols=plan.grid.width)
            for rows in class_rows(plan, model, chunk, batches=batches, tiles=tiles, collar=collar):
                writer.write(rows)
            del left[: len(run)]


def resumed(scene: Path, model, output: Path, settings: SegmentationSettings) -> float:
    """A run that is stopped when all parts are done, and goes on. Seconds of the second."""

    def stop(*_, **__):
        raise KeyboardInterrupt

    assemble, segmentation.assemble = segmentation.assemble, stop
    with contextlib.suppress(KeyboardInterrupt):
        in_parts(scene, model, output, settings)
    segmentation.assemble = assemble
    began = time.perf_counter()
    in_parts(scene, model, output, settings)
    return time.perf_counter() - began


def only_the_model(scene: Path, model, output: Path, settings: SegmentationSettings) -> None:
    """Libraries, and the network on batches: beside what the memory limit speaks of."""
    plan, model = make_plan(scene, model, settings)
    side = plan.grid.tile_px
    pixels = torch.zeros((plan.batch_size, 3, side, side), dtype=torch.uint8)
    valid = torch.ones((plan.batch_size, side, side), dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(3):
            model.probabilities(pixels, valid)


WAYS = {
    "parts": in_parts,
    "plain": without_parts,
    "resumed": resumed,
    "model": only_the_model,
}


def run(way: str, name: str, scene: str, folder: str, max_memory: str) -> None:
    model = model_of(name, Path(folder))
    settings = settings_of(name, int(max_memory))
    began, cpu = time.perf_counter(), time.process_time()
    seconds = WAYS[way](Path(scene), model, Path(folder) / f"{way}.tif", settings)
    wall = seconds or time.perf_counter() - began
    print(json.dumps({"wall": wall, "cpu": time.process_time() - cpu, "peak_mb": peak_mb()}))


def in_a_process(way: str, name: str, scene: Path, folder: Path, max_memory: int = 1 << 30):
    command = [sys.executable, __file__, "--run", way, name, str(scene), str(folder)]
    result = subprocess.run([*command, str(max_memory)], check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def time_table(folder: Path, name: str, side: int, repeats: int) -> None:
    scene = write_scene(folder / f"scene_{side}.tif", height=side, width=side)
    print(f"\nTime, {name} model, {side:,} x {side:,} px, 8 classes")
    print("| way | seconds | CPU seconds |")
    print("| --- | --- | --- |")
    found: dict[str, list[dict[str, float]]] = {"plain": [], "parts": [], "resumed": []}
    for _ in range(repeats):
        for way, results in found.items():
            results.append(in_a_process(way, name, scene, folder))
            cpu = "" if way == "resumed" else f"{results[-1]['cpu']:.2f}"
            print(f"| {way} | {results[-1]['wall']:.2f} | {cpu} |", flush=True)
    for measure in ("wall", "cpu"):
        pairs = zip(found["parts"], found["plain"], strict=True)
        ratio = np.median([a[measure] / b[measure] for a, b in pairs])
        print(f"parts / plain, {measure}: {ratio:.3f}")
    pairs = zip(found["resumed"], found["parts"], strict=True)
    print(f"resumed / parts: {np.median([a['wall'] / b['wall'] for a, b in pairs]):.3f}")
    same = (folder / "parts.tif").read_bytes() == (folder / "resumed.tif").read_bytes()
    print(f"the same bytes after resuming: {same}")


def memory_table(folder: Path, limits_mb: list[int]) -> None:
    print("\nPeak memory beside libraries and model, cheap model, tiles of 512 px, 8 classes")
    print("| scene | limit, MB | predicted, MB | panels | peak, MB | share of the limit |")
    print("| --- | --- | --- | --- | --- | --- |")
    for height, width in ((4_000, 40_000), (40_000, 4_000), (600, 200_000)):
        scene = write_scene(folder / "wide.tif", height=height, width=width)
        for limit in limits_mb:
            settings = settings_of("cheap", limit * 1_000_000)
            plan, _ = make_plan(scene, KnownCheapModel(), settings)
            base = in_a_process("model", "cheap", scene, folder, settings.max_memory)["peak_mb"]
            peak = in_a_process("parts", "cheap", scene, folder, settings.max_memory)["peak_mb"]
            taken = (peak - base) * 1.048576  # from MiB
            print(
                f"| {height:,} x {width:,} | {limit} | {plan.memory_bytes / 1e6:.0f} | "
                f"{plan.panels} | {taken:.0f} | {taken / limit:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=6_000)
    parser.add_argument("--dinov2-side", type=int, default=3_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limits", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--only", choices=["time", "memory"])
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(*arguments.run)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.only != "memory":
            time_table(folder, "cheap", arguments.side, arguments.repeats)
            time_table(folder, "dinov2-small", arguments.dinov2_side, arguments.repeats)
        if arguments.only != "time":
            memory_table(folder, arguments.limits)


if __name__ == "__main__":
    main()
