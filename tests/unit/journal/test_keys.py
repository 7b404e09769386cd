"""What a result is called: equal for equal functions and items, and only for those."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from decimal import Decimal

import pytest

from remote_executor.errors import PayloadError
from remote_executor.journal.keys import encode, identity, key_of
from tests.support.house import ROOT
from tests.support.scale import scaled

VALUES = [
    None,
    1,
    1.5,
    -0.0,
    "text",
    b"bytes",
    (1, "a"),
    [1, "a"],
    {"b": 1, "a": [2]},
    {"one", "two", "three", "four"},
    frozenset({("a", 1), ("b", 2)}),
    {"k": {"x", "y"}, "l": [{"z"}]},
    Decimal("1.10"),
    range(3),
    2**100,
]


def in_another_process(seed):
    code = (
        "from tests.unit.journal.test_keys import VALUES, encode\n"
        "print([encode(value).hex() for value in VALUES])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=scaled(60),
    )
    return done.stdout


def test_equal_values_have_equal_keys_in_every_process():
    here = f"{[encode(value).hex() for value in VALUES]}\n"

    assert in_another_process("1") == in_another_process("2") == here


def test_unlike_values_have_unlike_keys():
    others = [0, "1", (1,), [1], (1, "b"), {"a": [2], "b": 1}, {"one"}, (("a", 1), ("b", 2)), 0.0]

    assert len({encode(value) for value in [*VALUES, *others]}) == len(VALUES) + len(others)


def test_what_is_one_object_or_two_makes_no_difference():
    one, other = (text.encode().decode() for text in ("a b", "a b"))
    assert one is not other

    assert encode([one, [one, one]]) == encode([one, [other, "a b"]])
    assert encode((one, one)) == encode((one, other))


def test_a_ring_has_a_key_too():
    ring = [1]
    ring.append(ring)
    other = [1]
    other.append(other)

    assert encode(ring) == encode(other)


def test_what_cannot_be_pickled_has_none():
    with pytest.raises(PayloadError, match=r"give Journal\(key=\.\.\.\)"):
        key_of(b"", threading.Lock())


def made(source, name="work", **names):
    """Return a function of a program."""
    space = {"__name__": "__main__", **names}
    exec(compile(source, "program.py", "exec"), space)
    return space[name]


BASE = """
FACTOR = 2
TABLE = {"a": 1}

def helper(x):
    return x * FACTOR

class Model:
    size = 3
    def run(self, x):
        return x + self.size

def work(x, y=1):
    return helper(x) + y + TABLE["a"] + Model().run(x)
"""


def test_the_same_program_is_the_same_wherever_its_lines_are():
    assert identity(made(BASE)).digest == identity(made("\n# moved\n\n" + BASE)).digest


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        ("return helper(x) + y", "return helper(x) - y", "code of the function"),
        ("return x * FACTOR", "return x + FACTOR", "code of helper"),
        ("FACTOR = 2", "FACTOR = 3", "FACTOR"),
        ('TABLE = {"a": 1}', 'TABLE = {"a": 2}', "TABLE"),
        ("y=1", "y=2", "defaults of the function"),
        ("return x + self.size", "return x - self.size", "Model.run"),
        ("size = 3", "size = 4", "Model.size"),
    ],
)
def test_whatever_it_is_made_of_counts_and_is_named(before, after, part):
    one, other = identity(made(BASE)), identity(made(BASE.replace(before, after)))

    assert one.digest != other.digest
    changed = [name for name in one.parts if one.parts[name] != other.parts.get(name)]
    assert any(part in name for name in changed)


def test_what_does_not_count():
    assert identity(made(BASE)).digest == identity(made(BASE + "\nOTHER = 1\n")).digest


def test_what_is_captured_and_what_is_bound_counts():
    def outer(n):
        return lambda x: x + n

    assert identity(outer(1)).digest == identity(outer(1)).digest
    assert identity(outer(1)).digest != identity(outer(2)).digest
    assert identity(functools.partial(pow, 2)).digest != identity(functools.partial(pow, 3)).digest


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor

    def times(self, x):
        return x * self.factor


def test_objects_and_methods():
    assert identity(Scaled(2)).digest == identity(Scaled(2)).digest
    assert identity(Scaled(2)).digest != identity(Scaled(3)).digest
    assert identity(Scaled(2).times).digest != identity(Scaled(3).times).digest
    assert identity(pow).digest != identity(abs).digest


def test_sets_in_code_are_equal_whatever_their_order():
    source = "def work(x):\n    return x in {'a', 'b', 'c', 'd'}"

    assert identity(made(source)).digest == identity(made(source)).digest


def test_a_change_in_the_running_program_is_seen():
    function = made(BASE)
    before = identity(function).digest
    space = function.__globals__
    space["FACTOR"] = 5
    changed = identity(function).digest
    assert changed != before
    space["FACTOR"] = 2
    assert identity(function).digest == before
    space["TABLE"]["a"] = 7  # in place
    assert identity(function).digest != before

    simple = made("N = 1\ndef work(x):\n    return x + N")
    first = identity(simple)
    assert identity(simple) is first
    simple.__globals__["N"] = 2
    assert identity(simple).digest != first.digest
    simple.__code__ = made("def work(x):\n    return x").__code__
    assert identity(simple).digest not in (first.digest, before)


def test_functions_that_call_each_other():
    source = "def work(x):\n    return other(x)\ndef other(x):\n    return work(x) if x else 0"

    assert identity(made(source)).digest == identity(made(source)).digest
    assert (
        identity(made(source)).digest != identity(made(source.replace("else 0", "else 1"))).digest
    )
