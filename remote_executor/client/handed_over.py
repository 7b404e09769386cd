"""
multiprocessing's locks, queues, pipes and shared values in ``initargs``, on a server of its own.

A ``ProcessPoolExecutor`` hands them to its workers as it starts these. Our workers are no children
of this process, so each kind goes the way that is left to it:

====================================  ==========================================================
what                                  how a worker gets it
====================================  ==========================================================
of spawn's and forkserver's contexts  semaphores by their names, pipes and memory by descriptors,
                                      which :class:`~remote_executor.net.descriptors.Descriptors`
                                      gives
of fork's context                     by a proxy: a thread here does what the worker asks for, as
                                      its semaphores have no name by which they could be opened
pipes, raw values and arrays          by descriptors
a manager's proxies                   as they are, together with the manager's key
====================================  ==========================================================

All that works within one machine. On servers elsewhere it is refused, with what to use instead.

Private to the standard library, and used here: ``set_spawning_popen`` of
``multiprocessing.context``, by which an object learns that a process is being started; ``_semlock``
and the attributes in which others keep theirs; the server of ``multiprocessing.managers``.
"""

from __future__ import annotations

import contextlib
import pickle
import secrets
import sys
import threading
from typing import TYPE_CHECKING, Any

from remote_executor.errors import PayloadError
from remote_executor.net.descriptors import Descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HandedOver", "handing_over"]

DEEPEST = 6
"""Containers within containers in which such objects are looked for."""

ELSEWHERE = (
    "it works within one machine, and this executor's servers are elsewhere; use a manager that "
    "listens to the network, as multiprocessing.managers.SyncManager((host, 0), authkey=key), and "
    "pass what its Lock(), Queue() and so on return"
)

ACQUIRER = ("acquire", "release")
CONDITION = (*ACQUIRER, "wait", "notify", "notify_all")
EVENT = ("is_set", "set", "clear", "wait")
QUEUE = (
    *("put", "get", "put_nowait", "get_nowait", "empty", "full", "qsize", "task_done", "join"),
    *("close", "join_thread", "cancel_join_thread"),
)


@contextlib.contextmanager
def handing_over(call: Any, *, elsewhere: bool) -> Iterator[tuple[Any, HandedOver | None]]:
    """
    Make what a worker is set up with fit to be pickled, within the block.

    Args:
        call: A tuple: a function and its arguments.
        elsewhere: Whether there may be servers on other machines.

    Yields:
        What to pickle, and what has to be closed when no worker comes any more; None if nothing.

    Raises:
        PayloadError: If something in it works within one machine, and there are servers elsewhere.
    """
    # What was never loaded cannot be among the arguments.
    if "multiprocessing.synchronize" not in sys.modules and not any(
        f"multiprocessing.{name}" in sys.modules for name in ("connection", "heap", "managers")
    ):
        yield call, None
        return
    handed = HandedOver(elsewhere)
    try:
        ready = handed.replace(call, 0)
        if handed.used:
            with _starting(handed):
                yield ready, handed
        else:
            yield call, None
    except BaseException:
        handed.close()
        raise


@contextlib.contextmanager
def _starting(handed: HandedOver) -> Iterator[None]:
    """Have the objects of multiprocessing believe that a process is being started."""
    from multiprocessing import context

    theirs: Any = context
    before = theirs.get_spawning_popen()
    theirs.set_spawning_popen(handed)
    try:
        yield
    finally:
        theirs.set_spawning_popen(before)


class _Rebuilt:
    """Is pickled as a call that makes an object there."""

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        self._call = make, args

    def __reduce__(self) -> Any:
        return self._call


class HandedOver:
    """
    What is kept open here for workers. It is also what the standard library takes for the process
    that is being started.

    Args:
        elsewhere: Whether there may be servers on other machines.
    """

    def __init__(self, elsewhere: bool) -> None:
        self._elsewhere = elsewhere
        self._descriptors: Descriptors | None = None
        self._proxies: _Proxies | None = None
        self._known: dict[int, tuple[Any, Any]] = {}
        self.used = False
        """Whether there was anything of that kind."""

    # ------------------------------------------------- what the standard library calls

    def duplicate_for_child(self, fd: int) -> Any:
        """Return what a worker gets a descriptor by."""
        if self._descriptors is None:
            self._descriptors = Descriptors()
        return self._descriptors.offer(fd)

    def DupFd(self, made: Any) -> Any:  # noqa: N802 - its name there
        """Return what is pickled in the place of a descriptor."""
        return made

    # ---------------------------------------------------------------------- replacing

    def replace(self, value: Any, depth: int) -> Any:
        """Return what is to be pickled in the place of a value."""
        kind = type(value)
        if kind in (tuple, list) and depth < DEEPEST:
            return kind(self.replace(each, depth + 1) for each in value)
        if kind is dict and depth < DEEPEST:
            return {name: self.replace(each, depth + 1) for name, each in value.items()}
        if not _is_shared(value):
            return value
        self.used = True
        if _is_of_a_manager(value):
            return value
        if self._elsewhere:
            raise PayloadError(f"an argument of the initializer (a {kind.__name__})", ELSEWHERE)
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = value, self._make(value)
        return known[1]

    def _make(self, value: Any) -> Any:
        from multiprocessing import queues, sharedctypes, synchronize

        fork = _is_of_fork(value)
        if isinstance(value, sharedctypes.SynchronizedBase) and fork:
            raw, lock = value.get_obj(), self._proxy(value.get_lock(), ACQUIRER, "AcquirerProxy")
            return _Rebuilt(sharedctypes.synchronized, self._pickled(raw), lock)
        if isinstance(value, synchronize.SemLock) and fork:
            return self._proxy(value, ACQUIRER, "AcquirerProxy")
        if isinstance(value, synchronize.Condition) and fork:
            return self._proxy(value, CONDITION, "ConditionProxy")
        if isinstance(value, synchronize.Event) and fork:
            return self._proxy(value, EVENT, "EventProxy")
        if isinstance(value, (queues.Queue, queues.SimpleQueue)) and fork:
            exposed = tuple(name for name in QUEUE if hasattr(_Queue(value), name))
            return self._proxy(_Queue(value), exposed, "AutoProxy")
        if fork:
            kind = type(value).__name__
            cure = f'make it by multiprocessing.get_context("spawn").{kind}(...)'
            raise PayloadError(
                f"an argument of the initializer (a {kind})",
                f"it is of the fork context, whose locks cannot be opened by name: {cure}",
            )
        return self._pickled(value)

    def _pickled(self, value: Any) -> Any:
        from multiprocessing.reduction import ForkingPickler

        with _starting(self):
            return _Rebuilt(pickle.loads, bytes(ForkingPickler.dumps(value)))

    def _proxy(self, value: Any, exposed: tuple[str, ...], kind: str) -> Any:
        if self._proxies is None:
            self._proxies = _Proxies()
        return self._proxies.offer(value, exposed, kind)

    def close(self) -> None:
        """Let go of all: no worker comes any more. May be called again."""
        if self._descriptors is not None:
            self._descriptors.close()
        if self._proxies is not None:
            self._proxies.close()
        self._known.clear()


