"""Folders of image and label chips, as ArcGIS exports them."""

from __future__ import annotations

import json

import numpy as np
from rasters import write_raster

HEIGHT, WIDTH = 37, 53


CLASSES = [
    {"Value": 2, "Name": "roof", "Color": [200, 10, 30]},
    {"Value": 5, "Name": "water", "Color": [1, 2, 254]},
    {"Value": 9, "Name": "never", "Color": [0, 0, 0]},
]


def values(seed, choices=(0, 2, 5)):
    """Label values in patches."""
    small = np.random.default_rng(seed).choice(
        np.array(choices, np.uint8), (HEIGHT // 4 + 1, WIDTH // 5 + 1)
    )
    return np.kron(small, np.ones((4, 5), np.uint8))[:HEIGHT, :WIDTH]


def image(seed):
    return np.random.default_rng(seed).integers(1, 255, (3, HEIGHT, WIDTH)).astype(np.uint8)


def write_chips(
    root,
    *,
    count=3,
    suffix=".tif",
    homes=("images", "labels"),
    end="",
    choices=(0, 2, 5),
    **options,
):
    """Pairs in two folders, or in one; returns the label values."""
    driver = {".tif": "GTiff", ".png": "PNG"}[suffix]
    bare = {"transform": None, "crs": None} if suffix == ".png" else {}
    for home in homes:
        (root / home).mkdir(parents=True, exist_ok=True)
    chips = [values(seed, choices) for seed in range(count)]
    for seed, chip in enumerate(chips):
        name = f"{seed:09d}"
        write_raster(root / homes[0] / f"{name}{suffix}", image(seed), driver=driver, **bare)
        write_raster(
            root / homes[1] / f"{name}{end}{suffix}", chip[None], driver=driver, **bare, **options
        )
    return chips


def write_export(root, *, emd=None, **options):
    """An export as ArcGIS writes it."""
    chips = write_chips(root, **options)
    emd = (
        {"MetaDataMode": "Classified_Tiles", "ImageHeight": HEIGHT, "Classes": CLASSES}
        if emd is None
        else emd
    )
    (root / "esri_model_definition.emd").write_text(
        emd if isinstance(emd, str) else json.dumps(emd)
    )
    (root / "esri_accumulated_stats.json").write_text(
        json.dumps({"MetaDataMode": "Classified_Tiles", "NumTiles": len(chips)})
    )
    lines = [f"images\\{n:09d}.tif labels\\{n:09d}.tif" for n in range(len(chips))]
    (root / "map.txt").write_text("\r\n".join(lines) + "\r\n")
    return chips
