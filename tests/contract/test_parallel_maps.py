"""Maps, on every engine."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import re
from array import array
from concurrent.futures import TimeoutError

import pytest

from remote_executor.parallel import (
    pdotimes,
    pmap,
    pmap_into,
    pmap_unordered,
    pmapc,
    pmapcan,
    pstarmap,
)
from tests.support import parallel_tasks as tasks
from tests.support.scale import scaled

pytestmark = pytest.mark.usefixtures("kernel")


# ----------------------------------------------------------------------------- pmap


@pytest.mark.parametrize("parts", [None, *range(1, 9)])
def test_every_number_of_parts_against_every_length(parts):
    """C8, C29: more parts than items, too."""
    for length in range(7):
        assert pmap(tasks.square, range(length), parts=parts) == [i * i for i in range(length)]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 10, 99])
def test_three_inputs(length):
    """C14."""
    a, b, c = range(length), list(range(length)), tuple(range(length))

    assert pmap(tasks.add3, a, b, c) == [3 * i for i in range(length)]
    assert pmap(tasks.add3, a, b, c, parts=5) == [3 * i for i in range(length)]


def test_inputs_of_any_kind():
    """C7, C50: any mix of iterables, and any callable."""
    for first in (str, list, tuple, iter, dict.fromkeys):
        for second in (range(1, 3), array("i", [1, 2]), bytes([1, 2])):
            assert pmap(tasks.both, first("ab"), second) == [["a", 1], ["b", 2]]
        assert pmap(tasks.both, first("ab"), itertools.count(1)) == [["a", 1], ["b", 2]]
    assert pmap("{}!".format, "ab") == ["a!", "b!"]


@pytest.mark.parametrize(
    "items",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        bytes([1, 2, 3]),
        bytearray([1, 2, 3]),
        array("d", [1, 2, 3]),
        memoryview(bytes([1, 2, 3])),
        memoryview(array("i", [1, 2, 3])),
        {1, 2, 3},
    ],
    ids=lambda items: type(items).__name__,
)
@pytest.mark.parametrize("parts", [None, 2])
def test_what_is_sliced(items, parts):
    assert pmap(tasks.square, items, parts=parts) == [1, 4, 9]


@pytest.mark.parametrize("parts", [None, 2])
def test_numpy_and_pandas(require_module, parts):
    numpy = require_module("numpy")

    assert pmap(tasks.square, numpy.arange(5.0), parts=parts) == [0, 1, 4, 9, 16]
    assert pmap(numpy.sum, numpy.ones((4, 3)), parts=parts) == [3, 3, 3, 3]
    pairs = pmap(operator.add, numpy.arange(3), range(3), parts=parts)
    assert pairs == [0, 2, 4]


def test_result_types():
    """C4."""
    assert pmap(abs, [-1, -2], result_type=tuple) == (1, 2)
    assert pmap(str.upper, "abc", result_type=str) == "ABC"
    assert pmap(abs, [-1, 1], result_type=set) == {1}
    assert pmap(abs, [-1, -2], result_type=bytes) == b"\1\2"
    assert pmap(str, [], result_type=str) == ""


@pytest.mark.parametrize("parts", [None, 1, 3])
@pytest.mark.parametrize("length", [0, 1, 20])
def test_for_effect_the_function_does_run(tmp_path, parts, length):
    """C5, C30."""
    mark = tmp_path / "mark"
    paths = [str(mark)] * length

    assert pmap(tasks.touch, paths, range(length), result_type=None, parts=parts) is None

    lines = mark.read_text().split() if length else []
    assert sorted(map(int, lines)) == list(range(length))


def test_size():
    """C11, C47: no length is asked for, so endless inputs work."""
    assert pmap(tasks.square, [1, 2, 3], size=2) == [1, 4]
    assert pmap(tasks.square, [1, 2, 3], size=9) == [1, 4, 9]
    assert pmap(tasks.square, itertools.count(), size=4) == [0, 1, 4, 9]
    assert pmap(tasks.square, [1, 2, 3], size=0) == []
    source = iter(range(10))
    assert pmap(abs, source, size=3) == [0, 1, 2]
    assert next(source) == 3


def test_piece_by_piece():
    source = iter(range(1000))

    assert pmap(tasks.square, source, buffersize=50) == [i * i for i in range(1000)]
    assert pmap(operator.add, range(20), range(20), buffersize=3) == [2 * i for i in range(20)]
    assert pmap(abs, itertools.count(), buffersize=8, size=20) == list(range(20))
    with pytest.raises(tasks.Odd):  # an endless input ends at an error
        pmap(tasks.no_odd, itertools.count(), buffersize=8)


@pytest.mark.parametrize("parts", [None, 2, 7])
def test_the_first_error_in_order_of_the_input_wins(parts):
    """C44."""
    with pytest.raises(tasks.Odd) as caught:
        pmap(tasks.no_odd, [0, 2, 4, 5, 6, 7, 8, 9], parts=parts)

    assert caught.value.args == (5,)


@pytest.mark.parametrize("parts", [None, 2])
def test_stop_iteration_is_an_error(parts):
    with pytest.raises(RuntimeError, match="StopIteration"):
        pmap(tasks.stop, [1, 2, 3], parts=parts)


def test_wrong_arguments():
    """C27, and each error names the argument."""
    with pytest.raises(TypeError, match="callable"):
        pmap(42, [1])
    with pytest.raises(TypeError, match="callable"):
        pmap(42, [])
    with pytest.raises(TypeError, match="callable"):
        pmap(42, [], result_type=None)
    with pytest.raises(TypeError, match="at least one input"):
        pmap(abs)
    with pytest.raises(TypeError, match="input 2 must be iterable"):
        pmap(abs, [1], 5)
    with pytest.raises(ValueError, match="endless"):
        pmap(abs, itertools.count())
    with pytest.raises(ValueError, match="buffersize="):
        pmap(abs, [1], parts=2, buffersize=2)
    for name in ("parts", "size", "buffersize"):
        with pytest.raises(ValueError, match=name):
            pmap(abs, [1], **{name: -1})
        with pytest.raises(TypeError, match=name):
            pmap(abs, [1], **{name: 1.5})


def test_a_generator_that_raises():
    def source():
        yield 1
        raise KeyError("midway")

    for more in ({}, {"parts": 2}, {"buffersize": 2}):
        with pytest.raises(KeyError, match="midway"):
            pmap(abs, source(), **more)


def test_a_result_that_does_not_travel(engine):
    if type(engine).__name__ == "ThreadPoolExecutor":
        assert len(pmap(tasks.unpicklable, [1])) == 1
        return
    with pytest.raises(Exception, match="pickle"):
        pmap(tasks.unpicklable, [1], parts=1)


def test_a_timeout():
    with pytest.raises(TimeoutError):
        pmap(tasks.late, [scaled(0.5)] * 2, "ab", timeout=0.05)


# --------------------------------------------------------------------------- pmap_into


def targets(length):
    """Return targets of each kind, full of nines."""
    yield [9] * length
    yield bytearray([9] * length)
    yield array("i", [9] * length)
    yield memoryview(array("q", [9] * length))


@pytest.mark.parametrize("parts", [None, 1, 2, 3])
def test_results_are_written_into_a_target(parts):
    """C2, C3, C10, C12: as many as fit, and the result is the target itself."""
    for target_length in range(5):
        for source_length in range(5):
            for target in targets(target_length):
                count = min(target_length, source_length)
                found = pmap_into(target, tasks.square, range(source_length), parts=parts)
                assert found is target
                expected = [i * i for i in range(count)] + [9] * (target_length - count)
                assert list(target) == expected


@pytest.mark.parametrize("target_length", range(10))
def test_lengths_of_target_and_source(target_length):
    """C46."""
    for source_length in range(10):
        target = [9] * target_length
        assert pmap_into(target, abs, range(source_length), parts=3) is target
        assert target == [*range(source_length), *[9] * 9][:target_length]


def test_a_numpy_target(require_module):
    numpy = require_module("numpy")
    target = numpy.full(6, 9.0)

    assert pmap_into(target, tasks.square, range(4)) is target
    assert target.tolist() == [0, 1, 4, 9, 9, 9]

    table = numpy.zeros((3, 2))
    pmap_into(table, tasks.both, [1, 2, 3], [4, 5, 6])
    assert table.tolist() == [[1, 4], [2, 5], [3, 6]]


def test_without_inputs_the_function_is_called_for_each_slot():
    """C9."""
    target = [9, 9, 9]

    assert pmap_into(target, int) is target
    assert target == [0, 0, 0]
    assert pmap_into([9, 9, 9], int, size=2) == [0, 0, 9]
    assert len(set(pmap_into([0] * 5, tasks.chance))) == 5


def test_size_and_endless_inputs():
    """C11, C12."""
    assert pmap_into([9, 9, 9], abs, itertools.count(), size=2) == [0, 1, 9]
    assert pmap_into([9, 9, 9], abs, itertools.count()) == [0, 1, 2]
    assert pmap_into([9, 9], abs, [1, 2], size=0) == [9, 9]
    assert pmap_into([], abs, [1, 2]) == []
    assert pmap_into([9], abs, []) == [9]


def test_a_target_that_is_resized():
    """C13, C6: its length becomes the number mapped."""
    target = [9]
    for count in (3, 2, 1, 0):
        assert pmap_into(target, abs, range(count), resize=True) is target
        assert target == list(range(count))
    assert pmap_into(bytearray(1), abs, [1, 2], resize=True) == b"\1\2"
    with pytest.raises(TypeError, match="resized"):
        pmap_into(memoryview(bytearray(1)), abs, [1], resize=True)
    with pytest.raises(TypeError, match="needs an input"):
        pmap_into([1], int, resize=True)


@pytest.mark.parametrize("parts", [None, 3])
def test_nothing_is_written_unless_all_came(parts):
    for target in targets(4):
        before = list(target)
        with pytest.raises(tasks.Odd):
            pmap_into(target, tasks.no_odd, [0, 2, 4, 5], parts=parts)
        assert list(target) == before
    for target, wrong in (
        (bytearray(b"\7\7"), -1),
        (array("B", [7, 7]), 300),
        (memoryview(bytearray(b"\7\7")), "text"),
    ):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            pmap_into(target, tasks.both, [1, wrong], [1, 1])
        assert list(target) == [7, 7]


def test_what_cannot_be_written_to(require_module):
    numpy = require_module("numpy")
    fixed = numpy.zeros(2)
    fixed.flags.writeable = False
    for target in ((1, 2), "ab", None, memoryview(b"ab"), fixed, numpy.array(1)):
        with pytest.raises(TypeError, match="target"):
            pmap_into(target, abs, [1])


# ------------------------------------------------------------------------ the others


@pytest.mark.parametrize("parts", [None, 1, 500, 1000])
def test_for_effect_and_the_first_input_comes_back(parts):
    """C32, C29: as many parts as items, and more."""
    items = list(range(500))

    assert pmapc(operator.add, items, range(500), parts=parts) is items
    assert pmap(abs, items, parts=parts) == items


@pytest.mark.parametrize("parts", [None, 1, 4])
def test_results_are_spliced(parts):
    """C32."""
    assert pmapcan(tasks.both, range(3), "abc", parts=parts) == [0, "a", 1, "b", 2, "c"]
    assert pmapcan(range, range(4), parts=parts) == [0, 0, 1, 0, 1, 2]
    assert pmapcan(range, []) == []
    with pytest.raises(TypeError, match="input"):
        pmapcan(range)


@pytest.mark.parametrize("n", [-3, 0, 1, 7])
def test_dotimes(tmp_path, n):
    """C42: below 1 it does nothing."""
    mark = tmp_path / "mark"
    body = functools.partial(tasks.touch, str(mark))

    assert pdotimes(n, body) is None
    assert pdotimes(n, body, parts=2) is None

    lines = mark.read_text().split() if n > 0 else []
    assert sorted(map(int, lines)) == sorted([*range(n)] * 2)


@pytest.mark.parametrize("wrong", [1.5, "3", None])
def test_dotimes_of_what_is_no_int(wrong):
    """C42."""
    with pytest.raises(TypeError, match="n must be an int"):
        pdotimes(wrong, abs)


def test_progress_counts_items(capsys):
    assert pmap(math.sqrt, range(9), progress=True) == list(map(math.sqrt, range(9)))
    assert pmap_into([0] * 3, abs, range(3), progress=True) == [0, 1, 2]

    shown = capsys.readouterr().err
    assert re.search("9/9|9 of 9", shown)  # by tqdm, or by the line that stands in for it
    assert re.search("3/3|3 of 3", shown)


# ------------------------------------------------------------------- lazy, unordered


def test_a_lazy_map_gives_all_in_any_order():
    assert sorted(pmap_unordered(tasks.square, range(50))) == [i * i for i in range(50)]
    assert sorted(pmap_unordered(pow, range(9), [2] * 7, chunksize=4)) == [i * i for i in range(7)]
    assert list(pmap_unordered(abs, [])) == []
    assert list(pmap_unordered(abs, iter([-1]), buffersize=1, chunksize=9)) == [1]


def test_a_lazy_map_gives_what_is_done_first():
    assert list(pmap_unordered(tasks.late, [0.5, 0], ["late", "soon"])) == ["soon", "late"]


def test_a_lazy_map_reads_no_more_than_it_is_told():
    read = []

    def numbers():
        for number in itertools.count():
            read.append(number)
            yield number

    results = pmap_unordered(abs, numbers(), buffersize=3)
    assert read == []
    for taken in range(1, 8):
        next(results)
        assert len(read) <= taken + 3
    results.close()
    assert len(read) < 12


def test_an_error_ends_a_lazy_map():
    results = pmap_unordered(tasks.no_odd, iter([0, 1]), buffersize=1)
    assert next(results) == 0
    with pytest.raises(tasks.Odd):
        next(results)
    assert list(results) == []
    with pytest.raises(TimeoutError):
        list(pmap_unordered(tasks.late, [0.5], [1], timeout=0.05))


def test_wrong_arguments_of_a_lazy_map_are_told_at_once():
    for wrong in (
        lambda: pmap_unordered(42, [1]),
        lambda: pmap_unordered(abs),
        lambda: pmap_unordered(abs, 42),
        lambda: pmap_unordered(abs, [1], chunksize=0),
        lambda: pmap_unordered(abs, [1], buffersize=True),
        lambda: pmap_unordered(abs, [1], timeout="1"),
    ):
        with pytest.raises((TypeError, ValueError)):
            wrong()


# ------------------------------------------------------------------ as Python has them


@pytest.mark.parametrize(
    "how",
    [{}, {"parts": 3}, {"chunksize": 2}, {"buffersize": 2}, {"buffersize": 4, "chunksize": 3}],
    ids=str,
)
def test_a_map_over_rows(how):
    rows = [(n, 2) for n in range(7)]

    assert pstarmap(pow, rows, **how) == list(itertools.starmap(pow, rows))
    assert pstarmap(pow, iter(rows), **how) == list(itertools.starmap(pow, rows))
    assert pstarmap(tasks.square, zip(range(3)), **how) == [0, 1, 4]
    assert pstarmap(pow, [], **how) == []


def test_a_map_over_rows_reads_no_more_than_it_is_told():
    assert pstarmap(pow, ((n, 2) for n in itertools.count()), size=3) == [0, 1, 4]
    with pytest.raises(tasks.Odd):
        pstarmap(tasks.no_odd, [(0,), (1,)])
    with pytest.raises(TypeError, match="callable"):
        pstarmap(42, [])


@pytest.mark.parametrize("chunksize", [1, 3, 99])
def test_how_many_items_are_a_task(chunksize, tmp_path):
    """One word for it here and in the executor's own map."""
    how = {"chunksize": chunksize}
    assert pmap(tasks.square, range(7), **how) == [n * n for n in range(7)]
    assert pmap(operator.add, range(7), range(7), **how) == [2 * n for n in range(7)]
    assert pmap(tasks.square, iter(range(7)), buffersize=4, **how) == [n * n for n in range(7)]
    assert pmapcan(range, range(4), **how) == [0, 0, 1, 0, 1, 2]
    assert pmap_into([0] * 3, tasks.square, range(3), **how) == [0, 1, 4]
    assert pmapc(abs, [1, 2], **how) == [1, 2]
    pdotimes(3, functools.partial(tasks.touch, str(tmp_path / "mark")), **how)
    assert sorted((tmp_path / "mark").read_text().split()) == ["0", "1", "2"]


