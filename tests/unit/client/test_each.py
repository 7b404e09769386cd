"""What becomes of the items of batches that have not gone well: pieces without gaps."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

from remote_executor.client.each import Each
from remote_executor.core.tasks import Feed, Task
from remote_executor.errors import PayloadError
from remote_executor.payload.failures import encode_failure
from remote_executor.retry import Retry
from remote_executor.task_errors import WorkerDied
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import EACH, Flag, Kind


class Sink:
    """A map that takes note of what it is told."""

    numbers = None

    def __init__(self):
        self.told = []

    def settled(self, first, count, values, failed):
        self.told.append(("settled", first, count, [value for _, value in values], failed))

    def broke(self, index, error):
        self.told.append(("broke", index, type(error).__name__))

    def again(self, task, index, count, seconds, retrying):
        tries = None if retrying is None else retrying.tries
        self.told.append(("again", task.first + index, count, seconds, tries))


DRIVER = SimpleNamespace(server_at=lambda place: place, libraries=list)


def batch(count, first=10):
    task = Task(1, None, None, None)
    task.sink = Sink()
    task.feed, task.first, task.count = Feed(task.sink, None, None), first, count
    task.items = list(range(count))
    return task


def failure(values, errors):
    """Return the frame of a batch of which some items have failed."""
    packed = [(index, *encode_failure(error)) for index, error in errors.items()]
    buffers = (pickle.dumps(packed), pickle.dumps(values))
    return make_frame(Kind.FAILURE, 1, packed[0][1], buffers, flags=int(Flag.BATCH | EACH))


def told(errors, retry, values, failures, count):
    task = batch(count)
    Each(task.sink, DRIVER, errors, retry).arrived(task, failure(values, failures), None, "node1")
    return task.sink.told


E = ValueError("x")


def test_returned_errors_are_among_the_values():
    ((what, first, count, values, failed),) = told("return", None, [0, 2], {1: E}, 3)

    assert (what, first, count, failed) == ("settled", 10, 3, {1})
    assert [values[0], type(values[1]), values[2]] == [0, ValueError, 2]
    assert "item 11 of task (1)" in values[1].__notes__[0]


def test_skipped_items_count_and_have_no_value():
    assert told("skip", None, [0, 2], {1: E}, 3) == [("settled", 10, 3, [0, 2], set())]
    assert told("skip", None, [], {0: E, 1: E}, 2) == [("settled", 10, 2, [], set())]


def test_what_is_tried_again_leaves_pieces_without_gaps():
    retry = Retry(1, wait=5)

    assert told("raise", retry, [0, 3, 5], {1: E, 2: E, 4: E}, 6) == [
        ("settled", 10, 1, [0], set()),
        ("settled", 13, 1, [3], set()),
        ("settled", 15, 1, [5], set()),
        ("again", 11, 2, 5.0, 1),
        ("again", 14, 1, 5.0, 1),
    ]


def test_what_has_failed_for_good_is_raised_at_its_turn():
    assert told("raise", Retry(0), [0, 2], {1: E}, 3) == [
        ("settled", 10, 1, [0], set()),
        ("broke", 11, "ValueError"),
        ("settled", 12, 1, [2], set()),
    ]


def test_what_the_worker_has_not_come_to_is_run():
    """As after an item that cannot be unpickled there."""
    ((_, _, count, _, _), later) = told("return", None, [0], {1: E}, 4)

    assert count == 2
    assert later == ("again", 12, 2, 0.0, None)


def test_a_batch_whose_worker_died_is_tried_item_by_item():
    task = batch(3)
    each = Each(task.sink, DRIVER, "raise", Retry(1, wait=0))
    each.failed(task, WorkerDied("node1", 7, 3, "t"), 7, "node1")

    assert task.sink.told == [("again", 10 + i, 1, 0.0, 1) for i in range(3)]


def test_errors_of_a_whole_batch_are_each_items_own():
    task = batch(2)
    Each(task.sink, DRIVER, "return", None).failed(task, WorkerDied("n", 7, 3, "t"), 7, "n")
    ((_, _, _, values, failed),) = task.sink.told

    assert values[0] is not values[1]
    assert failed == {0, 1}
    assert all("one of items 10 to 11" in each.__notes__[0] for each in values)


def test_a_batch_that_cannot_be_pickled_is_divided():
    task = batch(3)
    Each(task.sink, DRIVER, "skip", None).failed(task, PayloadError("x", "y"), None, "")

    assert task.sink.told == [("again", 10 + i, 1, 0.0, None) for i in range(3)]


class Broken:
    def __reduce__(self):
        return pickle.loads, (b"nonsense",)


@pytest.mark.parametrize("failures", [{}, {0: E}])
def test_a_value_that_cannot_be_unpickled_fails_alone(failures):
    task = batch(4)
    values = [0, Broken(), 2, 3][len(failures) :]
    each = Each(task.sink, DRIVER, "return", None)
    each.unloadable(task, ValueError("nonsense"), pickle.dumps(values), (), dict(failures))

    settled, *again = task.sink.told
    assert settled[1:3] == (10, 2)
    assert settled[4] == {*failures, 1}
    assert "the result for item 11 of a map" in str(settled[3][1])
    assert again == [("again", 12, 1, 0.0, None), ("again", 13, 1, 0.0, None)]
