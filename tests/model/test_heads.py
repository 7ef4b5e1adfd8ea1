from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn import functional
from torch.testing import assert_close

from geodinoseg.errors import ModelError
from geodinoseg.model.heads import ACTIVATIONS, BicubicUpsample, CnnHead, LinearHead

WRITTEN_OUT = {
    "relu": lambda x: x.clamp(min=0),
    "leakyrelu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": torch.tanh,
}


def batch_norm(x, state, prefix, *, training):
    """(x - mean) / sqrt(var + eps) * weight + bias, written out."""
    mean, var = state[f"{prefix}.running_mean"], state[f"{prefix}.running_var"]
    if training:
        mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
    x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    return x * state[f"{prefix}.weight"][:, None, None] + state[f"{prefix}.bias"][:, None, None]


def linear_head(features, state, size_px, *, training=False):
    x = batch_norm(features, state, "norm", training=training)
    weight = state["classify.weight"][:, :, 0, 0]
    logits = torch.einsum("cd,bdhw->bchw", weight, x) + state["classify.bias"][:, None, None]
    return functional.interpolate(logits, size=size_px, mode="bilinear", align_corners=False)


def cnn_head(features, state, size_px, *, n_block, patch_px, k_size, activation, training=False):
    act, pad = WRITTEN_OUT[activation], k_size // 2

    def conv(x, name):
        bias = state.get(f"{name}.bias")
        return functional.conv2d(x, state[f"{name}.weight"], bias, padding=pad)

    x = conv(features, "enter")
    for index in range(n_block):
        if index < n_block - n_block // 2:
            factor = patch_px / 8 if index == 0 else 2
            size = [int(side * factor) for side in x.shape[-2:]]
            x = functional.interpolate(x, size=size, mode="bicubic", align_corners=False)
        else:
            x = functional.pixel_shuffle(x, 2)
        body = f"blocks.{index}.1.body"
        y = act(batch_norm(conv(x, f"{body}.0"), state, f"{body}.1", training=training))
        x = act(x + batch_norm(conv(y, f"{body}.3"), state, f"{body}.4", training=training))
    logits = conv(act(x), "classify")
    if logits.shape[-2:] != size_px:
        logits = functional.interpolate(logits, size=size_px, mode="bilinear", align_corners=False)
    return logits


def randomized(head):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in head.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif tensor.is_floating_point():
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return head.double()


def small_cnn(**changes):
    settings = {"patch_px": 14, "n_block": 4, "channels": 32, "k_size": 3, "activation": "relu"}
    return randomized(CnnHead(10, 5, **(settings | changes)))


@pytest.mark.parametrize("training", [False, True])
def test_the_linear_head_is_batch_norm_a_1x1_convolution_and_bilinear_upsampling(training):
    head = randomized(LinearHead(10, 5)).train(training)
    features = torch.randn(2, 10, 3, 5, dtype=torch.float64)
    state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    expected = linear_head(features, state, (42, 70), training=training)
    assert_close(head(features, (42, 70)), expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize(("n_block", "k_size", "patch_px"), [(4, 3, 14), (3, 1, 16), (1, 5, 14)])
def test_the_cnn_head_is_what_is_written_out(training, activation, n_block, k_size, patch_px):
    settings = {"n_block": n_block, "k_size": k_size, "patch_px": patch_px}
    head = small_cnn(**settings, activation=activation).train(training)
    head.dropout.eval()
    features = torch.randn(2, 10, 3, 5, dtype=torch.float64)
    state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    size_px = (3 * patch_px, 5 * patch_px)
    expected = cnn_head(
        features, state, size_px, **settings, activation=activation, training=training
    )
    assert_close(head(features, size_px), expected)


def test_batch_norms_learn_their_statistics_in_training_only():
    head = small_cnn()
    before = {name: tensor.clone() for name, tensor in head.named_buffers()}
    features = torch.randn(2, 10, 3, 5, dtype=torch.float64)
    head.eval()(features, (42, 70))
    assert_close(dict(head.named_buffers()), before)
    head.train()(features, (42, 70))
    changed = [n for n, b in head.named_buffers() if not torch.equal(b, before[n])]
    assert len(changed) == len(before)


def test_four_blocks_and_patches_of_14_reach_the_pixels_without_a_last_resize():
    head = small_cnn().eval()
    maps = head.enter(torch.randn(1, 10, 4, 8, dtype=torch.float64))
    shapes = []
    for block in head.blocks:
        maps = block(maps)
        shapes.append(tuple(maps.shape[1:]))
    assert shapes == [(32, 7, 14), (32, 14, 28), (8, 28, 56), (2, 56, 112)]


def test_37_patches_need_a_last_resize():
    head = small_cnn().eval()
    assert head(torch.randn(1, 10, 37, 1, dtype=torch.float64), (518, 14)).shape == (1, 5, 518, 14)


@given(
    n_block=st.integers(1, 5),
    k_size=st.sampled_from([1, 3, 5]),
    rows=st.integers(1, 5),
    cols=st.integers(1, 5),
    patch_px=st.sampled_from([14, 16]),
)
def test_every_cnn_head_gives_the_size_that_is_asked_for(n_block, k_size, rows, cols, patch_px):
    head = CnnHead(
        4, 2, patch_px=patch_px, n_block=n_block, channels=16, k_size=k_size, activation="relu"
    ).eval()
    size_px = (rows * patch_px, cols * patch_px)
    assert head(torch.zeros(1, 4, rows, cols), size_px).shape == (1, 2, *size_px)


def test_dropout_acts_in_training_only():
    # Many tiles: two draws that drop the same channels of all of them do not happen.
    features = torch.randn(64, 10, 2, 2, dtype=torch.float64)
    head = small_cnn()
    head.eval()
    assert torch.equal(head(features, (28, 28)), head(features, (28, 28)))
    head.dropout.train()
    assert not torch.equal(head(features, (28, 28)), head(features, (28, 28)))


@pytest.mark.parametrize(("n_block", "channels"), [(4, 24), (2, 6), (6, 32)])
def test_channels_that_the_pixel_shuffles_cannot_divide_are_refused(n_block, channels):
    with pytest.raises(ModelError, match=r"give a multiple of \d+"):
        small_cnn(n_block=n_block, channels=channels)


@given(side=st.integers(1, 80))
def test_upsampling_rounds_down_to_whole_pixels(side):
    assert BicubicUpsample(1.75)(torch.zeros(1, 1, side, 1)).shape == (1, 1, side * 7 // 4, 1)
