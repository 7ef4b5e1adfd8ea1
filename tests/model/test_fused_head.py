from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from geodinoseg.model.fused_head import REACH_PX, FusedHead
from geodinoseg.model.heads import Detail

CHANNELS, CLASSES, PATCH_PX = 12, 4, 14


def fused(bands=3, *, dtype=torch.float64, training=False):
    """A head with random weights and statistics."""
    torch.manual_seed(5)
    head = FusedHead(CHANNELS, CLASSES, bands=bands)
    with torch.no_grad():
        for name, tensor in head.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor.copy_(0.3 * torch.randn(tensor.shape))
    return head.to(dtype).train(training)


def inputs(height, width, *, bands=3, batch=1, dtype=torch.float64):
    """Features and pixels, all of them valid."""
    torch.manual_seed(6)
    features = torch.randn(batch, CHANNELS, -(-height // PATCH_PX), -(-width // PATCH_PX))
    pixels = torch.randn(batch, bands, height, width)
    valid = torch.ones(batch, height, width, dtype=torch.bool)
    return features.to(dtype), (height, width), Detail(pixels.to(dtype), valid)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    bands=st.sampled_from([1, 2, 3, 9, 200]),
    batch=st.integers(1, 2),
)
def test_any_bands_and_size_give_log_probabilities_of_that_size(height, width, bands, batch):
    logits = fused(bands)(*inputs(height, width, bands=bands, batch=batch))
    assert logits.shape == (batch, CLASSES, height, width)
    assert_close(logits.exp().sum(dim=1), torch.ones(batch, height, width, dtype=torch.float64))


def test_the_result_is_the_mean_of_the_probabilities_of_its_members():
    head, given_ = fused(), inputs(30, 41)
    fine, wide = head.members(*given_)
    assert not torch.equal(fine, wide)
    mean = (fine.softmax(dim=1) + wide.softmax(dim=1)) / 2
    assert_close(head(*given_).softmax(dim=1), mean)


def test_each_member_is_the_sum_of_its_parts():
    head, (features, size_px, detail) = fused(), inputs(32, 48)
    mask = torch.ones(1, 1, *size_px, dtype=torch.float64)
    fine, wide = head.members(features, size_px, detail)
    sums = [
        part.tokens(features, size_px) + part.classify(part.pixels(detail.pixels, mask))
        for part in (head.fine, head.wide)
    ]
    assert_close(fine, sums[0])
    assert_close(wide, sums[1] + head.context(detail.pixels, mask))


def test_folded_batch_norms_are_those_of_pytorch():
    layer = fused().wide.pixels.layers[0]
    pixels = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    mask = torch.ones(2, 1, 9, 11, dtype=torch.float64)
    assert_close(layer(pixels, mask), functional.gelu(layer.norm(layer.conv(pixels))))


def test_means_and_deviations_are_those_of_the_valid_pixels_of_a_cell():
    seen = []
    head = fused()
    head.context.cells.register_forward_hook(lambda _, given_, __: seen.append(given_))
    features, size_px, detail = inputs(8, 16)
    valid = torch.rand(1, 8, 16) > 0.6
    valid[:, :4, :4] = False
    head(features, size_px, Detail(detail.pixels, valid))
    moments, mask = seen[0]
    assert moments.shape == (1, 6, 2, 4)
    for row in range(2):
        for col in range(4):
            cell = slice(4 * row, 4 * row + 4), slice(4 * col, 4 * col + 4)
            values = detail.pixels[0][(slice(None), *cell)][:, valid[0][cell]]
            assert bool(mask[0, 0, row, col]) == bool(values.numel())
            expected = torch.zeros(6, dtype=torch.float64)
            if values.numel():
                deviation = (values.var(dim=1, unbiased=False) + 1e-4).sqrt()
                expected = torch.cat([values.mean(dim=1), deviation])
            assert_close(moments[0, :, row, col], expected)


@pytest.mark.parametrize("value", [0.0, 1e6])
def test_invalid_pixels_are_as_pixels_beyond_the_edge(value):
    head, (_, _, detail) = fused(), inputs(40, 64)
    valid = detail.valid.clone()
    valid[..., 48:] = False
    pixels = torch.where(valid[:, None], detail.pixels, value)
    mask = valid[:, None].double()
    cut = mask[..., :48]
    maps = head.wide.pixels(pixels * mask, mask)
    assert_close(maps[..., :48], head.wide.pixels(pixels[..., :48], cut))
    assert not maps[..., 48:].any()
    whole, beside = head.context(pixels * mask, mask), head.context(pixels[..., :48], cut)
    # Bilinear interpolation at the edge has the neighbour's 0 in place of a repeated value.
    assert_close(whole[..., :32], beside[..., :32])


@pytest.mark.parametrize("size_px", [(48, 48), (37, 50)])
def test_a_tile_without_missing_pixels_has_the_same_bytes_beside_one_with_some(size_px):
    head, (features, _, detail) = (
        fused(dtype=torch.float32),
        inputs(*size_px, batch=2, dtype=torch.float32),
    )
    complete = head(features, size_px, detail)
    valid = detail.valid.clone()
    valid[1, 5:9] = False
    beside = head(features, size_px, Detail(detail.pixels, valid))
    assert torch.equal(beside[0], complete[0])
    assert not torch.equal(beside[1], complete[1])


def test_a_tile_without_a_valid_pixel_gives_finite_logits():
    features, size_px, detail = inputs(20, 20)
    nothing = Detail(detail.pixels, torch.zeros_like(detail.valid))
    assert fused()(features, size_px, nothing).isfinite().all()


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_mirrored_input_gives_a_mirrored_result(axis):
    """Nothing is shifted, not even by half a pixel."""
    head = fused()
    with torch.no_grad():
        for module in head.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(axis)) / 2)
    features, size_px, detail = inputs(56, 112)
    mirrored = Detail(detail.pixels.flip(axis), detail.valid.flip(axis))
    assert_close(
        head(features.flip(axis), size_px, mirrored), head(features, size_px, detail).flip(axis)
    )


@pytest.mark.slow
def test_no_pixel_beyond_the_reach_matters():
    head, (features, size_px, detail) = fused(), inputs(128, 128)
    detail.pixels.requires_grad_()
    near = 0
    for at in range(60, 68):  # all phases of the coarsest cells
        (gradient,) = torch.autograd.grad(
            head(features, size_px, detail)[0, 0, at, at], detail.pixels
        )
        rows, cols = gradient[0].abs().sum(dim=0).nonzero().T
        near = max(near, int((rows - at).abs().max()), int((cols - at).abs().max()))
    assert near <= REACH_PX
    assert near > REACH_PX - 8


def test_dropout_acts_in_training_only():
    head, given_ = fused(), inputs(24, 24)
    assert torch.equal(head(*given_), head(*given_))
    head.train()
    assert not torch.equal(head.members(*given_)[1], head.members(*given_)[1])


def test_batch_norms_learn_their_statistics_in_training_only():
    head, given_ = fused(), inputs(24, 24, batch=2)
    before = head.wide.pixels.layers[0].norm.running_mean.clone()
    head(*given_)
    assert torch.equal(head.wide.pixels.layers[0].norm.running_mean, before)
    head.train()
    head(*given_)
    assert not torch.equal(head.wide.pixels.layers[0].norm.running_mean, before)


def test_few_weights_learn_much():
    count = sum(weight.numel() for weight in FusedHead(384, 4, bands=9).parameters())
    assert count < 85_000
