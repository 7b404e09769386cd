"""The client's cache of pickled functions and the worker's table of rebuilt ones."""

from __future__ import annotations

import functools
import gc
import operator

import numpy as np
import pytest

from remote_executor.errors import PayloadError
from remote_executor.payload import mains
from remote_executor.payload.copies import PrivateCopies
from remote_executor.payload.functions import PURE, FunctionCache, FunctionTable
from tests.support import payload_tasks as tasks


@pytest.fixture
def cache():
    return FunctionCache()


@pytest.fixture
def table():
    return FunctionTable()


def define(table, encoded, number=1):
    buffers = [bytearray(buffer) for buffer in encoded.buffers]
    table.define(number, PURE if encoded.pure else 0, encoded.body, buffers)


@pytest.mark.parametrize("function", [tasks.add, print, tasks.Plain, tasks.cached, operator.add])
def test_importable_functions_go_by_name_once(cache, table, function):
    encoded = cache.encode(function)
    define(table, encoded)

    assert encoded.pure
    assert encoded.key is encoded.body
    assert cache.encode(function) is encoded
    assert table.get(1) is table.get(1) is function


@pytest.mark.parametrize(
    "function",
    [tasks.Plain(1), tasks.Plain(1).plus, functools.partial(tasks.add, 1), [1].count],
    ids=["object", "bound method", "partial", "built-in method"],
)
def test_callables_with_a_state_are_pickled_and_rebuilt_each_time(cache, table, function):
    encoded = cache.encode(function)
    define(table, encoded)

    assert not encoded.pure
    assert len(cache) == 0
    assert table.get(1) is not table.get(1)
    assert table.get(1)(1) == function(1)


def test_a_lambda_is_rebuilt_once(cache, table):
    k = 3
    encoded = cache.encode(lambda x: x + k)
    define(table, encoded)

    assert encoded.pure
    assert table.get(1) is table.get(1)
    assert table.get(1)(1) == 4
    assert table.get(1)(2) == 5


def test_captured_values_are_those_of_submit_and_writes_stay_remote_l12_l13_l14(cache, table):
    a = 1
    values = []

    def function():
        nonlocal a
        a += 1
        values.append(a)
        return values

    for number in range(3):
        define(table, cache.encode(function), number)
        a += 10
        values.append("client")

    for _ in range(2):
        assert table.get(0)() == [2]
        assert table.get(1)() == ["client", 12]
        assert table.get(2)() == ["client", "client", 22]
    assert (a, values) == (31, ["client"] * 3)


def test_each_closure_of_a_loop_has_its_own_value_k71(cache, table):
    for number, function in enumerate([lambda x=x: x * x for x in range(4)]):
        define(table, cache.encode(function), number)

    assert [table.get(number)() for number in range(4)] == [0, 1, 4, 9]


@pytest.mark.parametrize("count", [10_000, 300_000], ids=["copied", "mapped"])
def test_captured_arrays_are_snapshots_and_each_call_has_its_own(cache, table, count):
    array = np.zeros(count)

    def function(i):
        array[i] += 1
        return float(array.sum())

    encoded = cache.encode(function)
    define(table, encoded)
    array[0] = 5

    assert len(encoded.body) < 2000
    assert [table.get(1)(0), table.get(1)(0)] == [1, 1]
    again = cache.encode(function)
    assert again is not encoded
    define(table, again)
    assert table.get(1)(0) == 6
    # the key tells content, so that known content is not sent again
    array[0] = 0
    assert cache.encode(function).key == encoded.key != again.key


def test_arrays_that_did_not_change_are_not_copied_again(cache):
    array, other = np.zeros(10_000), np.zeros(10_000)
    values = [1]

    def function():
        return array, other, values

    first = cache.encode(function)
    values.append(2)
    second = cache.encode(function)
    other[0] = 1
    third = cache.encode(function)

    assert second.buffers[0] is first.buffers[0]
    assert third.buffers[0] is first.buffers[0]
    assert third.buffers[1] is not first.buffers[1]
    assert first.key != second.key != third.key


def test_captured_bytes_are_not_copied(cache):
    class Holder:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            import pickle

            return bytes, (pickle.PickleBuffer(self.data),)

    data = bytes(100_000)
    holder = Holder(data)
    encoded = cache.encode(lambda: holder)

    assert encoded.buffers[0].obj is data


def test_large_buffers_of_a_pure_function_are_let_go(cache, table):
    array = np.zeros(100_000)
    function = cache.encode(functools.partial(np.add, array))
    table.define(1, PURE, function.body, [bytearray(b) for b in function.buffers])

    assert table.get(1)(1)[0] == 1
    assert table.get(1) is table.get(1)


def test_what_cannot_be_pickled_is_an_error_each_time_p9(cache):
    lockable = tasks.Lockable()

    def function():
        return lockable

    for _ in range(2):
        with pytest.raises(PayloadError, match=r"function, captured variable 'lockable', \.lock"):
            cache.encode(function)
    assert len(cache) == 0


def test_the_cache_forgets_functions_that_are_gone(cache):
    functions = [eval("lambda: 1") for _ in range(10)]
    for function in functions:
        cache.encode(function)
    assert len(cache) == 10

    del functions, function
    gc.collect()
    assert len(cache) == 0
    assert repr(cache) == "<FunctionCache 0 functions>"


