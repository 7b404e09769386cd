"""What is said of a task beside its error."""

from __future__ import annotations

from collections import OrderedDict, deque
from types import SimpleNamespace

import pytest

from remote_executor.client.notes import MAX_REPR, add_note, note_item, note_task, short_repr
from remote_executor.core.tasks import Feed, Task
from remote_executor.task_errors import ServerLost


class Raises:
    def __init__(self, error):
        self._error = error

    def __repr__(self):
        raise self._error


class Long(list):
    pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (17, "17"),
        ("b.txt", "'b.txt'"),
        ((), "()"),
        ((1,), "(1,)"),
        ((1, [2, {3}], {"a": b"x"}), "(1, [2, {3}], {'a': b'x'})"),
        (frozenset({1}), "frozenset({1})"),
        (deque([1]), "[1]"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, ... 94 more]"),
        ([[[[[1]]]]], "[[[[...]]]]"),
        ("a\nb\x1b[31m", r"'a\nb\x1b[31m'"),
        (OrderedDict(a=1), repr(OrderedDict(a=1))),
        (Raises(SystemExit(3)), "<Raises, whose repr() raises SystemExit>"),
        (Raises(RecursionError()), "<Raises, whose repr() raises RecursionError>"),
    ],
)
def test_a_short_text_of_anything(value, text):
    assert short_repr(value) == text


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**7,
        b"x" * 10**7,
        bytearray(10**7),
        list(range(10**6)),
        dict.fromkeys(range(10**6)),
        set(range(10**6)),
        [["x" * 10**6] * 9] * 9,
        Long(range(1000)),
        SimpleNamespace(text="x" * 10**6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_huge_is_cut(value):
    assert len(short_repr(value)) <= MAX_REPR


def test_a_huge_int_has_no_text():
    assert short_repr(10**5000) == "<an int of 16610 bits>"


def test_a_ring_ends():
    ring = []
    ring.append(ring)

    assert short_repr(ring) == "[[[[...]]]]"


def test_a_ctrl_c_in_a_repr_is_no_text():
    with pytest.raises(KeyboardInterrupt):
        short_repr(Raises(KeyboardInterrupt()))


def task(name="parse", feed=None, items=None, **fields):
    made = Task(1, None, None, b"")
    made.name, made.feed, made.items = name, feed, items
    made.first, made.count = fields.pop("first", 0), len(items or [0])
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def test_a_single_task_is_named():
    error = note_task(ValueError("x"), task(), 4711, "node1 (node1:1)")

    assert error.__notes__ == ["task parse, attempt 1, ran in worker 4711 on node1 (node1:1)"]


def test_a_task_that_never_left_did_not_run():
    assert note_task(ValueError(), task(), None, "").__notes__ == ["task parse, did not run"]


def test_the_attempt_counts_lost_servers_and_other_tries():
    tried = task(lost_with=("a", "b"), retrying=SimpleNamespace(tries=3))

    assert note_task(ValueError(), tried, None, "c").__notes__ == [
        "task parse, attempt 6, ran on c"
    ]
    (note,) = note_task(
        ServerLost("parse", ["a", "b"]), task(lost_with=("a", "b")), None, "a, b"
    ).__notes__
    assert "attempt 2," in note


def test_an_item_is_named_by_its_number_and_a_short_repr():
    batch = task(feed=Feed(None, None, None), items=["a", "b" * 1000], first=16)

    (note,) = note_item(ValueError(), batch, 1, 7, "node1").__notes__

    assert note.startswith("item 17 of parse ('bbbb")
    assert note.endswith("...), attempt 1, ran in worker 7 on node1")


def test_of_a_whole_batch_it_is_one_of_its_items():
    batch = task(feed=Feed(None, None, None), items=["a", "b"], first=16)

    assert note_task(ValueError(), batch, 7, "n").__notes__ == [
        "one of items 16 to 17 of parse, attempt 1, ran in worker 7 on n"
    ]


def test_a_note_is_said_once_and_behind_those_that_there_are():
    error = add_note(add_note(ValueError("x"), "first"), "second")

    assert add_note(error, "second").__notes__ == ["first", "second"]


class Frozen(Exception):
    def __setattr__(self, name, value):
        raise TypeError("no attributes here")


class Odd(Exception):
    __notes__ = 5


def test_an_error_that_forbids_attributes_has_its_note_all_the_same():
    assert add_note(Frozen("x"), "note").__notes__ == ["note"]


def test_an_error_whose_notes_are_none_stays_as_it_is():
    error = Odd("x")

    assert add_note(error, "note") is error
    assert vars(error) == {}
