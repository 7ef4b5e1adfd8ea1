"""Linked elements put in order, and sets joined: the linked lists of tracing, as whole arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

END = -1
"""The successor of an element that ends an open chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Elements in the order in which their successors visit them, one chain after the other."""

    order: NDArray[np.int32]
    """(elements,), each once; a ring starts at its smallest element, an open chain at its head."""
    offsets: NDArray[np.int64]
    """(chains + 1,): chain i is order[offsets[i] : offsets[i + 1]]."""
    closed: NDArray[np.bool_]
    """(chains,); True = a ring, False = an open chain."""

    def __len__(self) -> int:
        """Number of chains."""
        return len(self.closed)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Elements of each chain, (chains,)."""
        return np.diff(self.offsets)


def follow(successor: NDArray[np.int32]) -> Chains:
    """Put the elements of a successor array in order.

    From every local minimum (an element smaller than its predecessor and its successor) the chain
    is followed to the next one, all at once; the resulting stretches are elements again, about a
    third as many, and are put in order in the same way. Each element is visited once per level,
    so the work is linear; pointer doubling would multiply it by the logarithm of the longest ring.

    Args:
        successor: (elements,) the next element or END; at most one element leads to each.

    Returns:
        The chains, in ascending order of their first element at every level.
    """
    starts = _stretch_starts(successor)
    stretch_of, rank, lengths, ends_at = _walk(successor, starts)
    following = np.where(ends_at == END, END, stretch_of[ends_at]).astype(np.int32)
    single = (following == END) | (following == np.arange(len(starts), dtype=np.int32))
    if single.all():
        stretches = Chains(
            order=np.arange(len(starts), dtype=np.int32),
            offsets=np.arange(len(starts) + 1, dtype=np.int64),
            closed=following != END,
        )
    else:
        stretches = follow(following)
    bounds = offsets_of(lengths[stretches.order])
    place = np.empty(len(starts), dtype=np.int64)
    place[stretches.order] = bounds[:-1]
    order = np.empty(len(successor), dtype=np.int32)
    order[place[stretch_of] + rank] = np.arange(len(successor), dtype=np.int32)
    return Chains(order=order, offsets=bounds[stretches.offsets], closed=stretches.closed)


def connected_sets(
    count: int, first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """The set of each element after joining pairs.

    Args:
        count: number of elements.
        first: (pairs,) one element of each pair.
        second: (pairs,) the other.

    Returns:
        (count,) the smallest element of the element's set.
    """
    root = np.arange(count, dtype=np.int64)
    while len(first):
        low, high = np.minimum(root[first], root[second]), np.maximum(root[first], root[second])
        apart = low != high
        first, second = first[apart], second[apart]
        # Each higher root is attached to the lowest root that a pair offers, so no cycle can form.
        np.minimum.at(root, high[apart], low[apart])
        while not np.array_equal(further := root[root], root):
            root = further
    return root


def offsets_of(lengths: NDArray[np.integer[Any] | np.bool_]) -> NDArray[np.int64]:
    """Where ragged rows of these lengths start, and where the last one ends, (rows + 1,)."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ragged_range(
    starts: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """start, start + 1, ... for each row, one row after the other, (sum of lengths,)."""
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1], dtype=np.int64) + np.repeat(starts - offsets[:-1], lengths)


def _stretch_starts(successor: NDArray[np.int32]) -> NDArray[np.int32]:
    """Heads of open chains and local minima, ascending; every ring has at least one."""
    elements = np.arange(len(successor), dtype=np.int32)
    leads_on = successor != END
    has_predecessor = np.zeros(len(successor), dtype=bool)
    has_predecessor[successor[leads_on]] = True
    falls = leads_on & (successor <= elements)
    reached_falling = np.zeros(len(successor), dtype=bool)
    reached_falling[successor[falls]] = True
    # An element that ends its chain starts no stretch: it would stay one of its own forever.
    lowest = leads_on & reached_falling & (~falls | (successor == elements))
    return np.flatnonzero(lowest | ~has_predecessor).astype(np.int32)


def _walk(
    successor: NDArray[np.int32], starts: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Walk from all starts at once, each to the next start or to the end of its chain.

    Returns:
        Each element's stretch and rank in it, (elements,); each stretch's length and the start
        it arrives at, or END, (stretches,).
    """
    stretch_of = np.empty(len(successor), dtype=np.int32)
    rank = np.empty(len(successor), dtype=np.int32)
    lengths = np.empty(len(starts), dtype=np.int64)
    ends_at = np.empty(len(starts), dtype=np.int32)
    # The last element represents END, as index -1 reads it.
    stops = np.zeros(len(successor) + 1, dtype=bool)
    stops[starts] = True
    stops[END] = True
    current, walker, steps = starts, np.arange(len(starts), dtype=np.int32), 0
    while len(current):
        stretch_of[current] = walker
        rank[current] = steps
        steps += 1
        current = successor[current]
        stopped = stops[current]
        done = walker[stopped]
        lengths[done] = steps
        ends_at[done] = current[stopped]
        going = ~stopped
        current, walker = current[going], walker[going]
    return stretch_of, rank, lengths, ends_at
