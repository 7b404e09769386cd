"""The queue: priorities first, lanes in turn, each lane in order."""

from __future__ import annotations

import pytest

from remote_executor.core.queues import FairQueue


def queue_with(*entries):
    """Return a queue of (entry, priority, lane) triples."""
    queue = FairQueue()
    for entry in entries:
        queue.push(*entry)
    return queue


def drain(queue):
    return [queue.pop() for _ in range(len(queue))]


def test_an_empty_queue_has_nothing_to_give():
    queue = FairQueue()

    assert len(queue) == 0
    assert list(queue) == []
    with pytest.raises(IndexError):
        queue.pop()


def test_entries_of_one_lane_leave_in_the_order_they_came():
    queue = queue_with(*((number,) for number in range(5)))

    assert drain(queue) == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        queue.pop()


def test_lanes_take_turns_however_much_each_holds():
    queue = queue_with(*((f"a{n}", 0, "a") for n in range(4)), ("b0", 0, "b"), ("c0", 0, "c"))

    assert drain(queue) == ["a0", "b0", "c0", "a1", "a2", "a3"]


def test_a_lane_that_comes_late_waits_for_one_turn_only():
    queue = queue_with(*((f"a{n}", 0, "a") for n in range(3)), *((f"b{n}", 0, "b") for n in "01"))
    assert queue.pop() == "a0"

    queue.push("c0", 0, "c")

    assert drain(queue) == ["b0", "a1", "c0", "b1", "a2"]


def test_higher_priorities_go_first_whichever_lane_they_are_in():
    queue = queue_with(("low", -1, "a"), ("high", 1, "b"), ("normal", 0, "a"), ("highest", 7, "a"))

    assert drain(queue) == ["highest", "high", "normal", "low"]


def test_a_priority_that_ran_empty_is_found_again():
    queue = queue_with(("normal", 0, "a"), ("high", 1, "a"))
    assert queue.pop() == "high"

    queue.push("high again", 1, "a")

    assert drain(queue) == ["high again", "normal"]


def test_what_is_put_back_is_first_in_its_lane():
    queue = queue_with(("a0", 0, "a"), ("a1", 0, "a"), ("b0", 0, "b"))
    entry = queue.pop()

    queue.push_front(entry, 0, "a")

    assert drain(queue) == ["b0", "a0", "a1"]


def test_what_is_put_back_into_a_lane_that_ran_empty_is_not_lost():
    queue = queue_with(("a0", 0, "a"), ("b0", 0, "b"))
    assert queue.pop() == "a0"

    queue.push_front("a0", 0, "a")

    assert drain(queue) == ["b0", "a0"]


def test_a_lane_that_ran_empty_makes_room_for_others():
    queue = queue_with(("a0", 0, "a"))
    assert queue.pop() == "a0"

    queue.push("b0", 0, "b")
    queue.push("b1", 1, "b")
    queue.push("a1", 0, "a")

    assert drain(queue) == ["b1", "b0", "a1"]
    queue.push("c0", 5, "c")
    assert drain(queue) == ["c0"]


def test_all_that_waits_can_be_looked_at():
    queue = queue_with(("a0", 0, "a"), ("b0", 1, "b"), ("a1", 0, "a"))

    assert sorted(queue) == ["a0", "a1", "b0"]
    assert len(queue) == 3
