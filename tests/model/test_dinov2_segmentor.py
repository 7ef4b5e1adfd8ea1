from __future__ import annotations

import inspect

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from hypothesis import given, strategies as st
from model_fixtures import HIDDEN, KINDS, backbone_folder, randomize_lora, small_network
from torch.testing import assert_close

from geodinoseg.errors import ModelError
from geodinoseg.model.dinov2_segmentor import DinoV2Segmentor
from geodinoseg.model.heads import CnnHead, LinearHead
from geodinoseg.model.quantization import is_quantized, quantized_layers

METHOD = {
    "n_block": 4,
    "channels": 512,
    "k_size": 3,
    "linear_head": True,
    "n_features": 1,
    "quantize": True,
    "peft": True,
    "size": "base",
    "num_classes": 3,
    "activation": "relu",
    "r": 32,
    "lora_alpha": 32,
    "lora_dropout": 0.1,
}


def cnn(**settings):
    return small_network(linear_head=False, **settings)


def lora_modules(network):
    return [m for m in network.backbone.modules() if hasattr(m, "lora_A") and len(m.lora_A)]


def test_names_order_and_defaults_are_the_methods():
    parameters = inspect.signature(DinoV2Segmentor).parameters.values()
    positional = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert list(positional.items()) == list(METHOD.items())
    beyond = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert beyond == {
        "backbone": None,
        "bands": 3,
        "revision": None,
        "fused_head": False,
        "components": None,
        "rgb": None,
    }


def test_the_settings_hold_what_was_given():
    given_settings = METHOD | {"channels": 64, "peft": False, "quantize": False}
    assert DinoV2Segmentor(**given_settings, backbone=backbone_folder()).settings == given_settings


@pytest.mark.parametrize("n_block", [1, 2, 3, 4])
def test_n_block_is_the_number_of_blocks(n_block):
    assert len(cnn(n_block=n_block).head.blocks) == n_block


def test_channels_are_those_of_the_first_convolution():
    assert cnn(channels=48).head.enter.out_channels == 48


def test_k_size_is_that_of_every_convolution():
    sizes = {m.kernel_size for m in cnn(k_size=5).head.modules() if isinstance(m, torch.nn.Conv2d)}
    assert sizes == {(5, 5)}


def test_linear_head_chooses_the_head():
    assert isinstance(small_network(linear_head=True).head, LinearHead)
    assert isinstance(small_network(linear_head=False).head, CnnHead)


def test_n_features_widens_what_the_head_sees():
    assert small_network(n_features=2).head.norm.num_features == 2 * HIDDEN
    assert cnn(n_features=3).head.enter.in_channels == 3 * HIDDEN


def test_num_classes_is_the_number_of_logits():
    pixels = torch.zeros(1, 3, 14, 14)
    assert small_network(num_classes=7)(pixels).shape[1] == 7
    assert cnn(num_classes=7)(pixels).shape[1] == 7


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        ("relu", torch.nn.ReLU),
        ("leakyrelu", torch.nn.LeakyReLU),
        ("sigmoid", torch.nn.Sigmoid),
        ("tanh", torch.nn.Tanh),
    ],
)
def test_activation_is_that_of_the_whole_cnn_head(activation, kind):
    kinds = (torch.nn.ReLU, torch.nn.LeakyReLU, torch.nn.Sigmoid, torch.nn.Tanh)
    found = [m for m in cnn(activation=activation).head.modules() if isinstance(m, kinds)]
    assert len(found) == 2 * 4 + 1
    assert {type(m) for m in found} == {kind}


def test_lora_has_the_rank_scale_and_dropout_that_are_asked_for():
    network = small_network(peft=True, r=5, lora_alpha=3, lora_dropout=0.25)
    modules = lora_modules(network)
    # Query, key, value, output and the two layers of the MLP, in three transformer layers.
    assert len(modules) == 3 * 6
    for module in modules:
        assert module.lora_A["default"].out_features == 5
        assert module.scaling["default"] == pytest.approx(3 / 5**0.5)
        assert module.lora_dropout["default"].p == 0.25


def test_peft_trains_lora_and_the_head_alone():
    network = small_network(peft=True, r=2)
    trained = [n for n, p in network.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name or name.startswith("head.") for name in trained)
    assert all(p.requires_grad for p in small_network(peft=False).parameters())


