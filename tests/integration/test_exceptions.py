"""What cannot travel, and what tasks raise: always an error of that one future."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import re
import sys
import threading
import traceback
import types
import weakref
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

import pytest

from remote_executor import FarmError, FarmExecutor, PayloadError, RemoteError, WorkerDied
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)
new_in_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")


def error_of(farm, fn, *args):
    error = farm.submit(fn, *args).exception(LIMIT)
    assert error is not None
    assert farm.submit(pow, 2, 3).result(LIMIT) == 8  # K18: it cost nothing else
    return error


def without_place(farm, error):
    """Return an error's attributes without the note that says where its task ran; check that."""
    places = {
        each.host if each.address == "embedded server" else f"{each.host} ({each.address})"
        for each in farm.status().servers
    }
    fields = dict(vars(error))
    *notes, said = fields.pop("__notes__")
    what, place = re.fullmatch(r"task (\w+), attempt 1, ran in worker \d+ on (.+)", said).groups()
    assert what in vars(tasks)
    assert place in places
    if notes:
        fields["__notes__"] = notes
    return fields


def remote_text(error):
    """Return the remote traceback, which stands at the end of the chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


# -- exceptions that travel


@pytest.mark.parametrize(
    "error",
    [
        ValueError("one", 2),
        KeyError("absent"),
        OSError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(3),
        GeneratorExit("x"),
        tasks.PlainError("plain", 5),
        futures.CancelledError("not really"),
        pickle.PicklingError("not really"),
        TimeoutError("not really"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_type_and_fields(farm, error):
    """K20, K78."""
    found = error_of(farm, tasks.raise_it, error)

    assert type(found) is type(error)
    assert found.args == error.args
    assert without_place(farm, found) == vars(error)


def test_cause(farm):
    """K20: ``raise ... from``."""
    found = error_of(farm, tasks.raise_from)

    assert (type(found), found.code) == (tasks.PlainError, 7)
    assert isinstance(found.__cause__, KeyError)
    assert found.__cause__.args == ("absent",)
    assert "raise_from" in remote_text(found)


def test_context(farm):
    """K20: an error while another one is handled."""
    found = error_of(farm, tasks.raise_while_handling)

    assert found.code == 8
    assert isinstance(found.__context__, ZeroDivisionError)


@new_in_311
def test_notes(farm):
    found = error_of(farm, tasks.raise_noted)

    assert without_place(farm, found)["__notes__"] == ["a note from the worker"]


@new_in_311
def test_exception_groups(farm):
    found = error_of(farm, tasks.raise_group)

    assert [type(each) for each in found.exceptions] == [ValueError, KeyError]


def test_remote_frames(farm):
    """The traceback goes on into the worker: debuggers and pytest show the task's own lines."""
    found = error_of(farm, tasks.raise_deep, 3)
    try:
        raise found
    except ValueError:
        names = [frame.name for frame in traceback.extract_tb(found.__traceback__)]

    assert names.count("raise_deep") == 4


def test_remote_text(farm):
    """K16, K20: as ProcessPoolExecutor shows it."""
    found = error_of(farm, tasks.fail, "foo")
    text = "".join(traceback.format_exception(type(found), found, found.__traceback__))

    assert "raise RuntimeError(message)  # the line that a remote traceback shows" in text
    assert type(found.__cause__) is futures.process._RemoteTraceback


def test_traceback_does_not_grow(farm):
    """P10, P25: result() raises each time, the task ran once."""
    future = farm.submit(tasks.fail)
    lengths = []
    for _ in range(4):
        with pytest.raises(RuntimeError) as caught:
            future.result(LIMIT)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))

    assert lengths[-1] - lengths[1] <= 2 * (lengths[1] - lengths[0])


@pytest.mark.parametrize("code", [0, 1, "words", None])
def test_system_exit(farm, code):
    found = error_of(farm, tasks.leave, code)

    assert isinstance(found, SystemExit)
    assert found.code == code


def test_keyboard_interrupt_of_a_task(farm):
    assert isinstance(error_of(farm, tasks.interrupt), KeyboardInterrupt)


def test_recursion_error(farm):
    def forever():
        return forever()

    assert isinstance(error_of(farm, forever), RecursionError)


