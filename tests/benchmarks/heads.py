"""What each head costs beside the backbone, on one thread of a CPU.

    python tests/benchmarks/heads.py                 DINOv2 small and base, about two minutes
    python tests/benchmarks/heads.py --bands 9

Prints megapixels per second of each part alone and of the whole network, and what a head adds to
the time of the backbone. The weights are random: the speed does not depend on them. All parts run
in one process, in turn, and the best of the repeats counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from transformers import Dinov2Backbone, Dinov2Config

from geodinoseg.model.backbone import widen_patch_embedding
from geodinoseg.model.dinov2_segmentor import NETWORK_DEFAULTS, make_head
from geodinoseg.model.heads import Detail

SIZES = {"small": (384, 6), "base": (768, 12)}
"""Hidden size and attention heads of the published backbones, which have 12 layers."""
HEADS = {"linear": {}, "cnn": {"linear_head": False}, "fused": {"fused_head": True}}
PATCH_PX, CLASSES = 14, 8


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of one run."""
    began = time.process_time()
    run()
    return time.process_time() - began


@torch.inference_mode()
def measure(size: str, *, bands: int, tile_px: int, batch: int, repeats: int) -> None:
    """Print the table of one backbone."""
    hidden, attention_heads = SIZES[size]
    config = Dinov2Config(
        hidden_size=hidden,
        num_attention_heads=attention_heads,
        image_size=518,
        patch_size=PATCH_PX,
        out_indices=[12],
    )
    backbone = Dinov2Backbone(config).eval()
    if bands != config.num_channels:
        widen_patch_embedding(backbone, bands)
    pixels = torch.randn(batch, bands, tile_px, tile_px)
    detail = Detail(pixels, torch.ones(batch, tile_px, tile_px, dtype=torch.bool))
    features = backbone(pixels).feature_maps[0]
    runs: dict[str, Callable[[], object]] = {"backbone": lambda: backbone(pixels)}
    for name, settings in HEADS.items():
        head = make_head(
            NETWORK_DEFAULTS | {"num_classes": CLASSES} | settings,
            in_channels=hidden,
            patch_px=PATCH_PX,
            bands=bands,
        ).eval()
        runs[name] = lambda head=head: head(features, (tile_px, tile_px), detail)
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            best[name] = min(best[name], seconds(run))
    print(f"\nDINOv2 {size}, {bands} bands, {batch} tiles of {tile_px} px")
    print("| part | Mpx per s | adds to the backbone |")
    print("| --- | --- | --- |")
    for name, spent in best.items():
        share = "" if name == "backbone" else f"{spent / best['backbone']:.0%}"
        print(f"| {name} | {batch * tile_px**2 / 1e6 / spent:.2f} | {share} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bands", type=int, default=3)
    parser.add_argument("--tile", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size in SIZES:
        measure(
            size,
            bands=options.bands,
            tile_px=options.tile,
            batch=options.batch,
            repeats=options.repeats,
        )


if __name__ == "__main__":
    main()
