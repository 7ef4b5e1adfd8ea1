"""Train `banepa.model` from scratch, and score it and two baselines on held-out land.

Run it with `make sample-model`. The training scene is cut in two: its western three quarters train
and validate the model, the eastern quarter, 64 px further on, is for the scores alone. No
pretrained weights are used: the backbone is built from the configuration below, with random
weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import rasterio
import torch
from rasterio.windows import Window as RioWindow
from transformers import Dinov2Backbone, Dinov2Config

from geodinoseg.evaluation.accuracy import Accuracy
from geodinoseg.evaluation.evaluate import evaluate_map
from geodinoseg.labels.open import open_labels
from geodinoseg.labels.options import LabelOptions
from geodinoseg.rasters.scene import open_scene

sys.path.insert(0, str(Path(__file__).resolve().parent))
from baselines import score_baselines  # beside this script, not installed

HERE = Path(__file__).resolve().parent
SCENE = HERE / "banepa_train.tif"
LABELS = HERE / "banepa_buildings.geojson"
LABEL_OPTIONS = [
    "--class-field=roof",
    "--ignore-class=clay_tiles",  # 14 roofs are too few to learn from
    "--unlabelled=background",
]
LABELS_READ = LabelOptions(
    class_field="roof", ignore_classes=("clay_tiles",), unlabelled="background"
)
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
    "--head-epochs=0",  # features of random weights are not worth a stage
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


EPOCHS = 18
TEST_TITLE = "## Test part, and what there is to beat"
TEST_TEXT = f"""No pretrained weights were used: the backbone was built from a configuration, with
random weights, and trained on columns {TRAIN_COLS[0]} to {TRAIN_COLS[1]} of banepa_train.tif
alone. The table is measured on columns {TEST_COLS[0]} to {TEST_COLS[1]}, which were not used for
training or selection. Every labelled pixel counts; roofs of clay tiles and of unknown material are
left out. The forest uses pixel values and statistics of their neighbourhoods
(`sample_data/baselines.py`). Labels are drawn by hand, edges are off by up to 0.5 m and some roof
tags are wrong, so 1.0 cannot be reached."""


def main() -> None:
    """Train, segment the test part, score, write the scores into the model's README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "banepa.model")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--only-score", action="store_true", help="score an existing model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        train_part = cut(SCENE, work / "banepa_west.tif", cols=TRAIN_COLS)
        test_part = cut(SCENE, work / "banepa_east.tif", cols=TEST_COLS)
        if not arguments.only_score:
            train(train_part, work, arguments.output, epochs=arguments.epochs)
        scores = {"sample model": score(test_part, arguments.output, work)}
        scores |= baselines(train_part, test_part, LABELS, LABELS_READ, block_px=256)
    write_scores(arguments.output, scores, TEST_TEXT, pretrained="none")


def train(train_part: Path, work: Path, output: Path, *, epochs: int) -> None:
    """The model folder, by the command that a user would type."""
    backbone = work / "backbone"
    torch.manual_seed(1)
    Dinov2Backbone(Dinov2Config(**BACKBONE)).save_pretrained(backbone)
    geodinoseg(
        "train",
        train_part,
        f"--labels={LABELS}",
        *LABEL_OPTIONS,
        *RECIPE,
        f"--backbone={backbone}",
        f"--epochs={epochs}",
        "--overwrite",
        "-o",
        output,
    )


def score(test_part: Path, model: Path, work: Path) -> Accuracy:
    """Accuracy of the model's map on the test part, every labelled pixel of it."""
    output = work / "east_map.tif"
    geodinoseg("segment", test_part, f"--model={model}", "-o", output)
    return evaluate_map(output, LABELS, label_options=LABELS_READ).accuracy


def baselines(
    train_part: Path, test_part: Path, labels: Path, options: LabelOptions, *, block_px: int
) -> dict[str, Accuracy]:
    """The forest, tuned on blocks of a side, and the constant answer, on the same pixels."""
    first, second = open_scene(train_part), open_scene(test_part)
    train_labels = open_labels(labels, first.geobox, options=options)
    test_labels = open_labels(labels, second.geobox, options=options, legend=train_labels.legend)
    return score_baselines(first, train_labels, second, test_labels, block_px=block_px)


def write_scores(
    model: Path, scores: dict[str, Accuracy], text: str, *, pretrained: str | None = None
) -> None:
    """Into config.json as plain values, into the README as a table under a text."""
    config_path = model / "config.json"
    config = json.loads(config_path.read_text("utf-8"))
    if pretrained is not None:
        config["training"]["pretrained weights"] = pretrained
    config["scores"]["test part"] = {name: a.to_json() for name, a in scores.items()}
    config_path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    names = [entry["name"] for entry in config["legend"]]
    readme = model / "README.md"
    card = readme.read_text("utf-8").split(TEST_TITLE)[0].rstrip()
    section = test_section(scores, names, text)
    readme.write_text(f"{card}\n\n{TEST_TITLE}\n\n{section}\n", "utf-8")
    print(section)


def test_section(scores: dict[str, Accuracy], names: list[str], text: str) -> str:
    """What the README says of the test part."""
    head = ["", "mean IoU", *(f"IoU {name}" for name in names), "overall accuracy"]
    rows = [
        [name, *(f"{value:.3f}" for value in (a.mean_iou, *a.iou, a.overall))]
        for name, a in scores.items()
    ]
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join([text, "", *lines])


def cut(
    scene: Path,
    output: Path,
    *,
    cols: tuple[int, int] | None = None,
    rows: tuple[int, int] | None = None,
) -> Path:
    """Columns and rows of a scene as a GeoTIFF of its own."""
    with rasterio.open(scene) as source:
        left, right = cols or (0, source.width)
        top, bottom = rows or (0, source.height)
        window = RioWindow(left, top, right - left, bottom - top)
        profile = {
            "driver": "GTiff",
            "dtype": source.dtypes[0],
            "count": source.count,
            "crs": source.crs,
            "transform": source.window_transform(window),
            "width": window.width,
            "height": window.height,
            "tiled": True,
            "compress": "deflate",
        }
        with rasterio.open(output, "w", **profile) as target:
            target.write(source.read(window=window))
    return output


def geodinoseg(*arguments: object) -> None:
    """The command, as a user would type it."""
    subprocess.run([sys.executable, "-m", "geodinoseg", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
