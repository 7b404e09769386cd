"""Objects to bytes and large buffers, and the words when that fails."""

from __future__ import annotations

import math
import pickle
import sys
import types

import cloudpickle
import numpy as np
import pytest

from remote_executor.errors import PayloadError
from remote_executor.payload.pickles import (
    OUT_OF_BAND,
    dump,
    dump_result,
    holds_code,
    keeper,
    load,
    needs_by_value,
)
from tests.support import payload_tasks as tasks
from tests.support.words import without_address

DUMPS = [dump, dump_result]


@pytest.mark.parametrize("dumper", DUMPS)
@pytest.mark.parametrize(
    "obj",
    [((1, 2), {}), None, {"a": [1.5, b"x"]}, tasks.add, range(3), "a text that says __main__"],
    ids=without_address,
)
def test_plain_objects_come_back(dumper, obj):
    body, buffers = dumper(obj)

    assert not buffers
    assert obj == load(body, buffers)


class Celsius(float):
    """A number that is more than one."""


NUMBERS = [None, True, 0, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**200]
NUMBERS += [0.1, -0.0, 5e-324, 1.7e308, math.inf, -math.inf, Celsius(20.5), np.float64(2.5)]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_come_back_as_what_they_were(number):
    body, buffers = dump_result(number)

    found = load(body, buffers)

    assert type(found) is type(number)
    assert repr(found) == repr(number)


def test_no_number_comes_back_as_none():
    assert math.isnan(load(*dump_result(math.nan)))


@pytest.mark.parametrize("dumper", DUMPS)
def test_large_arrays_travel_apart_and_uncopied(dumper):
    array = np.arange(OUT_OF_BAND // 8, dtype=np.int64)

    body, buffers = dumper([array, array[:10]])

    assert len(body) < 1000
    assert [buffer.nbytes for buffer in buffers] == [OUT_OF_BAND]
    array[0] = 7
    assert buffers[0][:1] == b"\x07"
    copies = [bytearray(buffer) for buffer in buffers]
    large, small = load(body, copies)
    assert large.tolist() == array.tolist()
    assert small.tolist() == list(range(10))
    large[1] = 8  # it is writable, and upon the buffer that was given
    assert copies[0][8] == 8


def test_small_buffers_stay_in_the_pickle():
    kept = []
    keep = keeper(kept)

    assert keep(pickle.PickleBuffer(bytearray(10))) is True
    assert kept == []
    assert keep(pickle.PickleBuffer(bytearray(OUT_OF_BAND))) is False
    assert len(kept) == 1


def test_arrays_of_any_layout_come_back():
    array = np.arange(1_000_000.0).reshape(1000, 1000)
    for some in (array, array.T, array[::2, ::2]):
        body, buffers = dump(some)
        assert (load(body, [bytearray(buffer) for buffer in buffers]) == some).all()


def test_a_scattered_buffer_is_an_error_in_words():
    with pytest.raises(PayloadError):
        dump(pickle.PickleBuffer(memoryview(bytearray(4 * OUT_OF_BAND))[::2]))


@pytest.mark.parametrize("dumper", DUMPS)
def test_lambdas_and_local_functions_travel_by_value_k6(dumper):
    y = 5

    def local(x, *, k=2):
        return x + y + k

    function, lambda_ = load(*dumper((local, lambda: y)))

    assert function(1) == 8
    assert lambda_() == 5
    assert function is not local


def test_a_module_that_the_user_registered_travels_by_value():
    assert not needs_by_value(dump(tasks.add)[0])
    cloudpickle.register_pickle_by_value(tasks)
    try:
        body, buffers = dump(tasks.add)
    finally:
        cloudpickle.unregister_pickle_by_value(tasks)

    again = load(body, buffers)
    assert again is not tasks.add
    assert again(1, 2) == 3


def test_who_has_no_cloudpickle_loaded_needs_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "cloudpickle.cloudpickle")

    assert not needs_by_value(b"plain")
    assert dump(1) == (pickle.dumps(1, 5), ())


def test_one_thread_pickles_while_another_imports_cloudpickle(monkeypatch):
    unfinished = types.ModuleType("cloudpickle.cloudpickle")
    monkeypatch.setitem(sys.modules, "cloudpickle.cloudpickle", unfinished)

    assert not needs_by_value(b"plain")
    assert dump(1) == (pickle.dumps(1, 5), ())


def test_an_endless_nesting_is_an_error_in_words():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PayloadError):
        dump(deep)


def test_what_a_reduce_raises_is_the_cause():
    moody = tasks.Moody()
    moody.willing = False
    with pytest.raises(PayloadError, match="not today") as caught:
        dump_result(moody)

    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value).startswith("result (a tests.support.payload_tasks.Moody)")


def test_an_error_without_words_is_named_by_its_type():
    class Silent:
        def __reduce__(self):
            raise KeyError

    with pytest.raises(PayloadError, match="cannot be pickled: KeyError"):
        dump(Silent())


class FailsBehindBuffers:
    """Pickles its large buffer, and then something that cannot be."""

    def __reduce__(self):
        return list, ((pickle.PickleBuffer(bytearray(OUT_OF_BAND)), lambda: None),)


def test_what_fails_behind_a_large_buffer_takes_the_slow_way():
    body, buffers = dump(FailsBehindBuffers())

    array, function = load(body, buffers)
    assert len(array) == OUT_OF_BAND
    assert function() is None


def test_code_by_value_can_be_told():
    """K68: another minor version of Python must not be sent it."""
    captured = 3

    assert holds_code(dump(lambda: captured)[0])
    assert not holds_code(dump(((1, "two"), {"three": 3.0}))[0])
    assert not holds_code(memoryview(dump(len)[0]))
