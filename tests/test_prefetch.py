"""Work in a thread: items in order, errors where they belong, no thread left behind."""

from __future__ import annotations

import threading
from itertools import count, islice

import pytest

from geodinoseg.prefetch import prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "geodinoseg-background"]


def test_items_come_in_order():
    assert list(prefetch(lambda: (i for i in range(50)), ahead=2)) == list(range(50))
    assert not threads()


def test_an_error_is_raised_where_its_item_would_have_come():
    def items():
        yield 1
        raise ValueError("broken")

    taken = prefetch(items, ahead=5)
    assert next(taken) == 1
    with pytest.raises(ValueError, match="broken"):
        next(taken)
    assert not threads()


def test_an_error_before_the_first_item_is_raised_too():
    def refuse():
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        next(prefetch(refuse, ahead=1))
    assert not threads()


def test_whoever_stops_taking_stops_the_work_and_closes_it_in_its_thread():
    closed_by = []

    def items():
        try:
            yield from count()
        finally:
            closed_by.append(threading.current_thread().name)

    taken = prefetch(items, ahead=1)
    assert list(islice(taken, 3)) == [0, 1, 2]
    taken.close()
    assert closed_by == ["geodinoseg-background"]
    assert not threads()