class _Proxies:
    """Does here what workers ask of objects; the server of a manager, without its process."""

    def __init__(self) -> None:
        from multiprocessing import managers

        theirs: Any = managers
        self._key = secrets.token_bytes(32)
        self._registry: dict[str, Any] = {}
        # Its serve_forever() would make it the only one of this process.
        self._server = theirs.Server(self._registry, None, self._key, "pickle")
        self._server.stop_event = threading.Event()
        self._closed = False
        self._thread = threading.Thread(
            target=self._serve, name="remote_executor proxies", daemon=True
        )
        self._thread.start()

    def offer(self, value: Any, exposed: tuple[str, ...], kind: str) -> Any:
        """Return what is pickled in the place of an object."""
        from multiprocessing import managers

        theirs: Any = managers
        name = f"{type(value).__name__}-{len(self._registry)}"
        self._registry[name] = (lambda: value), exposed, None, None
        ident, _ = self._server.create(None, name)
        token = managers.Token(name, self._server.address, ident)
        options: dict[str, Any] = {"authkey": self._key}
        if kind == "AutoProxy":
            options["exposed"] = exposed
        make = getattr(theirs, kind)
        return _Rebuilt(theirs.RebuildProxy, make, token, "pickle", options)

    def _serve(self) -> None:
        listener = self._server.listener
        while not self._closed:
            try:
                asking = listener.accept()
            except OSError:
                continue
            threading.Thread(
                target=self._answer, args=(asking,), name="remote_executor proxy", daemon=True
            ).start()

    def _answer(self, asking: Any) -> None:
        """Do what one thread of a worker asks for, until it ends."""
        if self._closed:
            asking.close()
        else:
            with contextlib.suppress(EOFError, OSError):
                self._server.handle_request(asking)

    def close(self) -> None:
        """End it."""
        if self._closed:
            return
        self._closed = True
        self._server.stop_event.set()
        from multiprocessing import connection

        with contextlib.suppress(OSError, EOFError):
            connection.Client(self._server.address).close()  # wakes who waits for one
        self._thread.join(5)
        self._server.listener.close()


class _Queue:
    """A queue, for workers. That they close theirs is not to close it here."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._queue, name)

    def close(self) -> None:
        """Do nothing."""

    join_thread = cancel_join_thread = close


def _loaded(name: str, *classes: str) -> tuple[type, ...]:
    """Return classes of a module of multiprocessing, if that was loaded."""
    module = sys.modules.get(f"multiprocessing.{name}")
    found = [getattr(module, each, None) for each in classes]
    return tuple(each for each in found if isinstance(each, type))


def _is_shared(value: Any) -> bool:
    """Tell whether multiprocessing lets processes share it."""
    if hasattr(value, "_wrapper") and type(value).__module__ in ("ctypes", "_ctypes"):
        return True
    return isinstance(
        value,
        (
            *_loaded("synchronize", "SemLock", "Condition", "Event", "Barrier"),
            *_loaded("queues", "Queue", "SimpleQueue"),
            *_loaded("connection", "Connection"),
            *_loaded("sharedctypes", "SynchronizedBase"),
            *_loaded("managers", "BaseProxy"),
        ),
    ) or (hasattr(value, "_wrapper") and "ctypes" in sys.modules and _is_ctype(value))


def _is_ctype(value: Any) -> bool:
    import ctypes

    bases: tuple[type, ...] = (ctypes.Array, ctypes.Structure, ctypes.Union, ctypes._SimpleCData)
    return isinstance(value, bases)


def _is_of_a_manager(value: Any) -> bool:
    return isinstance(value, _loaded("managers", "BaseProxy"))


def _is_of_fork(value: Any) -> bool:
    """Tell whether it has a semaphore without a name."""
    for path in (
        ("_semlock",),
        ("_lock", "_semlock"),
        ("_cond", "_lock", "_semlock"),
        ("_rlock", "_semlock"),
    ):
        found = value
        for name in path:
            found = getattr(found, name, None)
        if found is not None and hasattr(found, "name"):
            return found.name is None
    return False
