"""Promises, delays, futures and chains, on every engine."""

from __future__ import annotations

import asyncio
import pickle
import threading
import traceback
from concurrent.futures import CancelledError, Future, TimeoutError, as_completed, wait

import pytest

from remote_executor import CycleError
from remote_executor.parallel import (
    Chain,
    chain,
    delay,
    force,
    fulfill,
    fulfill_with,
    fulfilled,
    future,
    promise,
    speculate,
)
from tests.support import parallel_tasks as tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(30)
MAKERS = [future, speculate, delay]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def make(request, kernel):
    return request.param


# ------------------------------------------------------------------------ promises


def test_a_promise_is_fulfilled_once():
    """P1, P2."""
    one, two = promise(), promise()

    assert fulfill(one, 3)
    assert fulfill(two, 4)
    assert not fulfill(one, 5)

    assert force(one) + force(two) == 7
    assert one.result() == 3


def test_several_values_are_a_tuple(make):
    """P3."""
    box = promise()
    fulfill(box, (1, 2, 3))

    assert force(box) == (1, 2, 3)
    assert force(make(tuple, [1, 2, 3])) == (1, 2, 3)


def test_futures_are_the_standard_librarys(kernel):
    """P4, P13, P18: forced again and again, it is the same."""
    one, two = future(tasks.square, 3), speculate(tasks.square, 4)

    assert isinstance(one, Future)
    assert isinstance(two, Future)
    assert force(one) + force(two) == 25
    assert force(one) == force(one) == one.result() == 9


def test_a_future_is_fulfilled_by_itself(kernel):
    """P5."""
    each = future(abs, -1)

    wait_until(lambda: fulfilled(each), LIMIT)
    assert each.done()


def test_a_future_is_not_fulfilled_from_outside(kernel):
    """P6, P24: one that has not begun can be cancelled."""
    each = future(tasks.late, 0.1, "own")

    assert not fulfill(each, "other")
    assert force(each) == "own"
    assert not fulfill(each, "other")
    assert force(each) == "own"


def test_a_failed_future_is_final(kernel):
    """P21, P22: there are no restarts: nobody stores another value for those who force it."""
    found = future(tasks.fail, 1)
    error = found.exception(LIMIT)

    assert not fulfill(found, "another value")
    assert not found.cancel()
    for _ in range(2):
        with pytest.raises(ValueError, match="failed with 1") as caught:
            force(found)
        assert caught.value is error


def test_a_cancelled_future_never_runs(kernel, tmp_path):
    """P24."""
    busy = [future(tasks.late, 0.3, None) for _ in range(20)]
    mark = tmp_path / "ran"
    never = [future(tasks.touch, str(mark)) for _ in range(3)]

    assert all(each.cancel() for each in reversed(never))
    for each in reversed(busy):
        each.cancel()
    wait(busy, LIMIT)

    assert not mark.exists()


def test_a_failed_one_raises_at_every_force_and_its_traceback_does_not_grow(make):
    """P10, P18, P25: the body ran once."""
    failed = make(tasks.fail, 7)
    lengths = []
    for _ in range(4):
        with pytest.raises(ValueError, match="failed with 7") as caught:
            force(failed)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))

    assert lengths[1:] == lengths[:1] * 3


def test_a_promise_can_fail(kernel):
    box = promise()
    box.set_exception(KeyError("gone"))

    assert fulfilled(box)
    assert not fulfill(box, 1)
    for _ in range(2):
        with pytest.raises(KeyError, match="gone"):
            force(box)


def test_what_is_no_promise(kernel):
    """P26: it is fulfilled, it is its own value, and nothing is evaluated to fulfil it."""
    called = []
    for thing in (3, "text", None, [1], object()):
        assert fulfilled(thing)
        assert force(thing) is thing
        assert not fulfill_with(thing, lambda: called.append(1))
    assert called == []


def test_fulfill_with_computes_only_if_it_counts():
    called = []
    box = promise()

    assert fulfill_with(box, lambda: called.append(1) or "first")
    assert not fulfill_with(box, lambda: called.append(2))

    assert called == [1]
    assert force(box) == "first"


def test_while_one_fulfils_others_do_not():
    box = promise()
    inner = []

    assert fulfill_with(box, lambda: inner.append(fulfill(box, "inner")) or "outer")

    assert inner == [False]
    assert force(box) == "outer"


def test_a_fulfilment_that_fails_leaves_the_promise_open():
    box = promise()
    with pytest.raises(ZeroDivisionError):
        fulfill_with(box, lambda: 1 / 0)

    assert not fulfilled(box)
    assert fulfill(box, 1)


def test_only_one_of_many_threads_fulfils():
    for _ in range(50):
        box = promise()
        won = []
        start = threading.Barrier(4)

        def run(number, box=box, won=won, start=start):
            start.wait(LIMIT)
            if fulfill(box, number):
                won.append(number)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert won == [force(box)]