def test_the_cache_keeps_what_is_asked_for():
    cache = FunctionCache(max_count=3)
    functions = [eval("lambda: 1") for _ in range(6)]
    favourite = cache.encode(functions[0])
    for function in functions[1:]:
        assert cache.encode(functions[0]) is favourite
        cache.encode(function)

    assert len(cache) == 3
    assert cache.encode(functions[0]) is favourite
    for function in functions:
        cache.encode(function)
        cache.encode(function)
    assert len(cache) == 3


def test_the_cache_is_bounded_in_bytes():
    cache = FunctionCache(max_bytes=1_000_000)
    array = np.zeros(100_000)
    functions = [eval("lambda: array", {"array": array + n}) for n in range(3)]
    for function in functions:
        cache.encode(function)
        cache.encode(function)
    assert len(cache) == 1

    function = eval("lambda: array", {"array": np.zeros(1_000_000)})
    assert cache.encode(function).size > 8_000_000
    assert cache.encode(function) is not cache.encode(function)
    assert len(cache) == 1


def test_room_is_made_by_those_that_nobody_asked_for():
    cache = FunctionCache(max_bytes=1_000_000)
    small = eval("lambda: 1")
    asked = eval("lambda: array", {"array": np.zeros(60_000)})
    large = eval("lambda: array", {"array": np.zeros(100_000)})
    cache.encode(small)
    cache.encode(asked)
    cache.encode(asked)

    kept = cache.encode(large)
    assert len(cache) == 1
    assert cache.encode(large) is kept


def test_a_callable_that_cannot_be_watched_is_not_cached(cache):
    # A ufunc goes by name, and has no weak references.
    if np.add.__class__.__weakrefoffset__:
        pytest.skip("this numpy can watch a ufunc")

    assert cache.encode(np.add).pure
    assert len(cache) == 0


def test_the_table_knows_only_what_it_was_told(table):
    table.define(1, PURE, b"", ())
    assert len(table) == 1
    assert repr(table) == "<FunctionTable 1 functions>"
    table.forget(1)
    table.forget(1)

    with pytest.raises(LookupError):
        table.get(1)


def test_a_function_that_does_not_load_is_an_error_each_time(table):
    table.define(1, PURE, b"cno_such_module\nname\n.", ())

    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            table.get(1)
    assert mains.record_into(None) is None


def test_reprs_tell_size_and_kind(cache):
    assert repr(cache.encode(len)).endswith("bytes, pure>")
    assert repr(cache.encode([].append)).endswith("bytes>")


def test_what_goes_by_name_is_looked_up_again(monkeypatch):
    """As when a worker has reloaded the module."""
    table = FunctionTable()
    captured = [1]
    for number, function in enumerate([tasks.add, lambda: 5, lambda: captured]):
        encoded = FunctionCache().encode(function)
        flags = PURE if encoded.pure else 0
        table.define(number, flags, encoded.body, encoded.buffers)
    before = [table.get(number) for number in range(3)]
    monkeypatch.setattr(tasks, "add", len)

    assert table.get(0) is before[0]
    table.look_up_again()

    assert table.get(0) is len
    assert table.get(1) is before[1]
    assert table.get(2)() == [1]


def test_large_captured_arrays_travel_apart_by_their_content(cache, table):
    """L13: and each call has its own."""
    array, small = np.zeros(100_000), np.zeros(10_000)
    first = cache.encode(eval("lambda: (array, small)", {"array": array, "small": small}))
    again = cache.encode(eval("lambda n: (n, array)", {"array": array}))
    little = cache.encode(eval("lambda: small", {"small": small}))

    assert [len(part.buffers[0]) for part in first.parts] == [800_000, 80_000]
    assert [part.key for part in again.parts] == [first.parts[0].key]
    assert again.parts[0].buffers[0].obj is first.parts[0].buffers[0].obj
    assert first.key != again.key
    assert little.parts == ()
    assert len(little.buffers) == 1

    for number, part in enumerate(first.parts, 1):
        table.define_part(number, PrivateCopies(part.buffers))
    table.define(3, 0, first.body, parts=(1, 2))
    for _ in range(3):
        found = table.get(3)()
        assert not any(each.any() for each in found)
        for each in found:
            each += 1
    table.forget(1)
    with pytest.raises(LookupError):
        table.get(3)


def test_a_changed_array_is_another_one(cache):
    array, other = np.zeros(100_000), np.ones(100_000)
    function = eval("lambda: (array, other)", {"array": array, "other": other})
    before = cache.encode(function)

    other += 1
    after = cache.encode(function)

    assert before.key != after.key
    assert before.parts[0].key == after.parts[0].key
    assert before.parts[1].key != after.parts[1].key


def test_bytes_are_named_by_their_content_too():
    from remote_executor.payload.code.digests import frozen, key_of

    data = bytes(100_000)
    (snapshot,) = frozen([memoryview(data)])
    (copied,) = frozen([memoryview(bytearray(data))])

    assert snapshot.obj is data
    assert key_of(snapshot) == key_of(copied) == key_of(copied)
