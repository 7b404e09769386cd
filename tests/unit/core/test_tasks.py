"""Tasks, the items of maps, and servers, as the scheduler knows them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from remote_executor.core.tasks import (
    BATCH_BYTES,
    HORIZON,
    MOST_BYTES,
    SHORT,
    Feed,
    Server,
    needed_by,
)


def feed_of(available, **options):
    feed = Feed(None, None, options.pop("chunksize", None))
    feed.available = available
    return feed


def test_a_chunksize_that_was_asked_for_is_obeyed_until_items_run_out():
    feed = feed_of(1000, chunksize=30)
    feed.measured(1, 10.0)

    assert feed.next_count(2) == 30
    feed.available = 7
    assert feed.next_count(2) == 7


def test_nothing_is_known_of_the_first_item():
    assert feed_of(1000).next_count(2) == 1


def test_a_batch_is_no_larger_than_its_bytes_allow():
    feed = feed_of(10_000)
    feed.measured(1000, 1e-3)
    feed.item_bytes = BATCH_BYTES / 10

    assert feed.next_count(1) == 10
    feed.item_bytes = 2 * BATCH_BYTES
    assert feed.next_count(1) == 1


def test_the_time_of_an_item_is_trusted_from_the_larger_batch():
    feed = Feed(None, None, None)
    feed.measured(1000, 0.1)
    assert feed.seconds == pytest.approx(1e-4)

    feed.measured(1, 0.01)  # one item costs more alone
    assert feed.seconds == pytest.approx(1.09e-3)
    feed.measured(250, 0.25)
    assert feed.seconds == pytest.approx(1.045e-3)


def test_a_server_has_room_for_as_much_as_the_horizon_and_no_more_bytes_than_that():
    server = Server("key", "a")
    assert server.room() == 0  # it is not up
    server.up, server.slots = True, 2

    server.measure()
    assert server.room() == 4
    server.seconds = HORIZON / 10
    server.measure()
    assert server.room() == 2 * (1 + 10)
    server.seconds = 2 * SHORT
    server.measure()
    assert server.room() == 2

    server.seconds = HORIZON / 10
    server.measure()
    server.bytes = MOST_BYTES
    assert server.room() > 0  # one task a slot in any case
    server.inflight = {1: None, 2: None}
    assert server.room() == 0


def test_a_server_that_drains_has_no_room():
    server = Server("key", "a")
    server.up, server.slots = True, 2
    server.measure()

    server.draining = True

    assert server.room() == 0


def test_tasks_need_their_functions_and_what_these_and_they_refer_to():
    plain = SimpleNamespace(number=1, parts=())
    large = SimpleNamespace(number=2, parts=(SimpleNamespace(number=3),))
    tasks = [
        SimpleNamespace(function=plain, blobs=()),
        SimpleNamespace(function=large, blobs=(SimpleNamespace(number=7),)),
        SimpleNamespace(function=None, blobs=(SimpleNamespace(number=8),)),
    ]

    assert needed_by(tasks) == {1, 2, 3, 7, 8}