def test_the_two_ways_to_divide_exclude_each_other():
    with pytest.raises(TypeError, match="exclude each other"):
        pmap(abs, [1], parts=1, chunksize=1)
    for wrong in (0, -1, True, 1.5):
        with pytest.raises((TypeError, ValueError), match="chunksize must"):
            pmap(abs, [1], chunksize=wrong)


# ---------------------------------------------------------------------------- errors


@pytest.mark.parametrize("how", [{}, {"parts": 3}, {"buffersize": 4}])
def test_errors_may_be_returned_or_skipped(how):
    items = [1, 0, 3, 0, 6]

    found = pmap(tasks.sixth, items, errors="return", **how)
    assert [each for each in found if isinstance(each, int)] == [6, 2, 1]
    assert [type(each) for each in found[1::2]] == [ZeroDivisionError] * 2
    assert [f"item {i} of" in found[i].__notes__[0] for i in (1, 3)] == [True, True]
    assert pmap(tasks.sixth, items, errors="skip", **how) == [6, 2, 1]
    assert pstarmap(tasks.sixth, [(i,) for i in items], errors="skip", **how) == [6, 2, 1]


def test_an_error_that_is_raised_is_the_first():
    with pytest.raises(ZeroDivisionError):
        pmap(tasks.sixth, [1, 0, 3, 0, 6])
    with pytest.raises(ValueError, match="errors must be one of"):
        pmap(tasks.sixth, [1], errors="ignore")
