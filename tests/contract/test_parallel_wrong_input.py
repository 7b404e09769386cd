"""Input that is not as it should be, to every cognate: an error that names it, and no hang."""

from __future__ import annotations

import functools
import itertools
import operator

import pytest

from remote_executor.parallel import (
    Channel,
    force,
    future,
    pcount_if,
    pevery,
    pfind,
    pfind_if,
    plet,
    pmap,
    pmap_into,
    pmap_reduce,
    pmapc,
    pmapcan,
    pnotany,
    pnotevery,
    preduce,
    preduce_partial,
    premove_if,
    promise,
    psome,
    psort,
)
from tests.support import parallel_tasks as tasks

pytestmark = pytest.mark.usefixtures("kernel")


def into(fn, items, **options):
    target = [-1] * 9
    try:
        return pmap_into(target, fn, items, **options)
    except BaseException:
        assert target == [-1] * 9  # nothing is half-written
        raise


WITH_ITEMS = {
    "pmap": lambda items, **options: pmap(abs, items, **options),
    "pmap_into": lambda items, **options: into(abs, items, **options),
    "pmapc": lambda items, **options: pmapc(abs, items, **options),
    "pmapcan": lambda items, **options: pmapcan(range, items, **options),
    "preduce": lambda items, **options: preduce(operator.add, items, **options),
    "preduce_partial": lambda items, **options: preduce_partial(operator.add, items, **options),
    "pmap_reduce": lambda items, **options: pmap_reduce(abs, operator.add, items, **options),
    "pevery": lambda items, **options: pevery(bool, items, **options),
    "psome": lambda items, **options: psome(operator.not_, items, **options),
    "pnotany": lambda items, **options: pnotany(bool, items, **options),
    "pnotevery": lambda items, **options: pnotevery(bool, items, **options),
    "pfind": lambda items, **options: pfind(99, items, **options),
    "pfind_if": lambda items, **options: pfind_if(operator.not_, items, **options),
    "pcount_if": lambda items, **options: pcount_if(bool, items, **options),
    "premove_if": lambda items, **options: premove_if(bool, items, **options),
    "psort": lambda items, **options: psort(items, **options),
}
every_cognate = pytest.mark.parametrize("call", WITH_ITEMS.values(), ids=WITH_ITEMS)


def broken():
    yield 1
    raise LookupError("the input broke")


@every_cognate
def test_an_input_that_raises(call):
    with pytest.raises(LookupError, match="the input broke"):
        call(broken())


@every_cognate
def test_what_is_no_input(call):
    with pytest.raises(TypeError, match=r"iterable|int"):
        call(42)


@pytest.mark.parametrize("name", WITH_ITEMS)
def test_an_endless_input(name):
    call = WITH_ITEMS[name]
    if name == "pmap_into":  # its target says how many are wanted
        assert call(itertools.count(1)) == list(range(1, 10))
        return
    with pytest.raises(ValueError, match="endless"):
        call(itertools.count(1))


@every_cognate
@pytest.mark.parametrize("parts", [0, -1, 1.5, "2", True])
def test_wrong_parts(call, parts):
    with pytest.raises((TypeError, ValueError), match="parts"):
        call([3, 1, 2], parts=parts)


@every_cognate
def test_a_range_that_is_as_good_as_endless(call):
    if call is WITH_ITEMS["pmap_into"]:
        assert call(range(1, 10**20)) == list(range(1, 10))
        return
    with pytest.raises(ValueError, match="endless"):
        call(range(10**20))
    assert pmap(abs, range(10**20), size=3) == [0, 1, 2]


@pytest.mark.parametrize(
    "call",
    [
        lambda: pmap(abs, [1], timeout="1"),
        lambda: pmap(abs, [1], parts=1, timeout="1"),
        lambda: preduce(operator.add, [1, 2], timeout=[]),
        lambda: plet(int, timeout="1"),
        lambda: force(promise(), "1"),
    ],
)
def test_a_timeout_that_is_no_number(call):
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        call()


class Liar:
    """Says that it has another number of items than it has."""

    def __init__(self, says):
        self.says = says

    def __len__(self):
        return self.says

    def __getitem__(self, index):
        if isinstance(index, slice):
            raise AssertionError("what lies is not sliced")
        return [3, 1, 2][index]


class LyingList(list):
    def __len__(self):
        return 9


@every_cognate
def test_an_object_that_lies_about_its_length(call):
    expected = call([3, 1, 2])
    if isinstance(expected, (Liar, LyingList)):  # pmapc gives its input back
        expected = [3, 1, 2]
    for liar in (Liar(0), Liar(2), Liar(1000), LyingList([3, 1, 2])):
        found = call(liar)
        if found is not liar:
            assert found == expected


KEYED = {
    "pmap": lambda key: pmap(key, range(9)),
    "pmap_into": lambda key: into(key, range(9)),
    "preduce": lambda key: preduce(operator.add, range(9), key=key),
    "pmap_reduce": lambda key: pmap_reduce(key, operator.add, range(9)),
    "psort": lambda key: psort(range(9), key=key),
    "pfind_if": lambda key: pfind_if(callable, range(9), key=key),
    "pcount_if": lambda key: pcount_if(bool, range(9), key=key),
    "premove_if": lambda key: premove_if(bool, range(9), key=key),
    "pevery": lambda key: pevery(lambda x: key(x) == x, range(9)),
}


@pytest.mark.parametrize("call", KEYED.values(), ids=KEYED)
def test_a_key_that_raises(call):
    """C44: of several errors it is the first in order of the input."""
    with pytest.raises(tasks.Odd, match=r"(?m)^1$"):
        call(tasks.no_odd)


@pytest.mark.parametrize("call", KEYED.values(), ids=KEYED)
@pytest.mark.parametrize("key", ["abs", 42])
def test_what_cannot_be_called(call, key):
    with pytest.raises(TypeError, match="callable"):
        call(key)


def test_a_reducer_whose_results_do_not_travel(engine):
    if type(engine).__name__ == "ThreadPoolExecutor":
        assert len(preduce_partial(both_unpicklable, range(4), parts=2)) == 2
        return
    for call in (preduce, preduce_partial):
        with pytest.raises(Exception, match=r"cannot (be )?pickle"):
            call(both_unpicklable, range(4), parts=2)
    assert preduce(operator.add, range(4)) == 6


def both_unpicklable(one, other):
    return tasks.unpicklable()


def test_unequal_lengths():
    assert pmap(operator.add, [1, 2, 3], iter([10, 20])) == [11, 22]
    assert pmap(operator.add, itertools.count(), (1, 2)) == [1, 3]
    assert pevery(operator.eq, [1, 2, 3], [1, 2])


@pytest.mark.parametrize("fn", [None, 42, "abs", functools])
def test_tasks_that_cannot_be_called(fn):
    with pytest.raises(TypeError, match="callable"):
        future(fn)
    with pytest.raises(TypeError, match="callable"):
        Channel().submit(fn)
    with pytest.raises(TypeError, match="callable"):
        pmap(fn, [])
