from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import log_loss

from geodinoseg.labels.classes import IGNORE
from geodinoseg.training.choice import choose
from geodinoseg.training.comparison import BlockLosses, compared
from geodinoseg.training.history import EpochScore
from geodinoseg.training.optimizer import Scorer


def losses(means, pixels=None):
    pixels = np.full(len(means), 100.0) if pixels is None else np.array(pixels, dtype=float)
    return BlockLosses(sums=np.array(means) * pixels, pixels=pixels)


def score(stage, means):
    return EpochScore(
        epoch=1,
        stage=stage,
        train_loss=1.0,
        val_loss=1.0,
        accuracy=None,
        losses=None if means is None else losses(means),
    )


def test_the_log_loss_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    logits = torch.from_numpy(rng.normal(size=(3, 4, 6, 5)))
    labels = torch.from_numpy(rng.integers(-1, 4, (3, 6, 5)))
    labels[labels < 0] = IGNORE
    scorer = Scorer(4, blocks=7)
    scorer.add(logits[:2], labels[:2], [5, 2])
    scorer.add(logits[2:], labels[2:], [5])
    known = labels != IGNORE
    probabilities = logits.softmax(dim=1).movedim(1, -1)[known]
    found = scorer.losses
    assert_allclose(found.mean, log_loss(labels[known], probabilities, labels=range(4)))
    assert found.pixels.tolist() == [int(known[1].sum()), int(known[[0, 2]].sum())]


def test_without_a_batch_there_is_no_log_loss():
    assert Scorer(2, blocks=0).losses is None


@given(
    new=st.lists(st.floats(0, 5), min_size=2, max_size=12),
    seed=st.integers(0, 99),
)
def test_gains_are_antisymmetric_and_of_all_pixels(new, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 900, len(new))
    ours, theirs = losses(new, pixels), losses(rng.uniform(0, 5, len(new)), pixels)
    there, back = compared(ours, theirs), compared(theirs, ours)
    assert_allclose(there.gain, theirs.mean - ours.mean, atol=1e-9)
    assert_allclose(there.gain, -back.gain, atol=1e-9)
    assert_allclose(there.standard_error, back.standard_error, atol=1e-9)
    assert not (there.is_clear and back.is_clear)


def test_the_standard_error_is_that_of_the_mean_of_equal_blocks():
    differences = np.random.default_rng(1).normal(0.1, 0.3, 50)
    found = compared(losses(1 - differences), losses(np.ones(50)))
    assert_allclose(found.standard_error, differences.std() / np.sqrt(50), rtol=0.1)
    assert found.blocks == 50


def test_a_gain_in_every_block_is_clear_and_one_in_some_is_not():
    assert compared(losses([0.4, 0.5, 0.6]), losses([0.5, 0.6, 0.7])).is_clear
    assert not compared(losses([0.1, 0.9, 0.6]), losses([0.9, 0.2, 0.6])).is_clear
    assert not compared(losses([0.5, 0.5]), losses([0.5, 0.5])).is_clear


@pytest.mark.parametrize(
    ("fused", "lora", "kept"),
    [
        ([0.3, 0.4], [0.2, 0.3], "lora"),
        ([0.3, 0.4], [0.1, 0.7], "fused"),
        ([0.9, 0.9], [0.3, 0.3], "lora"),
        ([0.9, 0.9], [0.9, 0.9], "head"),
    ],
)
def test_the_simpler_stage_is_kept_unless_another_is_clearly_better(fused, lora, kept):
    scores = [score("head", [0.5, 0.6]), score("fused", fused), score("lora", lora)]
    chosen, reason = choose(scores)
    assert chosen.stage == kept
    assert reason.count("standard error") == 2
    assert "the linear head 0.550" in reason


def test_without_validation_the_last_stage_is_kept():
    chosen, reason = choose([score("head", None), score("fused", None)])
    assert (chosen.stage, reason) == ("fused", "the fused head is kept")


def test_a_single_stage_is_said_to_be_all_there_was():
    assert choose([score("head", [0.5])])[1] == "the head alone was trained"


@pytest.mark.parametrize(
    ("further", "lora", "kept"),
    [
        ([0.5, 0.6], [0.3, 0.4], "lora"),  # clearly better than both
        ([0.3, 0.4], [0.3, 0.4], "further"),  # no better than as many steps of the head
        ([0.3, 0.4], [0.2, 0.5], "further"),  # better in one block alone
        ([0.9, 1.0], [0.7, 0.8], "head"),  # better than the further steps, which were harmful
        ([0.9, 1.0], [0.4, 0.5], "lora"),
        ([0.5, 0.6], [0.5, 0.6], "head"),
    ],
)
def test_stage_two_must_beat_the_head_before_and_after_as_many_further_steps(further, lora, kept):
    scores = [score("head", [0.5, 0.6]), score("further", further), score("lora", lora)]
    chosen, reason = choose(scores)
    assert chosen.stage == kept
    assert reason.startswith("the head with as many further steps is ")
    assert ("LoRA is kept" in reason) == (kept == "lora")


def test_the_sentence_names_the_stronger_rival_with_its_numbers():
    scores = [
        score("head", [0.9, 0.9]),
        score("fused", [0.5, 0.6]),
        score("further", [0.48, 0.56]),
        score("lora", [0.505, 0.605]),
    ]
    chosen, reason = choose(scores)
    assert chosen.stage == "further"
    assert reason == (
        "the fused head is kept: log loss 0.550 on 2 validation blocks, the linear head 0.900 "
        "(gain +0.350, standard error 0.034); the fused head with as many further steps is kept: "
        "log loss 0.520 on 2 validation blocks, the fused head 0.550 (gain +0.030, standard error "
        "0.007); LoRA is not kept: log loss 0.555 on 2 validation blocks, the fused head with as "
        "many further steps 0.520 (gain -0.035, standard error 0.007)"
    )