def test_error_in_a_map(farm):
    results = farm.map(lambda i: 1 // (3 - i), range(10))

    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_error_through_asyncio(farm):
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(tasks.PlainError) as caught:
            await loop.run_in_executor(farm, tasks.raise_from)
        return caught.value

    assert asyncio.run(main()).code == 7


# -- exceptions that do not


def test_exception_that_cannot_be_pickled(farm):
    """K20: RemoteError stands for it, with what can be told."""
    found = error_of(farm, tasks.raise_new, tasks.LockedError, "locked in")

    assert type(found) is RemoteError
    assert "LockedError" in found.type_name
    assert found.message == "locked in"
    assert "raise_new" in found.traceback_text
    assert "locked in" in str(found)
    assert str(pickle.loads(pickle.dumps(found))) == str(found)


def test_exception_that_raises_while_it_is_pickled(farm):
    """K20."""
    found = error_of(farm, tasks.raise_new, tasks.HostileError, "hostile")

    assert isinstance(found, RemoteError)
    assert "HostileError" in found.type_name


def test_exception_that_cannot_be_rebuilt(farm):
    """K20: its constructor wants other arguments than it keeps."""
    found = error_of(farm, tasks.raise_new, tasks.AwkwardError, "left", "right")

    assert isinstance(found, (RemoteError, tasks.AwkwardError))
    assert "left and right" in str(found)
    assert "raise_new" in remote_text(found) or "raise_new" in found.traceback_text


@pytest.mark.parametrize("kind", [tasks.LateHostileError, tasks.ExitingError])
def test_exception_that_does_harm_while_it_is_unpickled(farm, kind):
    """K20: here, at the client, whose threads must not die of it."""
    found = error_of(farm, tasks.raise_new, kind, "late")

    assert isinstance(found, RemoteError)
    assert kind.__name__ in found.type_name


def test_exception_of_a_module_that_the_client_lacks(farm):
    """K20, K31: the worker made the module up."""

    def raise_local():
        module = types.ModuleType("only_in_the_worker")
        sys.modules[module.__name__] = module
        exec("class LocalError(Exception):\n    pass\n", vars(module))
        raise module.LocalError("of the worker")

    found = error_of(farm, raise_local)

    assert "of the worker" in str(found)
    assert isinstance(found, RemoteError) or type(found).__name__ == "LocalError"


def test_str_of_an_exception_that_raises(farm):
    class Wordless(Exception):
        def __str__(self):
            raise LookupError("no words")

    error_of(farm, tasks.raise_new, Wordless)


# -- arguments and functions


@pytest.mark.parametrize(
    "make",
    [tasks.make_lock, tasks.make_generator, tasks.ErrorAtPickle, lambda: sys._getframe()],
    ids=["lock", "generator", "raises", "frame"],
)
def test_argument_that_cannot_be_pickled(farm, make):
    """K66: that future alone fails, with an error that names the trouble; nothing was sent."""
    found = error_of(farm, tasks.same, make())

    assert isinstance(found, pickle.PicklingError)
    assert isinstance(found, PayloadError)
    assert isinstance(found, FarmError)


def test_argument_that_exits_while_it_is_pickled(farm):
    with pytest.raises((SystemExit, PayloadError)):
        farm.submit(tasks.same, tasks.ExitAtPickle()).result(LIMIT)
    assert farm.submit(pow, 2, 3).result(LIMIT) == 8


def test_function_that_cannot_be_pickled(farm):
    """P9 of the kind: a closure over a lock."""
    lock = threading.Lock()

    found = error_of(farm, lambda: lock)

    assert isinstance(found, PayloadError)


def test_executors_and_futures_cannot_be_sent(farm):
    """P9, P19: refused clearly, captured or as an argument; but a future may be an argument."""
    future = farm.submit(pow, 2, 3)

    for error, word in (
        (error_of(farm, tasks.same, farm), "Executor"),
        (error_of(farm, lambda x=farm: x), "Executor"),
        (error_of(farm, lambda x=future: x), "Future"),
    ):
        assert isinstance(error, PayloadError)
        assert word in str(error)
    assert farm.submit(tasks.same, future).result(LIMIT) == 8


def test_bad_items_of_a_map(farm):
    """The items before it are not lost."""
    items = [1, 2, tasks.ErrorAtPickle(), 4]

    results = farm.map(tasks.same, items, chunksize=1)

    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(pickle.PicklingError):
        next(results)
    assert farm.submit(pow, 2, 3).result(LIMIT) == 8


def test_argument_that_cannot_be_unpickled(farm):
    """At the worker, which lives."""
    before = set(farm.broadcast(tasks.pid))

    assert "error at unpickle" in str(error_of(farm, tasks.same, tasks.ErrorAtUnpickle()))
    error_of(farm, tasks.same, tasks.ExitAtUnpickle())
    assert "this belongs" in str(error_of(farm, tasks.same, tasks.OnlyAt(os.getpid())))
    assert set(farm.broadcast(tasks.pid)) == before


# -- results


@pytest.mark.parametrize(
    "task",
    [tasks.make_lock, tasks.make_generator, tasks.ErrorAtPickle, tasks.ExitAtPickle],
    ids=lambda task: task.__name__,
)
def test_result_that_cannot_be_pickled(farm, task):
    """K65, K66, A6: an error of that task; the stream and the worker stay sound."""
    before = set(farm.broadcast(tasks.pid))

    error_of(farm, tasks.make, task)

    assert set(farm.broadcast(tasks.pid)) == before


def test_result_that_cannot_be_pickled_is_named(farm):
    assert isinstance(error_of(farm, tasks.make, tasks.make_lock), pickle.PicklingError)
    assert "lock" in str(error_of(farm, tasks.make, tasks.make_lock))


def test_result_that_only_the_server_can_build(farm):
    """K31: an unpickle error of that one future; connection and other futures live."""
    others = [farm.submit(tasks.same, i) for i in range(20)]
    bad = farm.submit(tasks.make_only_here)
    more = [farm.submit(tasks.same, i) for i in range(20)]

    assert "this belongs" in str(bad.exception(LIMIT))
    assert [future.result(LIMIT) for future in others + more] == [*range(20)] * 2


def test_result_that_exits_while_it_is_unpickled(farm):
    """K31: the client's threads live on."""
    error_of(farm, tasks.make, tasks.ExitAtUnpickle)


def test_bad_results_of_a_map(farm):
    results = farm.map(tasks.make, [int, tasks.make_lock, int], chunksize=3)

    assert next(results) == 0
    with pytest.raises(pickle.PicklingError):
        next(results)


@pytest.mark.parametrize("options", [{}, {"chunksize": 5}, {"buffersize": 5}], ids=str)
def test_a_map_gives_what_comes_before_a_result_that_only_the_server_can_build(farm, options):
    """K31: the error is that of the one item, and keeps the traceback's text."""
    results = farm.map(tasks.make, [int, dict, tasks.ErrorAtUnpickle, int], **options)

    assert next(results) == 0
    assert next(results) == {}
    with pytest.raises(RemoteError, match=r"item 2 of a map .*: error at unpickle") as caught:
        next(results)
    assert "_raise_value_error" in caught.value.traceback_text
    assert list(results) == []


def test_a_map_gives_what_comes_before_both_a_failure_and_a_broken_result(farm):
    results = farm.map(tasks.make, [int, tasks.ErrorAtUnpickle, tasks.fail], chunksize=3)

    assert next(results) == 0
    with pytest.raises(RemoteError, match="error at unpickle"):
        next(results)


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_a_map_gives_what_comes_before_an_argument_that_cannot_be_unpickled(farm, kind):
    results = farm.map(tasks.same, kind([1, 2, tasks.ErrorAtUnpickle(), 4]), chunksize=4)

    assert next(results) == 1
    assert next(results) == 2
    with pytest.raises(ValueError, match="error at unpickle"):
        next(results)


def test_nothing_of_a_broken_batch_stays_in_a_worker():
    """Not even until a garbage collection, which large items do not bring about."""
    with FarmExecutor(1) as executor:
        executor.submit(gc.disable).result(LIMIT)
        for _ in range(3):
            with pytest.raises(ValueError, match="error at unpickle"):
                list(executor.map(type, [tasks.Tracked(), tasks.ErrorAtUnpickle()], chunksize=2))

        assert executor.submit(tasks.tracked).result(LIMIT) == 0


def test_nothing_of_a_broken_result_stays_at_the_client():
    with FarmExecutor(1) as executor:
        gc.disable()
        try:
            future = executor.submit(tasks.make, tasks.ErrorAtUnpickle)
            assert isinstance(future.exception(LIMIT), RemoteError)
            gone = weakref.ref(future)
            del future
            wait_until(lambda: gone() is None, LIMIT, "the end of the future")
        finally:
            gc.enable()


# -- errors of ours


def test_death_at_pickle_and_unpickle():
    """Each costs a worker and its own future, no more."""
    with FarmExecutor(2) as executor:
        others = [executor.submit(tasks.same, i) for i in range(10)]
        bad = [
            executor.submit(tasks.same, tasks.DeathAtUnpickle()),
            executor.submit(tasks.make, tasks.DeathAtPickle),
        ]

        for future in bad:
            error = future.exception(LIMIT)
            assert isinstance(error, WorkerDied)
            assert isinstance(error, BrokenProcessPool)
            assert error.exitcode == 4
        assert [future.result(LIMIT) for future in others] == [*range(10)]
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8
