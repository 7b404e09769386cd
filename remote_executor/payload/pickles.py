"""
Pickle and unpickle, with large buffers apart and with ``__main__`` done right.

Most objects go through C ``pickle``, which takes about a microsecond. It would be wrong for what
belongs to ``__main__``, since the worker's ``__main__`` is another one, and it refuses lambdas and
local functions. Those take the slower way in :mod:`remote_executor.payload.by_value`.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
from collections.abc import Callable, Sequence
from pickle import dumps, loads
from typing import TYPE_CHECKING, Any, TypeVar

from remote_executor.errors import CannotShip, PayloadError
from remote_executor.payload.code.calls import ArgumentPickler, ResultPickler
from remote_executor.payload.own_imports import load_own
from remote_executor.payload.pythons import abroad, python_words

if TYPE_CHECKING:
    from remote_executor.payload.by_value import Visit

__all__ = [
    "OUT_OF_BAND",
    "dump",
    "dump_copied",
    "dump_result",
    "guarded",
    "holds_code",
    "keeper",
    "load",
    "needs_by_value",
    "plainly",
]

#: Buffers of at least so many bytes travel apart from the pickle, without a copy.
OUT_OF_BAND = 64 * 1024

#: In every pickle that names ``__main__``, or ``__mp_main__`` in a child of multiprocessing. That
#: it is also in some that merely hold such a text costs them time, nothing else.
_MAIN = b"_main__"

#: In pickles that hold code.
_OF_CODE = b"cloudpickle", b"remote_executor.payload.mains", b"remote_executor.payload.code"

#: Types whose values are pickled in a moment, and hold nothing else.
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})

R = TypeVar("R")

_modules = sys.modules

#: Pickles made by hand: PROTO 5, then BINFLOAT or BININT, then STOP.
_NONE = dumps(None, 5)
_FLOAT = struct.Struct(">3sdc")
_INT = struct.Struct("<3sic")
_INTS = 2**31


def keeper(buffers: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """
    Make the callback for ``buffer_callback=`` that puts large buffers into a list.

    The pickler itself refuses buffers that are not contiguous.

    Args:
        buffers: Takes the large ones, as flat views on the live object.
    """

    def keep(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < OUT_OF_BAND:
            return True
        buffers.append(view)
        return False

    return keep


class _HasBuffersError(Exception):
    """Ends a pickling that took no care of buffers."""


def _stop(_: pickle.PickleBuffer) -> bool:
    raise _HasBuffersError


def needs_by_value(body: bytes) -> bool:
    """Tell whether the plain pickler's bytes would be wrong in another process."""
    if body.find(_MAIN) >= 0:
        return True
    cloudpickle = _modules.get("cloudpickle.cloudpickle")
    # The user may have asked for by-value pickling of whole modules.
    listed = getattr(cloudpickle, "list_registry_pickle_by_value", None)
    return listed is not None and bool(listed())


def plainly(obj: object) -> tuple[bytes, Sequence[memoryview]] | None:
    """
    Pickle with the C pickler.

    Args:
        obj: Anything.

    Returns:
        The pickle and its large buffers; None if it fails or would be wrong in another process.
    """
    # This is a hot path: most calls have no buffers, and a callback made for them costs a third.
    buffers: Sequence[memoryview] = ()
    try:
        body = dumps(obj, 5, buffer_callback=_stop)
    except _HasBuffersError:
        kept: list[memoryview] = []
        buffers = kept
        try:
            body = dumps(obj, 5, buffer_callback=keeper(kept))
        except Exception:
            return None
    except Exception:
        return None
    if body.find(_MAIN) >= 0:  # "in" costs five times as much: it tries an integer first
        return None
    cloudpickle = _modules.get("cloudpickle.cloudpickle")
    if cloudpickle is not None:
        # Another thread may be importing it: as long as the name is not there, nobody has asked.
        listed = getattr(cloudpickle, "list_registry_pickle_by_value", None)
        if listed is not None and listed():
            return None
    return body, buffers


def dump(obj: object, what: str = "object") -> tuple[bytes, Sequence[memoryview]]:
    """
    Pickle an object for a worker, together with what it needs of ``__main__``.

    Args:
        obj: Anything.
        what: What it is, in the words of an error. ``"call"`` means a pair of positional and
            keyword arguments, and an error names the argument.

    Returns:
        The pickle, and the large buffers that belong to it. The buffers are views on the live
        objects: change these only once the buffers are sent. Give both to :func:`load`.

    Raises:
        PayloadError: If some part of it cannot be pickled.
    """
    body, buffers, visit = dump_copied(obj, what)
    if visit is None:
        return body, buffers
    from remote_executor.payload.code.bundles import wrapped

    return wrapped(body, buffers, visit, what)


