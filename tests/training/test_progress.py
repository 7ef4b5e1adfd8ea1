"""The bar of a training: it rises steadily to the end, however early a stage or the time ends."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from trainings import quick

from geodinoseg.training.budget import Budget, TrainingProgress
from geodinoseg.training.epochs import last_epoch, stalled

SETTINGS = {"epochs": 30, "steps_per_epoch": 20, "batch_size": 8, "cached_crops": 512}
CROPS = 64


class Training:
    """Calls the progress as a training does; an epoch's score is given, and work takes time."""

    def __init__(self, *, minutes=None, folds=1, **changes):
        self.now, self.told = 0.0, []
        self.settings = quick(minutes=minutes, **(SETTINGS | changes))
        self.budget = Budget(minutes, lambda: self.now)
        self.progress = TrainingProgress(self.settings, self.budget, self.tell, folds=folds)

    def tell(self, fraction, message):
        self.told.append((self.now, fraction))

    def cache(self, *, heads=1):
        self.progress.expect_validation(CROPS, heads=heads)
        for _ in range((self.settings.crops_to_cache + CROPS) // 8):
            self.now += 8
            self.progress.caching(8)

    def run(self, stage, *, best, until_s=math.inf, heads=1, step_s=None):
        """A stage whose scores rise until the best epoch, and fall from there on."""
        step_s = step_s or 8 * (0.05 if stage == "head" else 3)
        done, epochs = [], self.settings.epochs
        while len(done) < epochs and not stalled(done, epochs) and self.now < until_s:
            self.progress.expect_epochs(stage, last_epoch(done, epochs) - len(done))
            self.progress.begin_epoch(stage, len(done), epochs)
            for _ in range(heads * self.settings.steps_per_epoch):
                if self.now < until_s:
                    self.now += step_s
                    self.progress.step([0.5])
            if stage != "head":
                self.now += CROPS
                self.progress.validated(CROPS)
            done.append(SimpleNamespace(mean_iou=0.5 - 0.01 * abs(len(done) + 1 - best)))
        self.progress.expect_epochs(stage, 0)
        return len(done)

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


@pytest.mark.parametrize("best", [1, 3, 14, 30])
def test_the_bar_rises_steadily_although_stages_end_early(best):
    training = Training(stage="lora")
    training.cache()
    assert training.run("head", best=best) == min(30, best + 15)
    assert training.run("lora", best=best) == min(30, best + 15)
    training.check(training.report())


def test_the_time_left_is_right_from_the_first_to_the_last_epoch_if_none_is_left_out():
    training = Training(stage="lora")
    training.cache()
    training.run("head", best=30)
    training.run("lora", best=30)
    training.report()
    at = [(now, fraction) for now, fraction in training.told if 0.1 < fraction < 0.95]
    ends = [now / fraction for now, fraction in at]
    # It is expected to end early until it does not: the estimate rises to what it takes.
    assert max(ends) < 1.05 * training.now
    assert min(ends) > 0.5 * training.now


def test_a_stage_without_scores_is_expected_to_go_to_its_end():
    assert last_epoch([], 30) == 30
    assert last_epoch([SimpleNamespace(mean_iou=math.nan)] * 20, 30) == 30
    assert not stalled([SimpleNamespace(mean_iou=math.nan)] * 29, 30)


@pytest.mark.parametrize("minutes", [20, 60])
def test_with_a_time_limit_the_bar_keeps_to_it(minutes):
    """More work than there is time for: the bar is the clock, whatever is done."""
    training = Training(stage="lora", minutes=minutes)
    training.cache()
    training.run("head", best=30, until_s=20 * minutes)
    training.run("lora", best=30, until_s=56 * minutes, step_s=90)
    fractions = training.report()
    assert fractions[-1] > 0.9
    late = [(now, f) for now, f in training.told[:-1] if now > 0.5 * 60 * minutes]
    for now, fraction in late:
        assert fraction == pytest.approx(min(now / (60 * minutes), 0.99), abs=0.06)


def test_a_stage_two_that_few_places_do_not_allow_is_not_waited_for():
    training = Training(stage="lora", folds=5)
    training.cache(heads=5)
    done = training.run("head", best=4, heads=5)
    training.progress.expect_final_head(4)
    for epoch in range(4):
        training.progress.begin_epoch("head", epoch, 4)
        for _ in range(20):
            training.now += 0.4
            training.progress.step([0.5])
    assert done == 19
    training.check(training.report())


def test_a_resumed_training_begins_where_it_was():
    training = Training(stage="lora")
    training.progress.expect_validation(CROPS, heads=1)
    training.progress.skip_epochs("lora", 15)
    training.progress.expect_epochs("lora", 15)
    training.progress.begin_epoch("lora", 15, 30)
    training.progress.step([0.5])
    assert training.told[0][1] == pytest.approx(0.5, abs=0.03)
