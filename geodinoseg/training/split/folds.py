"""Which groups of blocks are held out: a fraction of each class for good, or each group once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 3
"""Times that each group is looked at; the second and third only polish."""
_STARTS, _MANY_GROUPS = 8, 500
"""Random orders that are tried; one will do where groups are many."""
_MOST_OF_A_CLASS = 0.5
"""Fraction that is held out to come close to the wanted one."""
_MOST_OF_A_RARE_CLASS = 0.75
"""Fraction that is held out where a class would not be checked at all otherwise."""


def held_out_groups(counts: NDArray[np.int64], *, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose groups for validation so that about the same fraction of every class is there.

    Groups are taken in a random order where that brings the classes closer to the fraction, and
    given back in later rounds where that does; never is more than half of a class taken so. Then
    a class that got nothing gets the group that takes least of the others, as long as a quarter of
    each class stays. The best of several orders counts.

    counts are (groups, classes) labelled pixels; the result is (groups,), True for validation.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    parts = counts / totals
    rng = np.random.default_rng(seed)
    best, best_rank = np.zeros(len(counts), dtype=np.bool_), (np.inf, np.inf)
    for _ in range(_STARTS if len(counts) <= _MANY_GROUPS else 1):
        chosen = _with_rare_classes(parts, _near_fraction(parts, fraction, rng), fraction)
        taken = parts[chosen].sum(axis=0)
        missing = int(((taken == 0) & (parts.sum(axis=0) > 0)).sum()) if fraction else 0
        rank = (missing, _distance(taken, fraction))
        if rank < best_rank:
            best, best_rank = chosen, rank
    return best


def folds_of_groups(counts: NDArray[np.int64], *, most: int, seed: int) -> NDArray[np.int64]:
    """Sort groups into folds of about the same pixels of each class.

    A group that alone has a class stays in training always, and so does one that would leave a
    class without training pixels in whatever fold it is.

    counts are (groups, classes) labelled pixels, most the number of folds; the result is
    (groups,) fold from 0, -1 where a group is never held out.
    """
    totals = counts.sum(axis=0)
    parts = counts / np.maximum(totals, 1)
    may = ~((counts == totals) & (counts > 0)).any(axis=1)
    folds = np.full(len(counts), -1, dtype=np.int64)
    number = min(most, int(may.sum()))
    held = np.zeros((number, counts.shape[1]), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(may))
    order = order[np.argsort(-parts[order].sum(axis=1), kind="stable")]
    for group in order.tolist():
        leaves = ((held + counts[group] < totals) | (counts[group] == 0)).all(axis=1)
        if not leaves.any():
            continue
        # What the sum of squares grows by; of equals the fold with fewest groups.
        growth = (held / np.maximum(totals, 1)) @ parts[group]
        members = np.bincount(folds[folds >= 0], minlength=number)
        keys = np.lexsort((members, growth, ~leaves))
        folds[group] = keys[0]
        held[keys[0]] += counts[group]
    return renumbered(folds)


def renumbered(folds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same folds without gaps in their numbers; what is below 0 stays."""
    kept = np.unique(folds[folds >= 0])
    return np.where(folds >= 0, np.searchsorted(kept, folds), folds)


def _near_fraction(
    parts: NDArray[np.float64], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    taken = np.zeros(parts.shape[1], dtype=np.float64)
    chosen = np.zeros(len(parts), dtype=np.bool_)
    for group in np.tile(rng.permutation(len(parts)), _ROUNDS).tolist():
        after = taken - parts[group] if chosen[group] else taken + parts[group]
        allowed = (after <= _MOST_OF_A_CLASS + 1e-9).all()
        if allowed and _distance(after, fraction) < _distance(taken, fraction):
            taken = after
            chosen[group] = not chosen[group]
    return chosen


def _with_rare_classes(
    parts: NDArray[np.float64], chosen: NDArray[np.bool_], fraction: float
) -> NDArray[np.bool_]:
    if not fraction:
        return chosen
    chosen = chosen.copy()
    for class_index in range(parts.shape[1]):
        holders = np.flatnonzero((parts[:, class_index] > 0) & ~chosen)
        if not len(holders) or (parts[chosen, class_index] > 0).any():
            continue
        after = (parts[chosen].sum(axis=0) + parts[holders]).max(axis=1)
        if after.min() <= _MOST_OF_A_RARE_CLASS:
            chosen[holders[after.argmin()]] = True
    return chosen


def _distance(taken: NDArray[np.float64], fraction: float) -> float:
    """Sum of squares, so that no class is far off for the others' sake."""
    return float(((taken - fraction) ** 2).sum())
