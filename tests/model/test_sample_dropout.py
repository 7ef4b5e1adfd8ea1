from __future__ import annotations

import pytest
import torch
from model_fixtures import randomize_lora, small_network
from torch.testing import assert_close

from geodinoseg.model.sample_dropout import DropoutSeed, SampleDropout, seed_dropout

VALUES = torch.randn(6, 31, 17, generator=torch.Generator().manual_seed(2))


def dropped(values, *, layer=0, p=0.3, **seed):
    dropout = SampleDropout(p, layer).train()
    dropout.seed = DropoutSeed(**({"seed": 1, "step": 2} | seed))
    return dropout(values)


def test_a_sample_has_the_same_mask_wherever_a_batch_is_cut():
    whole = dropped(VALUES)
    for cut in (1, 2, 5):
        parts = dropped(VALUES[:cut]), dropped(VALUES[cut:], first=cut)
        assert torch.equal(torch.cat(parts), whole)


def test_samples_steps_layers_and_seeds_have_masks_of_their_own():
    same = VALUES[:1].expand(2, -1, -1)
    masks = [dropped(same)[0], dropped(same)[1]]
    masks += [dropped(same, **other)[0] for other in ({"step": 3}, {"layer": 1}, {"seed": 5})]
    for index, mask in enumerate(masks):
        assert not any(torch.equal(mask, other) for other in masks[index + 1 :])


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_share_that_is_dropped_and_the_mean_are_those_of_dropout(p):
    ones = torch.ones(8, 200, 50)
    found = dropped(ones, p=p)
    assert_close(float((found == 0).float().mean()), p, atol=0.01, rtol=0)
    assert_close(found[found != 0], torch.full_like(found[found != 0], 1 / (1 - p)))


def test_in_evaluation_and_without_a_probability_nothing_is_dropped():
    assert torch.equal(dropped(VALUES, p=0.0), VALUES)
    assert torch.equal(SampleDropout(0.5, 0).eval()(VALUES), VALUES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_seed_it_is_the_dropout_of_torch(dtype):
    torch.manual_seed(3)
    found = SampleDropout(0.3, 0).train()(VALUES.to(dtype))
    torch.manual_seed(3)
    assert torch.equal(found, torch.nn.functional.dropout(VALUES.to(dtype), 0.3))
    assert dropped(VALUES.to(dtype)).dtype == dtype


@pytest.mark.parametrize("quantize", [False, True])
def test_every_lora_layer_of_a_network_takes_its_masks_from_the_seed(quantize):
    network = small_network(peft=True, r=4, quantize=quantize, lora_dropout=0.3)
    randomize_lora(network)
    layers = [m for m in network.modules() if isinstance(m, SampleDropout)]
    assert len(layers) == len([n for n, _ in network.named_parameters() if "lora_A" in n]) > 9
    assert not [m for m in network.backbone.modules() if type(m) is torch.nn.Dropout and m.p]
    network.train()
    pixels = torch.randn(3, 3, 28, 42)

    def features(step):
        seed_dropout(network, DropoutSeed(seed=0, step=step))
        with torch.no_grad():
            return network.features(pixels)

    assert torch.equal(features(1), features(1))
    assert not torch.equal(features(1), features(2))