def test_many_wait_for_one_promise():
    """P17: none is done before it is fulfilled, all are afterwards. Here, not at a server."""
    box = promise()
    copies = [promise() for _ in range(100)]
    for each in copies:
        box.add_done_callback(lambda source, each=each: fulfill(each, source.result()))
    assert not any(map(fulfilled, copies))

    fulfill(box, 5)

    assert [force(each) for each in copies] == [5] * 100


def test_waiting_is_bounded_by_a_timeout_and_loses_nothing(kernel):
    box = promise()
    with pytest.raises(TimeoutError):
        force(box, timeout=0.01)
    with pytest.raises(TimeoutError):
        box.result(timeout=0.01)
    slow = future(tasks.late, 0.2, 1)
    with pytest.raises(TimeoutError):
        force(slow, timeout=0.01)

    fulfill(box, 2)
    assert force(box, timeout=0) == 2
    assert force(slow) == 1


def test_a_promise_in_wait_as_completed_and_asyncio():
    one, two = promise(), promise()
    fulfill(one, 1)
    assert wait([one, two], timeout=0).done == {one}
    timer = threading.Timer(0.05, fulfill, (two, 2))
    timer.start()

    assert [each.result() for each in as_completed([one, two], LIMIT)] == [1, 2]

    async def main():
        box = promise()
        asyncio.get_running_loop().call_later(0.01, fulfill, box, "from a loop")
        return await asyncio.wait_for(asyncio.wrap_future(box), LIMIT)

    assert asyncio.run(main()) == "from a loop"
    timer.join()


def test_a_cancelled_promise_is_not_fulfilled():
    box = promise()

    assert box.cancel()
    assert not fulfill(box, 1)


# -------------------------------------------------------------------------- delays


def test_a_delay_runs_once_at_force_in_the_caller():
    """P11, P18."""
    ran = []
    later = delay(lambda: ran.append(threading.get_ident()) or [1, 2, 3])
    assert not fulfilled(later)
    assert ran == []

    assert force(later) is force(later)

    assert ran == [threading.get_ident()]
    assert fulfilled(later)
    assert later.result() == [1, 2, 3]


def test_a_delay_can_be_fulfilled_instead():
    later = delay(lambda: 1 / 0)

    assert fulfill(later, "given")

    assert force(later) == "given"
    assert not fulfill(later, "again")


