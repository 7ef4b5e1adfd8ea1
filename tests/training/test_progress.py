"""The bar of a training: it rises steadily to the end, however early the time ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from trainings import quick

from geodinoseg.training.budget import Budget, TrainingProgress

SETTINGS = {"epochs": 30, "steps_per_epoch": 20, "batch_size": 8, "cached_crops": 512}
CROPS = 64
HEADS = ("head", "fused")
STAGES = (*HEADS, "further", "lora")
WORK = {"head": 0.05, "fused": 0.5, "further": 0.5, "lora": 3.0}


class Training:
    """Calls the progress as a training does, and work takes time."""

    def __init__(self, *, minutes=None, folds=1, **changes):
        self.now, self.told, self.folds = 0.0, [], folds
        self.settings = quick(minutes=minutes, **(SETTINGS | changes))
        self.budget = Budget(minutes, lambda: self.now)
        self.progress = TrainingProgress(
            self.settings, self.budget, self.tell, heads=HEADS, folds=folds
        )

    def tell(self, fraction, message):
        self.told.append((self.now, fraction))

    def cache(self):
        self.progress.expect_validation(CROPS)
        for _ in range((self.settings.crops_to_cache + CROPS) // 8):
            self.now += 8
            self.progress.caching(8)

    def run(self, stage, *, until_s=math.inf, heads=1, step_s=None, is_final=False):
        """A stage, as long as there is time."""
        step_s = step_s or 8 * WORK[stage]
        epochs = self.settings.epochs // heads
        for epoch in range(epochs):
            if self.now >= until_s:
                break
            self.progress.begin_epoch(stage, epoch, epochs, is_final=is_final)
            for _ in range(heads * self.settings.steps_per_epoch):
                if self.now < until_s:
                    self.now += step_s
                    self.progress.step([0.5])
            if stage == "lora":
                self.now += CROPS
                self.progress.validated(CROPS)

    def report(self):
        for _ in range(CROPS):
            self.now += 1
            self.progress.reported(1)
        fractions = np.array([fraction for _, fraction in self.told])
        self.progress.finish()
        return fractions

    def check(self, fractions, *, largest_step=0.03):
        steps = np.diff(fractions, prepend=0)
        assert (steps >= 0).all()
        assert steps.max() < largest_step
        assert fractions[-1] > 0.98, "so that the end is no jump either"
        assert self.told[-1][1] == 1


@pytest.mark.parametrize("kept", ["fused", "lora"])
def test_the_bar_rises_steadily_whichever_stage_is_kept(kept):
    training = Training(stage="lora")
    training.cache()
    for stage in STAGES:
        training.run(stage)
    if kept == "fused":
        training.run("fused", is_final=True)
    training.check(training.report())


def test_the_time_left_is_right_from_the_first_to_the_last_epoch():
    training = Training(stage="lora")
    training.cache()
    for stage in STAGES:
        training.run(stage)
    training.run("fused", is_final=True)
    training.report()
    ends = [now / fraction for now, fraction in training.told if 0.1 < fraction < 0.95]
    assert max(ends) < 1.05 * training.now
    assert min(ends) > 0.95 * training.now


@pytest.mark.parametrize("minutes", [20, 60])
def test_with_a_time_limit_the_bar_keeps_to_it(minutes):
    """More work than there is time for: the bar is the clock, whatever is done."""
    training = Training(stage="lora", minutes=minutes)
    training.cache()
    for stage in (*HEADS, "further"):
        training.run(stage, until_s=20 * minutes)
    training.run("lora", until_s=56 * minutes, step_s=90)
    fractions = training.report()
    assert fractions[-1] > 0.9
    late = [(now, f) for now, f in training.told[:-1] if now > 0.5 * 60 * minutes]
    for now, fraction in late:
        assert fraction == pytest.approx(min(now / (60 * minutes), 0.99), abs=0.06)


@pytest.mark.parametrize("kept", ["fused", "lora"])
def test_in_cross_validation_the_folds_share_the_epochs(kept):
    training = Training(stage="lora", folds=3)
    training.cache()
    for stage in STAGES:
        training.run(stage, heads=3)
    training.run("fused", is_final=True)
    if kept == "lora":
        training.run("lora", is_final=True)
    training.check(training.report())


def test_a_resumed_training_begins_where_it_was():
    training = Training(stage="lora")
    training.progress.expect_validation(CROPS)
    training.progress.skip_epochs("lora", 15)
    training.progress.begin_epoch("lora", 15, 30)
    training.progress.step([0.5])
    half, final = 15 * (20 * 8 * 3.0 + CROPS), 30 * 20 * 8 * 0.5
    assert training.told[0][1] == pytest.approx(half / (2 * half + final + CROPS), abs=0.01)


def test_further_steps_of_the_cheaper_head_take_less():
    training = Training(stage="lora")
    training.cache()
    for stage in HEADS:
        training.run(stage)
    training.progress.expect_further_steps("head")
    for stage, step_s in (("further", 8 * WORK["head"]), ("lora", None)):
        training.run(stage, step_s=step_s)
    training.run("head", is_final=True)
    training.check(training.report())