def test_quantize_holds_the_linear_layers_in_4_bit():
    assert is_quantized(small_network(quantize=True).backbone)
    assert not is_quantized(small_network(quantize=False).backbone)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"n_block": 0}, "n_block=0: give a whole number of at least 1"),
        ({"channels": -4}, "channels=-4"),
        ({"channels": 512.0}, "channels=512.0"),
        ({"k_size": 2}, "k_size=2: give an odd number"),
        ({"k_size": 0}, "k_size=0"),
        ({"n_features": 0}, "n_features=0"),
        ({"n_features": True}, "n_features=True"),
        ({"n_features": 99}, "n_features=99: the backbone .* has 3 layers; give 1 to 3"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"num_classes": "3"}, "num_classes='3'"),
        ({"r": 0}, "r=0"),
        ({"lora_alpha": 0}, "lora_alpha=0"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0: give a fraction"),
        ({"lora_dropout": -0.1}, "lora_dropout=-0.1"),
        ({"lora_dropout": float("nan")}, "lora_dropout=nan"),
        ({"lora_dropout": "0.1"}, "lora_dropout='0.1'"),
        ({"linear_head": 1}, "linear_head=1: give True or False"),
        ({"quantize": None}, "quantize=None"),
        ({"peft": "yes"}, "peft='yes'"),
        ({"size": "giant"}, "size='giant': give one of small, base, large"),
        ({"activation": "gelu"}, "activation='gelu': give one of relu, leakyrelu"),
        ({"bands": 0}, "bands=0"),
        ({"linear_head": False, "channels": 24}, "channels=24: 2 pixel shuffles"),
    ],
)
def test_values_that_cannot_be_are_refused_with_a_sentence(bad, message):
    with pytest.raises(ModelError, match=message) as caught:
        small_network(**bad)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("shape", [(3, 14, 14), (1, 4, 14, 14), (1, 1, 3, 14, 14)])
def test_pixels_of_another_shape_are_refused(shape):
    with pytest.raises(ModelError, match=r"the network takes \(batch, 3 bands, height, width\)"):
        small_network()(torch.zeros(shape))


NETWORKS = {
    (kind, linear): small_network(backbone=backbone_folder(kind), linear_head=linear)
    for kind in ("dinov2", "dinov3")
    for linear in (True, False)
}


@given(
    height=st.integers(1, 75),
    width=st.integers(1, 75),
    kind=st.sampled_from(["dinov2", "dinov3"]),
    linear=st.booleans(),
)
def test_any_height_and_width_gives_logits_of_the_same_size(height, width, kind, linear):
    with torch.no_grad():
        logits = NETWORKS[kind, linear](torch.zeros(1, 3, height, width))
    assert logits.shape == (1, 3, height, width)
    assert logits.isfinite().all()


@pytest.mark.parametrize("linear", [True, False])
def test_padding_repeats_the_last_row_and_column(linear):
    network = small_network(linear_head=linear)
    pixels = torch.randn(1, 3, 37, 54)
    by_hand = torch.cat([pixels, pixels[..., -1:, :].expand(-1, -1, 5, -1)], dim=2)
    by_hand = torch.cat([by_hand, by_hand[..., -1:].expand(-1, -1, -1, 2)], dim=3)
    with torch.no_grad():
        assert_close(network(pixels), network(by_hand)[..., :37, :54])


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_lora_changes_nothing_at_its_start(kind, quantize):
    settings = {"backbone": backbone_folder(kind), "quantize": quantize}
    pixels = torch.randn(1, 3, 40, 50)
    with torch.no_grad():
        plain = small_network(**settings)
        adapted = small_network(**settings, peft=True, r=4)
        adapted.head.load_state_dict(plain.head.state_dict())
        assert_close(adapted(pixels), plain(pixels))


