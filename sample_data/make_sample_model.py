"""Trains `banepa.model` from scratch, scores it and two baselines on land it never saw.

Run it with `make sample-model`. The training scene is cut in two: its western three quarters train
the model (a part of them validates it), the eastern quarter, 64 px further on, is for the scores
alone. No pretrained weights are used: the backbone is built from the configuration below, with
random weights.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import rasterio
import torch
from rasterio.windows import Window
from transformers import Dinov2Backbone, Dinov2Config

HERE = Path(__file__).resolve().parent
SCENE = HERE / "banepa_train.tif"
LABELS = HERE / "banepa_buildings.geojson"
LABEL_OPTIONS = [
    "--class-field=roof",
    "--ignore-class=clay_tiles",  # 14 roofs are too few to learn from
    "--unlabelled=background",
]
TRAIN_COLS = (0, 2304)
TEST_COLS = (2368, 3072)
BACKBONE = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "image_size": 224,
    "patch_size": 14,
    "drop_path_rate": 0.1,
}
RECIPE = [
    "--stage=full",
    "--head=cnn",
    "--channels=96",
    "--n-features=2",
    "--learning-rate=0.001",
    "--backbone-learning-rate=0.001",
    "--batch-size=8",
    "--steps-per-epoch=100",
    "--validation-share=0.1",
    "--seed=1",
]


def main() -> None:
    """Train, segment the test part, score, write the scores into the model's README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "banepa.model")
    parser.add_argument("--epochs", type=int, default=42, help="42 take about an hour on two cores")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        train_part = cut(SCENE, work / "banepa_west.tif", TRAIN_COLS)
        backbone = work / "backbone"
        torch.manual_seed(1)
        Dinov2Backbone(Dinov2Config(**BACKBONE)).save_pretrained(backbone)
        geodinoseg(
            "train", train_part, f"--labels={LABELS}", *LABEL_OPTIONS, *RECIPE,
            f"--backbone={backbone}", f"--epochs={arguments.epochs}", "--overwrite",
            "-o", arguments.output,
        )  # fmt: skip


def cut(scene: Path, output: Path, cols: tuple[int, int]) -> Path:
    """Columns of a scene as a GeoTIFF of its own."""
    with rasterio.open(scene) as source:
        window = Window(cols[0], 0, cols[1] - cols[0], source.height)
        profile = {
            "driver": "GTiff", "dtype": source.dtypes[0], "count": source.count,
            "crs": source.crs, "transform": source.window_transform(window),
            "width": window.width, "height": window.height, "tiled": True, "compress": "deflate",
        }  # fmt: skip
        with rasterio.open(output, "w", **profile) as target:
            target.write(source.read(window=window))
    return output


def geodinoseg(*arguments: object) -> None:
    """The command, as a user would type it."""
    subprocess.run(
        [sys.executable, "-m", "geodinoseg", *map(str, arguments)], check=True
    )


if __name__ == "__main__":
    main()
