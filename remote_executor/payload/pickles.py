"""
Pickle and unpickle, with large buffers apart and with ``__main__`` done right.

Most objects go through C ``pickle``, which takes about a microsecond. It would be wrong for what
belongs to ``__main__``, since the worker's ``__main__`` is another one, and it refuses lambdas and
local functions. Those take the slower way in :mod:`remote_executor.payload.by_value`.
"""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Callable, Sequence
from pickle import dumps, loads
from typing import TYPE_CHECKING, Any

from remote_executor.errors import PayloadError
from remote_executor.payload.own_imports import load_own
from remote_executor.payload.pythons import abroad

if TYPE_CHECKING:
    from remote_executor.payload.by_value import Visit

__all__ = [
    "OUT_OF_BAND",
    "dump",
    "dump_result",
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


def dump(
    obj: object, what: str = "object", visit: Visit | None = None
) -> tuple[bytes, Sequence[memoryview]]:
    """
    Pickle an object for a worker.

    Args:
        obj: Anything.
        what: What it is, in the words of an error. ``"call"`` means a pair of positional and
            keyword arguments, and an error names the argument.
        visit: Takes what must travel by value, for :class:`FunctionCache`.

    Returns:
        The pickle, and the large buffers that belong to it. The buffers are views on the live
        objects: change these only once the buffers are sent. Give both to :func:`load`.

    Raises:
        PayloadError: If some part of it cannot be pickled.
    """
    found = plainly(obj)
    return _by_value(obj, what, visit) if found is None else found


def _by_value(obj: object, what: str, visit: Visit | None) -> tuple[bytes, Sequence[memoryview]]:
    from remote_executor.payload import by_value

    def way(part: object) -> tuple[bytes, list[memoryview]]:
        return by_value.dump_for_worker(part, visit)

    return _slowly(way, obj, what)


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
    found = plainly(obj)
    if found is not None:
        return found
    if abroad.client:
        load_own("remote_executor.payload.by_source")
        from remote_executor.payload.by_source import dump_for_foreign_client as dump_for_client
    else:
        load_own("remote_executor.payload.by_value")
        from remote_executor.payload.by_value import dump_for_client

    return _slowly(dump_for_client, obj, what)


def holds_code(body: bytes | bytearray | memoryview) -> bool:
    """
    Tell whether a pickle may hold code by value, which only an equal Python can load.

    Args:
        body: The pickle. That it merely mentions the modules which rebuild code counts too.
    """
    data = bytes(body)
    return b"cloudpickle" in data or b"remote_executor.payload.mains" in data


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


def _slowly(
    way: Callable[[object], tuple[bytes, list[memoryview]]], obj: object, what: str
) -> tuple[bytes, list[memoryview]]:
    try:
        return way(obj)
    except PayloadError:
        raise
    except Exception as error:
        load_own("remote_executor.payload.culprits")
        from remote_executor.payload.culprits import blame

        raise PayloadError(blame(obj, what, way), str(error) or type(error).__name__) from error
