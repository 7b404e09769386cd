"""The loop: descriptors, timers, posts and wake-ups. The pipes are real; nothing here waits."""

from __future__ import annotations

import os
import select
import threading

import pytest

from remote_executor.net.loop import Loop
from tests.support.scale import scaled

LIMIT = scaled(10.0)
"""When a wait gives up that should have been ended by something else."""


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.fixture
def calls():
    return []


# ---------------------------------------------------------------------------- descriptors


def test_a_readable_descriptor_calls_its_reader(loop, pipe, calls):
    read, write = pipe
    loop.watch(read, lambda: calls.append(os.read(read, 10)))
    os.write(write, b"x")

    loop.run_once(LIMIT)
    loop.run_once(0)

    assert calls == [b"x"]


def test_a_writable_descriptor_calls_its_writer_only_if_wanted(loop, pipe, calls):
    _, write = pipe
    loop.watch(write, lambda: calls.append("read"), lambda: calls.append("write"))

    loop.run_once(0)
    loop.want(write, read=False, write=True)
    loop.run_once(LIMIT)
    loop.want(write, read=False)
    loop.run_once(0)
    loop.want(write, read=False, write=True)
    loop.run_once(LIMIT)

    assert calls == ["write", "write"]


def test_writing_comes_before_reading(loop, calls):
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        loop.watch(ours.fileno(), lambda: calls.append("read"), lambda: calls.append("write"))
        loop.want(ours.fileno(), write=True)
        loop.want(ours.fileno(), write=True)  # twice is no change

        loop.run_once(LIMIT)
        loop.forget(ours.fileno())

    assert calls == ["write", "read"]


def test_nothing_wanted_means_not_even_a_hang_up_is_seen(loop, calls):
    read, write = os.pipe()
    loop.watch(read, lambda: calls.append("read"))
    loop.want(read, read=False)
    loop.want(read, read=False)
    os.close(write)

    loop.run_once(0)
    assert calls == []
    loop.want(read)
    loop.run_once(LIMIT)
    loop.forget(read)
    os.close(read)

    assert calls == ["read"]


def test_a_paused_descriptor_can_be_forgotten(loop, pipe, calls):
    read, write = pipe
    loop.watch(read, lambda: calls.append("read"))
    loop.want(read, read=False)
    os.write(write, b"x")

    loop.forget(read)
    loop.run_once(0)
    loop.watch(read, lambda: calls.append("again"))
    loop.run_once(LIMIT)

    assert calls == ["again"]


def test_a_forgotten_descriptor_is_not_watched(loop, pipe, calls):
    read, write = pipe
    loop.watch(read, lambda: calls.append("read"))
    os.write(write, b"x")

    loop.forget(read)
    loop.run_once(0)

    assert calls == []


def test_a_writer_that_nobody_gave_is_not_called(loop, pipe, calls):
    _, write = pipe
    loop.watch(write, lambda: calls.append("read"))
    loop.want(write, read=False, write=True)

    loop.run_once(LIMIT)

    assert calls == []


def test_waiting_and_calling_are_two_steps(loop, pipe, calls):
    read, write = pipe
    loop.watch(read, lambda: calls.append("read"))
    os.write(write, b"x")

    ready = loop.poll(LIMIT)
    assert calls == []
    loop.dispatch(ready)

    assert calls == ["read"]


# --------------------------------------------------------------------------------- timers


def test_a_timer_calls_back_once_with_the_time(loop, calls):
    timer = loop.timer(calls.append)
    timer.at(loop.now)

    loop.run_once(LIMIT)
    loop.run_once(0)

    assert calls == [loop.now] or calls[0] <= loop.now
    assert len(calls) == 1
    assert timer.when is None


def test_a_timer_ends_a_wait(loop, calls):
    loop.timer(calls.append).at(loop.now + 0.01)

    while not calls:
        loop.run_once(LIMIT)

    assert calls[0] <= loop.now


def test_a_wait_ends_before_a_later_timer(loop, calls):
    loop.timer(calls.append).at(loop.now + 3600)

    loop.run_once(0)

    assert calls == []


def test_timers_call_back_in_the_order_of_their_times(loop, calls):
    for offset in (0.3, 0.1, 0.2):
        loop.timer(lambda now, offset=offset: calls.append(offset)).at(loop.now - 1 + offset)

    loop.run_once(LIMIT)

    assert calls == [0.1, 0.2, 0.3]


def test_timers_of_one_time_call_back_in_the_order_they_were_set(loop, calls):
    when = loop.now
    for name in "abc":
        loop.timer(lambda now, name=name: calls.append(name)).at(when)

    loop.run_once(LIMIT)

    assert calls == ["a", "b", "c"]


def test_a_timer_can_be_unset(loop, calls):
    timer = loop.timer(calls.append)
    timer.at(loop.now)
    timer.at(None)

    loop.run_once(LIMIT)

    assert calls == []


def test_a_timer_can_be_set_later(loop, calls):
    timer = loop.timer(calls.append)
    timer.at(loop.now)
    timer.at(loop.now + 3600)

    loop.run_once(LIMIT)
    loop.run_once(0)
    assert calls == []
    timer.at(loop.now)
    loop.run_once(LIMIT)

    assert len(calls) == 1


