"""Which units of labelled land are held out: about a share of each class, or each once in folds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 3
"""Times that each unit is looked at; the second and third only polish."""
_STARTS, _MANY_UNITS = 8, 500
"""Random orders that are tried; one will do where units are many."""
_MOST_OF_A_CLASS = 0.5
"""That is held out to come close to the wanted share."""
_MOST_OF_A_RARE_CLASS = 0.75
"""That is held out where a class would not be checked at all otherwise."""


def held_out_units(counts: NDArray[np.int64], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Choose units for validation so that every class has about its share of pixels there.

    Units are taken in a random order where that brings the classes closer to their shares, and
    given back in later rounds where that does; never is more than half of a class taken so. Then
    a class that got nothing gets the unit that takes least of the others, as long as a quarter of
    each class stays. The best of several orders counts.

    Args:
        counts: (units, classes) labelled pixels.
        share: share of each class's pixels to hold out, 0 to 0.5.
        seed: of the random orders.

    Returns:
        (units,) bool, True for validation.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    shares = counts / totals
    rng = np.random.default_rng(seed)
    best, best_rank = np.zeros(len(counts), dtype=np.bool_), (np.inf, np.inf)
    for _ in range(_STARTS if len(counts) <= _MANY_UNITS else 1):
        chosen = _with_rare_classes(shares, _near_share(shares, share, rng), share)
        taken = shares[chosen].sum(axis=0)
        missing = int(((taken == 0) & (shares.sum(axis=0) > 0)).sum()) if share else 0
        rank = (missing, _distance(taken, share))
        if rank < best_rank:
            best, best_rank = chosen, rank
    return best


def fold_of_units(counts: NDArray[np.int64], *, most: int, seed: int) -> NDArray[np.int64]:
    """Sort units into folds of about the same pixels of each class.

    A unit that alone has a class stays in training always, and so does one that would leave a
    class without training pixels in whatever fold it is.

    Args:
        counts: (units, classes) labelled pixels.
        most: of folds; as many as there are units where these are fewer.
        seed: of the order in which units of one size come.

    Returns:
        (units,) fold from 0; -1 where a unit is never held out.
    """
    totals = counts.sum(axis=0)
    shares = counts / np.maximum(totals, 1)
    may = ~((counts == totals) & (counts > 0)).any(axis=1)
    folds = np.full(len(counts), -1, dtype=np.int64)
    number = min(most, int(may.sum()))
    held = np.zeros((number, counts.shape[1]), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(may))
    order = order[np.argsort(-shares[order].sum(axis=1), kind="stable")]
    for unit in order.tolist():
        leaves = ((held + counts[unit] < totals) | (counts[unit] == 0)).all(axis=1)
        if not leaves.any():
            continue
        # What the sum of squares grows by; of equals the fold with fewest units.
        growth = (held / np.maximum(totals, 1)) @ shares[unit]
        members = np.bincount(folds[folds >= 0], minlength=number)
        keys = np.lexsort((members, growth, ~leaves))
        folds[unit] = keys[0]
        held[keys[0]] += counts[unit]
    return renumbered(folds)


def renumbered(folds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same folds without gaps in their numbers; what is below 0 stays."""
    kept = np.unique(folds[folds >= 0])
    return np.where(folds >= 0, np.searchsorted(kept, folds), folds)


def _near_share(
    shares: NDArray[np.float64], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    taken = np.zeros(shares.shape[1], dtype=np.float64)
    chosen = np.zeros(len(shares), dtype=np.bool_)
    for unit in np.tile(rng.permutation(len(shares)), _ROUNDS).tolist():
        after = taken - shares[unit] if chosen[unit] else taken + shares[unit]
        allowed = (after <= _MOST_OF_A_CLASS + 1e-9).all()
        if allowed and _distance(after, share) < _distance(taken, share):
            taken = after
            chosen[unit] = not chosen[unit]
    return chosen


def _with_rare_classes(
    shares: NDArray[np.float64], chosen: NDArray[np.bool_], share: float
) -> NDArray[np.bool_]:
    if not share:
        return chosen
    chosen = chosen.copy()
    for channel in range(shares.shape[1]):
        holders = np.flatnonzero((shares[:, channel] > 0) & ~chosen)
        if not len(holders) or (shares[chosen, channel] > 0).any():
            continue
        after = (shares[chosen].sum(axis=0) + shares[holders]).max(axis=1)
        if after.min() <= _MOST_OF_A_RARE_CLASS:
            chosen[holders[after.argmin()]] = True
    return chosen


def _distance(taken: NDArray[np.float64], share: float) -> float:
    """From what is wanted: squares, so that no class is far off for the others' sake."""
    return float(((taken - share) ** 2).sum())
