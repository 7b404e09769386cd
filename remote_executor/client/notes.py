"""
What is said of a task beside its error: a note with item, task, attempt, worker and host.

::

    item 17 of parse ('b.txt'), attempt 2, ran in worker 4711 on node1 (node1:11111)

The error itself stays what it is: its class, its arguments, what it is equal to.
"""

from __future__ import annotations

import contextlib
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from remote_executor.printable import printable
from remote_executor.task_errors import ServerLost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_executor.core.tasks import Task

__all__ = [
    "add_note",
    "attempt_of",
    "item_at",
    "note_item",
    "note_task",
    "note_unsent",
    "note_words",
    "short_repr",
]

MAX_REPR = 100
"""Characters of an item in a note."""

MAX_PARTS = 6
"""Members of a list, a tuple, a dict or a set that are shown."""

MAX_DEPTH = 3

OPENINGS: dict[Any, Any] = {
    tuple: "()",
    list: "[]",
    set: "{}",
    frozenset: ("frozenset({", "})"),
    deque: "[]",
}


def short_repr(value: object) -> str:
    """
    Return a short text of any object: at most 100 characters, on one line.

    A ``__repr__`` that raises costs no more than the text. Of large texts and containers only the
    beginning is looked at.
    """
    try:
        text = _shown(value, MAX_DEPTH)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # whatever the object's own code raises
        text = f"<{type(value).__qualname__}, whose repr() raises {type(exc).__qualname__}>"
    return _cut(printable(text))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REPR else f"{text[: MAX_REPR - 3]}..."


def _shown(value: Any, depth: int) -> str:
    kind: Any = type(value)
    # Subclasses have a repr of their own as a rule; those that have not are cut in the same way.
    if isinstance(value, (str, bytes, bytearray)) and kind.__repr__ in _OF_TEXTS:
        return repr(value[:MAX_REPR]) + ("..." if len(value) > MAX_REPR else "")
    if kind is int and value.bit_length() > 4 * MAX_REPR:
        return f"<an int of {value.bit_length()} bits>"
    if kind.__repr__ is dict.__repr__:
        return _joined(
            "{}",
            (
                f"{_shown(k, depth - 1)}: {_shown(v, depth - 1)}"
                for k, v in islice(value.items(), MAX_PARTS)
            ),
            len(value),
            depth,
        )
    if kind in OPENINGS:
        parts = (_shown(each, depth - 1) for each in islice(value, MAX_PARTS))
        ends = "()" if kind is tuple and len(value) != 1 else OPENINGS[kind]
        if kind is tuple and len(value) == 1:
            ends = ("(", ",)")
        return _joined(ends, parts, len(value), depth)
    return _cut(repr(value))


_OF_TEXTS: Any = (str.__repr__, bytes.__repr__, bytearray.__repr__)


def _joined(ends: Any, parts: Iterator[str], count: int, depth: int) -> str:
    if not depth:
        return f"{ends[0]}...{ends[1]}"
    more = [f"... {count - MAX_PARTS} more"] if count > MAX_PARTS else []
    return f"{ends[0]}{', '.join([*parts, *more])}{ends[1]}"


def add_note(error: BaseException, note: str) -> BaseException:
    """
    Return an error with one more note, which is printed with it from Python 3.11 on.

    An exception that takes no attributes stays as it is: it is worth more than the note.
    """
    with contextlib.suppress(Exception):
        notes = getattr(error, "__notes__", None)
        if notes is None:
            # Not by setattr, which some exceptions do not allow; add_note() is not in 3.10.
            error.__dict__["__notes__"] = [note]
        elif note not in notes:
            notes.append(note)
    return error


def item_at(items: Any, index: int) -> Any:
    """Return an item of what can be sliced."""
    return next(iter(items[index : index + 1]))


def note_unsent(error: BaseException, name: str | None) -> BaseException:
    """Return the error of a task that could not be sent, with a note that says which it was."""
    return add_note(error, f"task {printable(name or 'task')}, did not run")


def note_task(error: BaseException, task: Task, pid: int | None, place: str) -> BaseException:
    """
    Return the error of a task with a note that says which it was and where it ran.

    Args:
        error: What it raised, or what became of it.
        task: The task; of a batch it is not known which item it was.
        pid: The process id of its worker, if that is known.
        place: Where it ran; empty if it did not.
    """
    what = f"task {_name(task)}"
    if task.feed is not None:
        if task.count == 1:
            return note_item(error, task, 0, pid, place)
        what = f"one of items {task.first} to {task.first + task.count - 1} of {_name(task)}"
    return add_note(error, f"{what}, {_how(task, error, pid, place)}")


def note_words(task: Task, pid: int | None, place: str) -> str:
    """
    Return the note for a single task that has failed, for who adds it elsewhere.

    Args:
        task: The task.
        pid: The process id of its worker, if that is known.
        place: Where it ran.
    """
    return f"task {_name(task)}, {_how(task, Exception(), pid, place)}"


def note_item(
    error: BaseException, task: Task, index: int, pid: int | None, place: str
) -> BaseException:
    """
    Return the error of one item of a batch with a note that says which it was and where it ran.

    Args:
        error: What the function raised for it.
        task: The batch.
        index: Which item of the batch it was.
        pid: The process id of its worker, if that is known.
        place: Where it ran; empty if it did not.
    """
    shown = ""
    with contextlib.suppress(Exception):  # they are the user's, and may have changed since
        shown = f" ({short_repr(item_at(task.items, index))})"
    number = task.first + index
    numbers = getattr(task.sink, "numbers", None)
    if numbers is not None:  # a map that was resumed
        number = numbers[number]
    what = f"item {number} of {_name(task)}{shown}"
    return add_note(error, f"{what}, {_how(task, error, pid, place)}")


def _name(task: Task) -> str:
    return printable(task.name or "task")


def _how(task: Task, error: BaseException, pid: int | None, place: str) -> str:
    """Say which attempt it was, and where it ran."""
    if not pid and not place:
        return "did not run"
    attempt = attempt_of(task) - isinstance(error, ServerLost)
    return f"attempt {attempt}, ran{f' in worker {pid}' if pid else ''} on {place}"


def attempt_of(task: Task) -> int:
    """Return how often a task was tried by now, the present try included."""
    return 1 + len(task.lost_with) + (0 if task.retrying is None else task.retrying.tries)