def test_a_timer_can_be_set_earlier(loop, calls):
    timer = loop.timer(calls.append)
    timer.at(loop.now + 3600)
    timer.at(loop.now)

    loop.run_once(LIMIT)

    assert len(calls) == 1


def test_a_timer_set_often_calls_back_once(loop, calls):
    timer = loop.timer(calls.append)
    for offset in (-1, -3, -2, -4, -1):
        timer.at(loop.now + offset)

    loop.run_once(LIMIT)
    loop.run_once(0)

    assert len(calls) == 1


def test_a_timer_may_set_itself_again(loop, calls):
    def again(now):
        calls.append(now)
        if len(calls) < 3:
            timer.at(now)

    timer = loop.timer(again)
    timer.at(loop.now)

    for _ in range(3):
        loop.run_once(LIMIT)

    assert len(calls) == 3


def test_a_timer_that_is_always_due_does_not_keep_the_loop_from_the_rest(loop, pipe, calls):
    read, write = pipe
    loop.watch(read, lambda: calls.append(os.read(read, 1)))
    timer = loop.timer(lambda now: timer.at(now))
    timer.at(loop.now)
    loop.run_once(LIMIT)
    os.write(write, b"x")

    loop.run_once(LIMIT)

    assert calls == [b"x"]


# ---------------------------------------------------------------------------------- posts


def test_posts_are_called_in_order(loop, calls):
    for number in range(3):
        loop.post(lambda number=number: calls.append(number))

    loop.run_once(LIMIT)

    assert calls == [0, 1, 2]


def test_a_post_of_a_post_waits_for_the_next_round_which_does_not_wait(loop, calls):
    loop.post(lambda: loop.post(lambda: calls.append("second")))

    loop.run_once(LIMIT)
    assert calls == []
    loop.run_once(LIMIT)

    assert calls == ["second"]


def test_descriptors_come_before_timers_and_timers_before_posts(loop, pipe, calls):
    read, write = pipe
    loop.post(lambda: calls.append("post"))
    loop.timer(lambda now: calls.append("timer")).at(loop.now)
    loop.watch(read, lambda: calls.append("read"))
    os.write(write, b"x")

    loop.run_once(LIMIT)

    assert calls == ["read", "timer", "post"]


def test_a_full_inbox_means_no_wait(loop):
    assert loop.poll(LIMIT, ["something came while nobody waited"]) == []


def test_a_post_from_another_thread_ends_the_wait(loop, calls):
    def post():
        while not loop.asleep:
            pass
        loop.post(lambda: calls.append(threading.get_ident()))

    thread = threading.Thread(target=post)
    thread.start()
    while not calls:
        loop.run_once(LIMIT)
    thread.join()

    assert calls == [threading.get_ident()]
    assert not loop.asleep


def test_a_wake_up_ends_the_next_wait_and_no_more(loop):
    loop.wake()
    loop.wake()

    assert len(loop.poll(LIMIT)) == 1
    loop.run_once(LIMIT)
    assert loop.poll(0) == []


def test_wake_ups_may_come_in_any_number(loop):
    for _ in range(100_000):  # more than a pipe holds
        loop.wake()

    loop.run_once(LIMIT)

    assert loop.poll(0) == []


def test_a_drained_wake_up_is_no_harm(loop):
    loop.wake()
    ready = loop.poll(LIMIT)

    loop.dispatch(ready)
    loop.dispatch(ready)


# ------------------------------------------------------------------------------------ end


def test_closing_gives_back_the_descriptors():
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    loop = Loop()

    loop.close()
    loop.close()

    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_closed_loop_writes_to_no_descriptor_that_took_the_place_of_its_own():
    loop = Loop()
    loop.close()
    read, write = os.pipe()  # as a rule of the same numbers
    os.set_blocking(read, False)

    loop.wake()
    loop.post(lambda: None)

    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    os.close(read)
    os.close(write)


# --------------------------------------------------------------------------------- naps


def test_a_nap_is_not_ended_by_descriptors_but_they_can_be_looked_at(loop, pipe, calls):
    read, write = pipe
    loop.watch(read, lambda: calls.append(os.read(read, 10)))
    os.write(write, b"x")

    assert not loop.nap(0.001)
    assert loop.look(LIMIT) == [(read, 1)]
    assert calls == []
    loop.run_once(LIMIT)
    assert calls == [b"x"]


def test_a_nap_ends_by_a_wake_up_which_whoever_looks_sees_too(loop):
    threading.Timer(0.01, loop.wake).start()

    assert loop.nap(LIMIT)
    assert len(loop.look(LIMIT)) == 1
    loop.run_once(LIMIT)
    assert not loop.nap(0)
    assert loop.look(0) == []


def test_a_nap_ends_for_a_post(loop, calls):
    loop.post(lambda: calls.append(1))

    assert loop.nap(LIMIT)
    loop.run_once(LIMIT)
    assert calls == [1]


def test_a_nap_ends_when_a_timer_is_due(loop, calls):
    timer = loop.timer(calls.append)
    timer.at(loop.now + 0.005)

    assert loop.nap(LIMIT)
    loop.run_once(LIMIT)
    assert len(calls) == 1


def test_a_closed_loop_shows_nothing():
    loop = Loop()
    assert loop.can_be_shared == hasattr(select, "epoll")
    loop.close()

    assert loop.look(0) == []
