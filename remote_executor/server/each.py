"""A batch of a map in which an item that fails does not end the others."""

from __future__ import annotations

import pickle
import socket
from typing import TYPE_CHECKING, Any

from remote_executor.payload.failures import encode_failure
from remote_executor.payload.pickles import dump_result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from remote_executor.wire.frames import Buffer

__all__ = ["pack_each", "run_each"]

Failures = list[tuple[int, BaseException]]
"""The index in the batch of each item that failed, and what it raised."""


def run_each(
    function: Callable[..., Any],
    items: Sequence[Any],
    star: bool,
    is_end: Callable[[BaseException], bool],
) -> tuple[list[Any], Failures]:
    """
    Call a function with each item.

    Args:
        function: What to call.
        items: The items.
        star: Whether each is a tuple of arguments.
        is_end: Tells of what was raised whether it is meant for the whole batch: it is raised.

    Returns:
        The values of those that went well, and the others' errors.
    """
    values: list[Any] = []
    failures: Failures = []
    for index, item in enumerate(items):
        try:
            values.append(function(*item) if star else function(item))
        except BaseException as exc:
            if is_end(exc):
                raise
            failures.append((index, exc))
    return values, failures


def pack_each(
    values: list[Any], failures: Failures
) -> tuple[bytes, Sequence[Buffer], tuple[bytes, bytes] | None]:
    """
    Pickle what became of each item of a batch.

    Args:
        values: The values of those that went well.
        failures: The others' errors. Those whose values cannot be pickled come to it.

    Returns:
        The pickle of the values, its buffers, and of the failures the summary of the first and the
        pickle of all; None if there are none.
    """
    try:
        body, buffers = dump_result(values)
    except Exception:
        failures += _take_unpicklable(values, failures)
        failures.sort(key=_index)
        body, buffers = dump_result(values)
    if not failures:
        return body, buffers, None
    packed = [(index, *encode_failure(exc, 1, socket.gethostname)) for index, exc in failures]
    summary = packed[0][1]
    failures.clear()  # their frames refer to them, and to all items
    return body, buffers, (summary, pickle.dumps(packed, 5))


def _index(failure: tuple[int, BaseException]) -> int:
    return failure[0]


def _take_unpicklable(values: list[Any], failures: Failures) -> Failures:
    """Take the values that cannot be pickled out of a list; return where they stood, and why."""
    failed = {index for index, _ in failures}
    indices = [each for each in range(len(values) + len(failed)) if each not in failed]
    found: Failures = []
    kept = []
    for index, value in zip(indices, values, strict=True):
        try:
            dump_result(value)
        except Exception as exc:
            found.append((index, exc))
        else:
            kept.append(value)
    values[:] = kept
    return found
