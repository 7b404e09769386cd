"""Functions have numbers, and those that nobody needs make room for others."""

from __future__ import annotations

from types import SimpleNamespace

from remote_executor.core.known import Functions


def encoded(body, buffers=(), key=None):
    return SimpleNamespace(body=body, buffers=buffers, key=key or body, pure=True)


def test_equal_functions_have_one_number_and_others_another():
    functions = Functions()

    first = functions.number(encoded(b"f"))
    other = functions.number(encoded(b"g"))

    assert functions.number(encoded(b"f")) is first
    assert first.number != other.number
    assert len(functions) == 2


def test_a_function_is_found_without_giving_it_a_number():
    functions = Functions()

    assert functions.find(encoded(b"f")) is None
    first = functions.number(encoded(b"f"))
    assert functions.find(encoded(b"f")) is first
    assert len(functions) == 1


def test_a_function_is_as_large_as_its_pickle_and_its_buffers():
    functions = Functions()

    function = functions.number(encoded(b"f" * 10, [b"x" * 100, memoryview(b"y" * 1000)]))

    assert function.size == 1110
    assert functions.total_bytes == 1110
    assert (function.key, bytes(function.body), function.pure) == (b"f" * 10, b"f" * 10, True)


def test_it_is_crowded_above_either_limit():
    functions = Functions(most=2, most_bytes=10)
    functions.number(encoded(b"f" * 10))
    assert not functions.crowded()

    functions.number(encoded(b"g"))
    assert functions.crowded()  # 11 bytes

    functions = Functions(most=2)
    for body in b"f", b"g", b"h":
        functions.number(encoded(body))
    assert functions.crowded()


def test_the_least_recently_used_leave_until_a_quarter_of_the_room_is_free():
    functions = Functions(most=4)
    numbered = {body: functions.number(encoded(body)) for body in (b"a", b"b", b"c", b"d", b"e")}
    functions.number(encoded(b"a"))

    evicted = functions.evict(in_use=[])

    assert evicted == [numbered[b"b"], numbered[b"c"]]
    assert len(functions) == 3
    assert functions.total_bytes == 3
    assert functions.number(encoded(b"b")).number > numbered[b"e"].number


def test_large_ones_leave_until_a_quarter_of_the_bytes_is_free():
    functions = Functions(most_bytes=100)
    numbered = [functions.number(encoded(bytes([n]) * 40)) for n in range(3)]

    assert functions.evict(in_use=[]) == numbered[:2]
    assert not functions.crowded()


def test_functions_of_unsettled_tasks_stay():
    functions = Functions(most=2)
    numbered = [functions.number(encoded(bytes([n]))) for n in range(4)]

    assert functions.evict(in_use=[numbered[0], numbered[2], numbered[2]]) == [
        numbered[1],
        numbered[3],
    ]
    assert functions.number(encoded(bytes([0]))) is numbered[0]


def test_nothing_leaves_where_all_are_in_use():
    functions = Functions(most=1)
    numbered = [functions.number(encoded(bytes([n]))) for n in range(3)]

    assert functions.evict(in_use=numbered) == []
    assert functions.crowded()