@pytest.mark.parametrize("kind", KINDS)
def test_merged_lora_gives_what_it_gave_beside_the_weights(kind):
    network = small_network(backbone=backbone_folder(kind), peft=True, r=4)
    start = torch.randn(1, 3, 40, 50)
    with torch.no_grad():
        before_lora = network(start)
        randomize_lora(network)
        beside = network(start)
        network.merge_lora()
        merged = network(start)
    assert not torch.allclose(beside, before_lora, atol=1e-2)
    assert_close(merged, beside, rtol=1e-4, atol=1e-4)
    assert not network.settings["peft"]
    assert network.backbone_differs_from_source
    assert not any("lora" in name for name, _ in network.named_parameters())
    weights = list(network.backbone.parameters())
    assert {w.dtype for w in weights} == {torch.float32}
    assert not any(w.requires_grad for w in weights)
    assert not any(module.training for module in network.modules())


def test_merging_is_nothing_without_lora_or_in_4_bit():
    plain = small_network()
    plain.merge_lora()
    assert not plain.backbone_differs_from_source
    packed = small_network(quantize=True, peft=True, r=2)
    packed.merge_lora()
    assert packed.settings["peft"]
    assert not packed.backbone_differs_from_source


def trained_once(network, pixels):
    network.train()
    network(pixels).square().mean().backward()
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_4_bit_trains_lora_and_head_and_nothing_else(kind):
    network = small_network(
        backbone=backbone_folder(kind), quantize=True, peft=True, r=4, lora_dropout=0.0
    )
    randomize_lora(network)  # at B = 0 the gradient of A is 0
    gradients = trained_once(network, torch.randn(2, 3, 48, 32))
    wanted = {n for n, _ in network.named_parameters() if "lora_" in n or n.startswith("head.")}
    assert set(gradients) == wanted
    # The last layer's features are normed: every LoRA layer before has its part in them.
    still = [n for n, g in gradients.items() if not g.isfinite().all() or not g.abs().max() > 0]
    assert still == []


def test_4_bit_gradients_are_those_of_the_same_weights_in_full_precision():
    pixels = torch.randn(2, 3, 28, 42)
    settings = {"peft": True, "r": 4, "lora_dropout": 0.0}
    packed, full = small_network(**settings, quantize=True), small_network(**settings)
    for layer in quantized_layers(packed.backbone):
        name = next(n for n, m in packed.backbone.named_modules() if m is layer)
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        full.backbone.get_submodule(name).weight.data.copy_(weight)
    randomize_lora(full)
    same = dict(full.named_parameters())
    for name, parameter in packed.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(same[name])
    gradients = []
    for network in (full, packed):
        trained = trained_once(network, pixels)
        gradients.append(torch.cat([trained[name].flatten() for name in sorted(trained)]))
    # bfloat16 arithmetic keeps 8 bits.
    assert torch.cosine_similarity(*gradients, dim=0) > 0.995


def test_4_bit_goes_on_training_after_a_validation_and_a_move():
    network = small_network(quantize=True, peft=True, r=2)
    pixels = torch.randn(1, 3, 28, 42)
    for _ in range(2):
        trained_once(network, pixels)
        network.eval()
        with torch.no_grad():
            before = network(pixels)
            network.to("cpu")
            assert_close(network(pixels), before)


def test_4_bit_in_use_is_close_to_4_bit_in_training():
    """Once nothing is trained, bitsandbytes may pack the weights for the CPU's own instructions."""
    network = small_network(quantize=True)
    pixels = torch.randn(2, 3, 28, 42)
    with torch.no_grad():
        trained = network(pixels)
        network.requires_grad_(requires_grad=False).eval()
        used = network(pixels)
    assert float((used - trained).abs().max()) < 0.05 * float(trained.std())


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_gradient(kind, peft):
    settings = {"backbone": backbone_folder(kind), "peft": peft, "r": 2, "lora_dropout": 0.0}
    pixels = torch.randn(1, 3, 32, 48)
    kept = trained_once(small_network(**settings), pixels)
    network = small_network(**settings)
    calls = []
    hook = network.base_backbone.get_submodule(_first_layer(network)).register_forward_hook(
        lambda *_: calls.append(1)
    )
    network.enable_gradient_checkpointing()
    computed_again = trained_once(network, pixels)
    hook.remove()
    assert len(calls) == 2
    assert kept.keys() == computed_again.keys()
    for name, gradient in kept.items():
        assert_close(computed_again[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def _first_layer(network):
    """Name of a submodule within the first transformer layer."""
    return next(
        name for name, _ in network.base_backbone.named_modules() if name.endswith(".0.norm1")
    )
