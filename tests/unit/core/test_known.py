"""Functions have numbers, and those that nobody needs make room for others."""

from __future__ import annotations

from types import SimpleNamespace

from remote_executor.core.known import Functions, Holdings


def encoded(body, buffers=(), key=None, parts=()):
    return SimpleNamespace(body=body, buffers=buffers, key=key or body, parts=parts, pure=True)


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


def test_large_buffers_of_functions_have_numbers_of_their_own():
    functions = Functions()
    array = encoded(b"", [b"a" * 100], b"array")

    first = functions.number(encoded(b"f", [b"a" * 100], parts=[array]))
    second = functions.number(encoded(b"g", [b"a" * 100], parts=[array, array]))

    (part,) = first.parts
    assert second.parts == (part, part)
    assert (part.buffers, part.size) == ([b"a" * 100], 100)
    assert (first.buffers, first.size) == ((), 1)
    assert functions.total_bytes == 102
    assert len({part.number, first.number, second.number}) == len(functions) == 3


def crowded_with_parts():
    functions = Functions(most=3)
    array = encoded(b"", [b"a"], b"array")
    function = functions.number(encoded(b"f", [b"a"], parts=[array]))
    others = [functions.number(encoded(body)) for body in (b"g", b"h")]
    return functions, function, others


def test_a_function_goes_before_its_parts():
    functions, function, _ = crowded_with_parts()

    assert functions.evict([]) == [function, *function.parts]


def test_parts_stay_with_their_function():
    functions, function, others = crowded_with_parts()

    assert functions.evict([function]) == others


def test_numbers_are_given_to_other_things_too():
    functions = Functions()

    number = functions.next_number()

    assert functions.number(encoded(b"f")).number > number
    assert len(functions) == 1


def test_a_server_holds_what_it_was_sent_until_it_is_told_to_forget():
    holdings = Holdings(100)

    assert not holdings.use(1)
    holdings.add(1, 60)
    assert holdings.use(1)
    assert (1 in holdings, len(holdings), holdings.total_bytes) == (True, 1, 60)
    assert holdings.discard(1)
    assert not holdings.discard(1)
    assert (1 in holdings, len(holdings), holdings.total_bytes) == (False, 0, 0)


def test_the_least_recently_used_make_room_and_no_more_than_must():
    holdings = Holdings(100)
    for number in range(1, 6):
        holdings.add(number, 20)
    holdings.use(1)

    assert holdings.crowded(1)
    assert not holdings.crowded(0)
    assert holdings.make_room(30, ()) == [2, 3]
    assert holdings.total_bytes == 60


def test_what_tasks_need_stays_even_if_that_is_too_much():
    holdings = Holdings(100)
    for number in range(1, 5):
        holdings.add(number, 30)

    assert holdings.make_room(50, {1, 2, 4}) == [3]
    assert holdings.crowded(50)


def test_what_is_larger_than_all_the_room_goes_into_an_empty_one():
    holdings = Holdings(100)
    assert not holdings.crowded(500)
    holdings.add(1, 500)

    assert holdings.make_room(1, ()) == [1]
    assert not holdings.crowded(1)
