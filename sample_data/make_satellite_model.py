"""Train `lataseno.model` for nine bands of Sentinel-2, and score it and two baselines apart.

Run it with `make satellite-model`; it takes about three minutes. The northern half of the scene
trains and validates the model, the southern half, 120 m further on, is for the scores alone. The
model has no backbone: the head sees the bands at every pixel and in its neighbourhood, so its
folder is small.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from make_sample_model import baselines, cut, geodinoseg, write_scores  # beside this script

from geodinoseg.evaluation.accuracy import Accuracy
from geodinoseg.evaluation.evaluate import evaluate_map
from geodinoseg.labels.options import LabelOptions

HERE = Path(__file__).resolve().parent
SCENE = HERE / "lataseno_s2.tif"
LABELS = HERE / "lataseno_classes.tif"
TRAIN_ROWS, TEST_ROWS = (0, 118), (130, 247)
TEST_TEXT = f"""Trained on rows {TRAIN_ROWS[0]} to {TRAIN_ROWS[1]} of lataseno_s2.tif without a
backbone. The table is measured on rows {TEST_ROWS[0]} to {TEST_ROWS[1]}, which were not used for
training or selection. Every labelled pixel counts. The forest uses pixel values and statistics of
their neighbourhoods (`sample_data/baselines.py`). The labels are groups of CORINE classes on a grid
of 20 m that were not drawn on this image, so 1.0 cannot be reached."""


def main() -> None:
    """Train, segment the test part, score, write the scores into the model's README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "lataseno.model")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        train_part = cut(SCENE, work / "lataseno_north.tif", rows=TRAIN_ROWS)
        test_part = cut(SCENE, work / "lataseno_south.tif", rows=TEST_ROWS)
        train = ("train", train_part, f"--labels={LABELS}", "--backbone=none")
        geodinoseg(*train, "--overwrite", "-o", output)
        scores = {"sample model": score(test_part, output, work)}
        scores |= baselines(train_part, test_part, LABELS, LabelOptions(), block_px=48)
    write_scores(output, scores, TEST_TEXT)


def score(test_part: Path, model: Path, work: Path) -> Accuracy:
    """Accuracy of the model's map on the test part, every labelled pixel of it."""
    output = work / "south_map.tif"
    geodinoseg("segment", test_part, f"--model={model}", "-o", output)
    return evaluate_map(output, LABELS).accuracy


if __name__ == "__main__":
    main()
