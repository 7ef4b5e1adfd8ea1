"""The convolution in front of a backbone, and how it is widened for other numbers of bands."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel


def patch_embedding(backbone: nn.Module) -> nn.Conv2d:
    """The convolution that turns patches of pixels into tokens."""
    embeddings = backbone.get_submodule("embeddings.patch_embeddings")
    projection = getattr(embeddings, "projection", embeddings)
    assert isinstance(projection, nn.Conv2d)
    return projection


def widen_patch_embedding(backbone: PreTrainedModel, bands: int) -> None:
    """Make a backbone take another number of bands, in place.

    Band b takes the filters of the backbone's own band b modulo own (3 for RGB), times own /
    bands; what their sum then lacks of the old sum is spread evenly over the bands. So bands stay
    distinguishable, and an input that is the same in all bands gives the tokens it gave before.
    The new weights are a start; they can be trained, under LoRA too.

    Args:
        backbone: as `load_backbone` gives it.
        bands: bands of the input from now on.
    """
    old = patch_embedding(backbone)
    patch = (old.kernel_size[0], old.kernel_size[1])
    new = nn.Conv2d(bands, old.out_channels, patch, patch).to(old.weight)
    with torch.no_grad():
        filters_DNhw = old.weight[:, torch.arange(bands) % old.in_channels]
        filters_DNhw = filters_DNhw * (old.in_channels / bands)
        # Not 0 where bands is no multiple of own: some filters stand there once more than others.
        missing_Dhw = old.weight.sum(dim=1) - filters_DNhw.sum(dim=1)
        new.weight.copy_(filters_DNhw + missing_Dhw[:, None] / bands)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    embeddings = backbone.get_submodule("embeddings")
    holder = embeddings.get_submodule("patch_embeddings")
    if holder is old:
        embeddings.patch_embeddings = new
    else:
        holder.projection = new
        holder.num_channels = bands
    backbone.config.num_channels = bands