def test_two_threads_force_one_delay():
    started, go = threading.Event(), threading.Event()
    ran = []

    def body():
        ran.append(1)
        started.set()
        go.wait(LIMIT)
        return "once"

    later = delay(body)
    results = []
    threads = [threading.Thread(target=lambda: results.append(force(later))) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait(LIMIT)
    with pytest.raises(TimeoutError):
        force(later, timeout=0.01)
    go.set()
    for thread in threads:
        thread.join(LIMIT)

    assert results == ["once"] * 3
    assert ran == [1]


def test_a_delay_that_is_interrupted_can_be_forced_again():
    answers = [KeyboardInterrupt, 5]

    def body():
        answer = answers.pop(0)
        if answer is KeyboardInterrupt:
            raise answer
        return answer

    later = delay(body)
    with pytest.raises(KeyboardInterrupt):
        force(later)

    assert force(later) == 5


def test_a_delay_is_refused_where_nobody_would_force_it():
    later = delay(int)
    for use in (
        lambda: wait([later]),
        lambda: list(as_completed([later])),
        lambda: later.add_done_callback(print),
    ):
        with pytest.raises(TypeError, match="whoever forces it"):
            use()

    async def main():
        await asyncio.wrap_future(later)

    with pytest.raises(TypeError, match="whoever forces it"):
        asyncio.run(main())
    assert not later.cancel()
    assert not later.running()
    assert not later.cancelled()


def test_a_delay_of_nothing_callable():
    with pytest.raises(TypeError, match="callable"):
        delay(42)


# -------------------------------------------------------------------------- chains


def test_a_promise_hands_on_to_another(kernel):
    """P14."""
    box = promise()

    assert fulfill(box, chain(future(int, 5)))

    assert fulfilled(box)
    assert not fulfill(box, 6)
    assert force(box) == 5
    assert box.result() == 5


def test_fulfilling_a_chain_fulfils_what_it_holds():
    """P14."""
    box = promise()
    link = chain(chain(box))
    assert not fulfilled(link)

    assert fulfill(link, 3)

    assert fulfilled(link)
    assert force(link) == force(box) == 3
    assert not fulfill(link, 4)


def test_force_goes_through_chains_of_any_depth(kernel):
    """P15: of delays, futures and speculations, forced already or not."""
    for make in MAKERS:
        inner = make(tuple, (1, 2))
        thing = chain(inner)
        for _ in range(5):
            thing = chain(delay(chain, thing))
        assert force(thing) == (1, 2)
        assert force(thing) == (1, 2)
    deep = chain(7)
    for _ in range(10_000):
        deep = chain(deep)
    assert force(deep) == 7
    assert fulfilled(deep)


def test_a_promise_chained_to_a_delay_forces_it():
    box = promise()
    later = delay(lambda: "forced")
    fulfill(box, chain(later))
    assert not box.done()

    assert force(box) == "forced"
    assert box.done()


def test_who_waits_already_follows_the_chain_to_a_delay():
    box = promise()
    results = []
    thread = threading.Thread(target=lambda: results.append(force(box)))
    thread.start()

    fulfill(box, chain(delay(lambda: "forced by the one who waited")))
    thread.join(LIMIT)

    assert results == ["forced by the one who waited"]


def test_a_promise_chained_to_a_value_or_an_error(kernel):
    box, bad = promise(), promise()

    fulfill(box, chain(3))
    fulfill(bad, chain(future(tasks.fail, 1)))

    assert box.done()
    assert force(box) == 3
    with pytest.raises(ValueError, match="failed with 1"):
        force(bad)
    assert wait([bad], LIMIT).done == {bad}


def test_rings_are_errors_and_do_not_hang():
    one, two = promise(), promise()
    fulfill(one, chain(two))
    with pytest.raises(CycleError, match="2 promises"):
        fulfill(two, chain(one))
    alone = promise()
    with pytest.raises(CycleError, match="1 promise "):
        fulfill(alone, chain(alone))
    assert not fulfilled(alone)

    itself = delay(lambda: force(itself))
    with pytest.raises(CycleError, match="its own computation"):
        force(itself)

    a = delay(lambda: chain(b))
    b = delay(lambda: chain(a))
    with pytest.raises(CycleError, match="where they began"):
        force(a)


def test_two_delays_that_wait_for_each_other_in_two_threads():
    both = threading.Barrier(2)
    first = delay(lambda: (both.wait(LIMIT), force(second)))
    second = delay(lambda: (both.wait(LIMIT), force(first)))
    outcomes = []

    def run(thing):
        try:
            outcomes.append(force(thing))
        except CycleError:
            outcomes.append("cycle")

    threads = [threading.Thread(target=run, args=(thing,)) for thing in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)

    assert outcomes == ["cycle", "cycle"]


def test_a_future_chained_back_to_the_promise_that_waits_for_it():
    box = promise()
    source = Future()
    fulfill(box, chain(source))
    source.set_result(chain(box))

    with pytest.raises(CycleError):
        force(box, LIMIT)


def test_promises_stay_here():
    """P9."""
    for thing in (promise(), delay(int), chain(promise())):
        with pytest.raises(TypeError, match="cannot be sent"):
            pickle.dumps(thing)
    assert force(pickle.loads(pickle.dumps(Chain(3)))) == 3
    assert "Chain" in repr(chain(3))
    assert repr(delay(int)) == "<Delay not forced>"


def test_a_chain_that_a_task_returns_is_forced_through(kernel):
    """P15: also where the task is in another process, and what it chains to was made there."""
    assert force(future(lambda: chain(future(pow, 2, 5)))) == 32
    assert force(future(lambda: chain(speculate(pow, 2, 5)))) == 32
    assert force(future(lambda: chain(delay(pow, 2, 5)))) == 32
    assert force(future(lambda: chain(chain(future(lambda: chain(future(pow, 2, 5))))))) == 32
    assert force(future(tasks.chain_to_promise, 7)) == 7


def test_a_chain_to_an_error_raises_it_at_every_force(kernel):
    failed = future(lambda: chain(future(tasks.fail, 7)))
    for _ in range(2):
        with pytest.raises(ValueError, match="failed with 7"):
            force(failed)
    late = future(lambda: chain(delay(tasks.fail, 8)))
    for _ in range(2):
        with pytest.raises(ValueError, match="failed with 8"):
            force(late)


def test_a_chain_to_what_is_done_travels():
    box = promise()
    fulfill(box, (1, 2))
    linked = promise()
    fulfill(linked, chain(delay(pow, 2, 5)))
    forced = delay(pow, 2, 3)
    force(forced)
    cancelled = promise()
    cancelled.cancel()

    for thing, value in ((box, (1, 2)), (linked, 32), (forced, 8), (delay(pow, 2, 4), 16)):
        assert force(pickle.loads(pickle.dumps(chain(thing)))) == value
    with pytest.raises(CancelledError):
        force(pickle.loads(pickle.dumps(chain(cancelled))))
    for thing in (promise(), Future()):
        with pytest.raises(TypeError, match="cannot be sent"):
            pickle.dumps(chain(thing))
