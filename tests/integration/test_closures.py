"""What a function captures, and when: lfarm's tests of closures, by a kernel on a farm."""

from __future__ import annotations

import functools
import threading

import pytest

from remote_executor import PayloadError
from remote_executor.parallel import Channel, broadcast_task, future, pmap, promise
from tests.integration.test_kernel_parity import code
from tests.support import tasks
from tests.support.scale import scaled

LIMIT = scaled(20)


@pytest.fixture(autouse=True)
def kernel(farm):
    with farm.as_kernel():
        yield


def ask(fn, *args, **kwargs):
    return future(fn, *args, **kwargs).result(LIMIT)


def test_free_variables_and_only_they():
    """L1, L7: x and y are captured; z is the function's own, whatever it is here."""
    x, y, z = 1, 2, threading.Lock()

    assert ask(lambda z: [x, y, z], 3) == [1, 2, 3]
    assert ask(lambda y: x + y, 6) == 7
    assert z is not None


def test_variables_in_every_corner_of_a_body():
    """L3."""
    base, width = 10, 5

    def corners(numbers):
        count = 0

        def up():
            nonlocal count
            count += base
            return count

        listed = [n + base for n in numbers if n < width]
        named = {f"{base}-{n:>{width}}": (lambda m: m * base) for n in numbers}
        return listed, {k: f(2) for k, f in named.items()}, up() + up(), [*(base for _ in numbers)]

    assert ask(corners, [1, 7]) == corners([1, 7])


def test_attributes_of_a_captured_object():
    """L4, L10: its class is known here only."""

    class Point:
        def __init__(self, x, y):
            self.x, self.y = x, y

        def scaled(self, factor):
            return Point(self.x * factor, self.y * factor)

    point = Point(3, 4)

    assert ask(lambda: point.x + point.y) == 7
    assert ask(lambda p: p.scaled(2).y, point) == 8
    assert ask(lambda: type(point).__name__) == "Point"


def test_defaults_and_keywords_survive():
    """L5."""
    three = 3

    def options(a, /, b=2, *rest, c=three, **more):
        return a, b, rest, c, more

    assert ask(options, 1) == (1, 2, (), 3, {})
    assert ask(options, 1, 5, 6, c=7, d=8) == (1, 5, (6,), 7, {"d": 8})


def test_a_function_of_a_module_that_no_server_has():
    """L6: evaluated elsewhere, it computes the same."""
    names = code("FACTOR = 6\n\ndef scale(x):\n    return x * FACTOR\n")

    assert ask(names["scale"], 7) == 42
    assert pmap(names["scale"], [1, 2]) == [6, 12]


def test_inner_names_shadow_outer_ones():
    """L8."""
    x = 7

    def shadow():
        outer = x

        def inner(x):
            return [x * 1 for x in [x + outer]].pop()

        return inner(7)

    assert ask(shadow) == 14


def test_an_instance_of_a_class_that_was_broadcast():
    """L10, P8: the body sees variables of where it was made, and the slots of an object."""

    class Account:
        def __init__(self, balance):
            self.balance = balance

    assert broadcast_task(tasks.same, Account) == [Account, Account]
    account, interest = Account(100), 5

    assert ask(lambda years: account.balance + interest * years, 2) == 110


def test_a_decorated_function_with_cells():
    """L11."""
    calls_of = {"seen": 2}

    def times(n):
        def decorate(fn):
            @functools.wraps(fn)
            def wrapper(*args):
                return [fn(*args) for _ in range(n)]

            return wrapper

        return decorate

    @times(calls_of["seen"])
    def double(x):
        """Return it twice."""
        return 2 * x

    assert ask(double, 4) == [8, 8]
    assert ask(lambda: double.__doc__) == "Return it twice."


def test_functions_are_captured_too():
    """L16: also such as call each other."""

    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert ask(lambda n: (even(n), odd(n)), 7) == (False, True)


def test_only_what_the_code_names_travels():
    """L17: a lock beside it in its module is no hindrance; a lock that it names is."""
    lock = threading.Lock()
    names = code(
        "def free(x):\n    return x + 1\n\ndef bound():\n    return LOCK.locked()\n", LOCK=lock
    )

    assert ask(names["free"], 1) == 2
    error = future(names["bound"]).exception(LIMIT)
    assert isinstance(error, PayloadError)
    assert "lock" in str(error)


def test_the_value_is_that_of_the_submit():
    """L12, L13, L14, K71: for a channel and futures; what a task changes is gone after it."""
    box = [0]

    def bump():
        box[0] += 1
        return box[0]

    channel = Channel()
    found = []
    for value in (10, 20, 30):
        box[0] = value
        channel.submit(bump)
        found.append(future(bump))
    box[0] = 0

    assert sorted(channel) == [11, 21, 31]
    assert [each.result(LIMIT) for each in found] == [11, 21, 31]
    assert pmap(lambda _: bump(), range(2), parts=2) == [1, 1]
    assert [ask(bump) for _ in range(4)] == [1] * 4
    assert box == [0]


def test_what_belongs_here_cannot_be_captured(farm):
    """P9: promises, futures, channels, executors, locks. The future says so, and what.

    As an argument a future is waited for.
    """
    for mine, words in [
        (promise(), "promise"),
        (future(abs, 1), "Future"),
        (Channel(), "Channel"),
        (farm, "FarmExecutor"),
        (threading.Lock(), "lock"),
    ]:
        error = future(lambda mine=mine: mine).exception(LIMIT)
        assert isinstance(error, PayloadError), mine
        assert words in str(error)
        if words == "Future":
            assert ask(tasks.same, mine) == 1
            continue
        error = future(tasks.same, mine).exception(LIMIT)
        assert isinstance(error, PayloadError), mine
        assert words in str(error)
    assert ask(abs, -1) == 1