def dump_copied(
    obj: object, what: str = "object"
) -> tuple[bytes, Sequence[memoryview], Visit | None]:
    """
    Pickle what is copied to a worker, and tell what else it needs there.

    Args:
        obj: Anything.
        what: As for :func:`dump`.

    Returns:
        The pickle, its large buffers, and which names of ``__main__`` it needs, or None.

    Raises:
        PayloadError: If some part of it cannot be pickled.
    """
    if what == "call" and _is_plain(obj):
        return dumps(obj, 5), (), None

    def way(part: object) -> tuple[bytes, Sequence[memoryview], Visit | None]:
        file = io.BytesIO()
        buffers: list[memoryview] = []
        pickler = ArgumentPickler(file, keeper(buffers))
        pickler.waits = what == "call"
        pickler.dump(part)
        visit = pickler.visit
        if pickler.names or visit is not None:
            from remote_executor.payload.by_value import Visit

            visit = visit or Visit()
            visit.names.update(pickler.names)
        return file.getvalue(), buffers or (), visit

    return guarded(way, obj, what)


def _is_plain(call: Any) -> bool:
    if type(call) is not tuple or len(call) != 2:
        return False
    args, kwargs = call
    return not kwargs and _ATOMS.issuperset(map(type, args))


def dump_result(obj: object, what: str = "result") -> tuple[bytes, Sequence[memoryview]]:
    """
    Pickle an object in a worker, for the client.

    Functions and classes that came from the client's ``__main__`` go back by name, so that the
    client gets its own. What the task made itself travels by value.

    Args:
        obj: Anything.
        what: What it is, in the words of an error.

    Returns:
        The pickle, and the large buffers that belong to it, as :func:`dump` does.

    Raises:
        PayloadError: If some part of it cannot be pickled.
    """
    # Many tasks return nothing or a number, and the pickler costs more than the rest of the task.
    if obj is None:
        return _NONE, ()
    if type(obj) is float:
        return _FLOAT.pack(b"\x80\x05G", obj, b"."), ()
    if type(obj) is int and -_INTS <= obj < _INTS:
        return _INT.pack(b"\x80\x05J", obj, b"."), ()
    if type(obj) in _ATOMS:
        return dumps(obj, 5), ()
    foreign = bool(abroad.client)

    def way(part: object) -> tuple[bytes, Sequence[memoryview]]:
        file = io.BytesIO()
        buffers: list[memoryview] = []
        try:
            ResultPickler(file, keeper(buffers), foreign).dump(part)
        except CannotShip as error:
            raise error.between(python_words(), abroad.client) from error.__cause__
        return file.getvalue(), buffers or ()

    return guarded(way, obj, what)


def holds_code(body: bytes | bytearray | memoryview) -> bool:
    """
    Tell whether a pickle may hold code by value, which only an equal Python can load.

    Args:
        body: The pickle. That it merely mentions the modules which rebuild code counts too.
    """
    data = bytes(body)
    return any(each in data for each in _OF_CODE)


def load(body: bytes | bytearray | memoryview, buffers: Sequence[Any] = ()) -> Any:
    """
    Unpickle what :func:`dump` or :func:`dump_result` made.

    Args:
        body: The pickle.
        buffers: Its buffers, in order. Objects are built upon them without a copy.

    Raises:
        Exception: Anything, as unpickling runs code of the sender's choice.
    """
    if buffers:
        return loads(body, buffers=buffers)
    return loads(body)


def guarded(way: Callable[[object], R], obj: object, what: str) -> R:
    """
    Pickle something, and say what is wrong with it if it cannot be.

    Args:
        way: Pickles it, or a part of it.
        obj: Anything.
        what: What it is, in the words of an error.

    Raises:
        PayloadError: If it cannot be pickled.
    """
    for left in (2, 1, 0):
        try:
            return way(obj)
        except PayloadError:
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, RuntimeError) and "during iteration" in reason:
                if left:
                    continue  # another thread has changed a container meanwhile
                reason = f"another thread changes it all the time: {reason}"
            load_own("remote_executor.payload.culprits")
            from remote_executor.payload.culprits import blame

            raise PayloadError(blame(obj, what, way), reason) from error
    raise AssertionError  # pragma: no cover
