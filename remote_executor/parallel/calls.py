"""
What runs at the other end: small and light, since workers import it.

A farm's worker knows that it is one. Elsewhere a task may run in a thread of this process or in a
process that never heard of us, so there each call travels as one :class:`Call`.
"""

from __future__ import annotations

import itertools
import operator
import os
import pickle
import sys
from array import array
from functools import cmp_to_key, partial, reduce
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence, Sized

__all__ = [
    "Call",
    "Raised",
    "count_part",
    "each_part",
    "effect",
    "every_part",
    "find_part",
    "flag_part",
    "map_part",
    "negated",
    "reduce_part",
    "same",
    "some_part",
    "sort_array",
    "sort_part",
    "starmap_part",
    "thunk",
    "truth",
]

_count = itertools.count()
_origin = os.urandom(16).hex()


class Call:
    """
    A function and its arguments, to be called with no argument and in another place.

    What travels is one object: no engine finds keywords of its own among the arguments, looks into
    them for futures, or takes two calls for one since they are equal. While it runs, the current
    kernel is a serial one, so nested use never waits for the worker that it runs on.

    Args:
        fn: What to call.
        args: With which positional arguments.
        kwargs: With which keyword arguments.
    """

    __slots__ = ("args", "fn", "kwargs", "token")

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.token = f"{_origin}-{os.getpid()}-{next(_count)}"

    def __call__(self) -> Any:
        from remote_executor.parallel.serial import in_serial

        with in_serial():
            if "distributed.worker" in sys.modules:
                from remote_executor.parallel.engines import call_in_dask

                return call_in_dask(self.fn, self.args, self.kwargs)
            return self.fn(*self.args, **self.kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            pickle.dumps(self.fn, 5, buffer_callback=lambda _: None)
        except Exception:
            # A lambda or a closure: not every engine takes those by itself.
            from remote_executor.payload.pickles import dump

            body, buffers = dump(self.fn, "the function")
            return _load, (body, list(map(bytes, buffers)), self.args, self.kwargs)
        return Call, (self.fn, self.args, self.kwargs)

    def __dask_tokenize__(self) -> str:
        """Tell Dask what this is equal to: nothing else."""
        return self.token

    def __repr__(self) -> str:
        return f"<Call of {getattr(self.fn, '__qualname__', self.fn)}>"


def _load(body: bytes, buffers: list[bytes], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    from remote_executor.payload.pickles import load

    return Call(load(body, buffers), args, kwargs)


# ---------------------------------------------------------------------------- maps


def map_part(fn: Callable[[Any], Any], items: Any) -> list[Any]:
    """Return what a function gives for each item."""
    return _as_many(list(map(fn, items)), items)


def starmap_part(fn: Callable[..., Any], rows: Any) -> list[Any]:
    """Return what a function gives for each row of arguments."""
    return _as_many(list(itertools.starmap(fn, rows)), rows)


class Raised:
    """
    Stands among the results of a part for an item that has failed.

    Args:
        error: What was raised.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        from remote_executor.payload.failures import encode_failure

        return _raised, encode_failure(self.error)

    def __repr__(self) -> str:
        return f"<Raised {self.error!r}>"


def _raised(summary: bytes, pickled: bytes) -> Raised:
    from remote_executor.payload.failures import decode_failure

    return Raised(decode_failure(summary, pickled))


def each_part(fn: Callable[..., Any], star: bool, goes_on: bool, items: Any) -> list[Any]:
    """
    Return what a function gives for each item, and a :class:`Raised` for one that fails.

    Args:
        fn: What to call.
        star: Whether each item is a row of arguments.
        goes_on: Whether to go on after an item that fails.
        items: The part.
    """
    results: list[Any] = []
    for item in items:
        try:
            results.append(fn(*item) if star else fn(item))
        except Exception as exc:
            exc.__traceback__ = exc.__traceback__ and exc.__traceback__.tb_next
            results.append(Raised(exc))
            if not goes_on:
                break
    return results


def _as_many(results: list[Any], items: Sized) -> list[Any]:
    if len(results) < len(items):  # a list takes a StopIteration for the end
        raise RuntimeError("the function raised StopIteration")
    return results


def effect(fn: Callable[..., object], *args: Any) -> None:
    """Call a function and forget what it returns: nothing needs to travel back."""
    fn(*args)


def thunk(fn: Callable[[], Any], _: int) -> Any:
    """Call a function of no argument."""
    return fn()


# ------------------------------------------------------------------------- reduces

OPERATORS = (
    (operator.add, "add"),
    (operator.mul, "multiply"),
    (operator.and_, "bitwise_and"),
    (operator.or_, "bitwise_or"),
    (operator.xor, "bitwise_xor"),
)
"""What numpy calls operators."""

KINDS = {
    **dict.fromkeys(["add", "multiply", "minimum", "maximum", "fmin", "fmax"], "biufc"),
    **dict.fromkeys(["bitwise_and", "bitwise_or", "bitwise_xor"], "biu"),
    **dict.fromkeys(["gcd", "lcm"], "iu"),
    **dict.fromkeys(["logaddexp", "logaddexp2", "hypot"], "f"),
    **dict.fromkeys(["logical_and", "logical_or", "logical_xor"], "b"),
}
"""The associative ufuncs, and of which kinds of numbers they make the same kind again."""


def reduce_part(
    fn: Callable[[Any, Any], Any],
    key: Callable[[Any], Any] | None,
    from_end: bool,
    initial: tuple[Any, ...],
    items: Any,
    has_initial: bool = True,
) -> Any:
    """
    Reduce the items of a part, of which there is at least one.

    Args:
        fn: Takes two values and returns one.
        key: Applied to each item first; None for the items themselves.
        from_end: Whether to begin with the last two.
        initial: A tuple of the initial value, or an empty one.
        items: The part.
        has_initial: Whether the initial value counts in this part. If not, it says no more than
            of which type numpy's results are.
    """
    numpy = sys.modules.get("numpy")
    is_array = type(items) is getattr(numpy, "ndarray", None)
    if is_array and key is None and not from_end:
        found = _reduce_array(numpy, fn, initial, items, has_initial)
        if found:
            return found[0]
    if not has_initial:
        initial = ()
    values: Iterable[Any] = items if key is None else map_part(key, items)
    if from_end:
        return reduce(lambda value, item: fn(item, value), reversed(list(values)), *initial)
    return reduce(fn, values, *initial)


def _reduce_array(
    numpy: Any, fn: Any, initial: tuple[Any, ...], items: Any, has_initial: bool
) -> tuple[Any, ...]:
    """Reduce an array as the loop does, and faster: a tuple of the result, empty if it cannot."""
    name: str | None = None
    if isinstance(fn, numpy.ufunc):
        name = str(fn.__name__)
        if getattr(numpy, name, None) is not fn:
            return ()
    elif fn is min or fn is max:
        # Of floats the loop's answer depends on where a NaN is, and rows have no order.
        if items.dtype.kind in "biu" and items.ndim == 1 and not initial:
            name = "minimum" if fn is min else "maximum"
    else:
        name = next((name for known, name in OPERATORS if known is fn), None)
    dtype = items.dtype
    if name is None or dtype.kind not in KINDS.get(name, ""):
        return ()
    if initial:
        # The loop goes on with the type that its first step has.
        first = fn(*initial, items[0])
        if not isinstance(first, (numpy.generic, numpy.ndarray)):
            return ()
        dtype = first.dtype
        if dtype.kind not in KINDS[name]:
            return ()
    # Arithmetic gives the machine's byte order, whatever that of its input.
    value = getattr(numpy, name).reduce(items, axis=0, dtype=dtype.newbyteorder("="))
    return (fn(*initial, value) if initial and has_initial else value,)


# --------------------------------------------------------------------------- finds


def negated(predicate: Callable[..., Any], *args: Any) -> bool:
    """Return the opposite of what a predicate says."""
    return not predicate(*args)


def truth(predicate: Callable[..., Any], *args: Any) -> bool:
    """Return whether what a predicate says is true, and nothing else of it."""
    return bool(predicate(*args))


def every_part(predicate: Callable[..., Any], star: bool, items: Any) -> bool:
    """Return whether a predicate is true of all items."""
    return all(predicate(*item) if star else predicate(item) for item in items)


def some_part(predicate: Callable[..., Any], star: bool, items: Any) -> tuple[Any, ...]:
    """Return a tuple of the first true value of a predicate, or an empty one."""
    for item in items:
        value = predicate(*item) if star else predicate(item)
        if value:
            return (value,)
    return ()


def same(item: Any, other: Any) -> bool:
    """Return whether two objects are equal as ``in`` means it."""
    return item is other or bool(item == other)


def find_part(
    predicate: Callable[..., Any],
    key: Callable[[Any], Any] | None,
    from_end: bool,
    items: Any,
    *given: Any,
) -> int:
    """
    Return the index of the first, or last, item of which a predicate is true; -1 for none.

    What is given beside the items is the predicate's first argument. It travels with them, so that
    an object that is among them is still the same one here.
    """
    if given:
        predicate = partial(predicate, *given)
    indices = range(len(items))
    ordered: Iterable[Any] = items
    if from_end:
        indices = indices[::-1]
        ordered = reversed(list(items))
    for index, item in zip(indices, ordered, strict=True):
        if predicate(item if key is None else key(item)):
            return index
    return -1


def flag_part(
    predicate: Callable[..., Any], key: Callable[[Any], Any] | None, items: Any, *given: Any
) -> bytes:
    """Return a byte for each item: whether a predicate is true of it. See find_part."""
    if given:
        predicate = partial(predicate, *given)
    flags = bytearray()
    for item in items:
        flags.append(1 if predicate(item if key is None else key(item)) else 0)
    return bytes(flags)


def count_part(
    predicate: Callable[..., Any], key: Callable[[Any], Any] | None, items: Any, *given: Any
) -> int:
    """Return of how many items a predicate is true. See find_part."""
    if given:
        predicate = partial(predicate, *given)
    count = 0
    for item in items:
        if predicate(item if key is None else key(item)):
            count += 1
    return count


# --------------------------------------------------------------------------- sorts


def sort_part(
    key: Callable[[Any], Any] | None,
    cmp: Callable[[Any, Any], int] | None,
    reverse: bool,
    items: Sequence[Any],
) -> tuple[array[int], list[Any] | None]:
    """Return where each item of the sorted part was, and with a key the sorted keys."""
    keys = list(items) if key is None else map_part(key, items)
    ranks = keys if cmp is None else list(map(cmp_to_key(cmp), keys))
    order = sorted(range(len(keys)), key=ranks.__getitem__, reverse=reverse)
    return array("Q", order), None if key is None else [keys[index] for index in order]


def sort_array(reverse: bool, items: Any) -> Any:
    """Return a numpy array sorted in ascending order; if it is to be reversed, equals as well."""
    return sys.modules["numpy"].sort(items[::-1] if reverse else items, kind="stable")
