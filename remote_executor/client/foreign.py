"""
Servers that run another Python than this process: what is sent there instead of bytecode.

Code goes by value where both ends run the same Python, and as source elsewhere. A task captures
values as of its submit, and then nobody knows yet which server it will run on. So both forms are
made at submit as long as some server runs another Python, or has not said yet which. Otherwise
only the first is made, and this costs nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_executor.errors import CannotShip, PayloadError
from remote_executor.payload.libraries import OURS, changed, installed
from remote_executor.payload.pickles import holds_code
from remote_executor.payload.pythons import python_words
from remote_executor.task_errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from remote_executor.payload.functions import Encoded, FunctionCache
    from remote_executor.wire.frames import Buffer

    Form = tuple[Encoded, Buffer, Sequence[Buffer]]

__all__ = [
    "Foreign",
    "differences",
    "in_their_words",
    "of_other_libraries",
    "survey",
    "traceback_text",
]

LATE = "it was submitted before a server with another Python was known"


class Foreign(NamedTuple):
    """
    The servers of a farm that run another Python, or may do so.

    Attributes:
        pythons: Those that are known: implementations and versions.
        sole: Whether there are no other servers, so that what cannot go there can go nowhere.
    """

    pythons: tuple[tuple[str, tuple[int, ...]], ...]
    sole: bool

    @property
    def words(self) -> str:
        """The other Pythons by name."""
        return " or ".join(python_words(*python) for python in self.pythons) or "another Python"

    def form(
        self,
        cache: FunctionCache,
        fn: Callable[..., Any],
        encoded: Encoded,
        what: str,
        call: Any,
        body: Buffer | None,
        buffers: Sequence[Buffer],
    ) -> Form | PayloadError | None:
        """
        Pickle a task for other Pythons.

        Args:
            cache: The cache that has the function.
            fn: The function.
            encoded: What the cache has just returned for it.
            what: What ``call`` is, for errors.
            call: The arguments.
            body: Their pickle for an equal Python; None if that is made later.
            buffers: Its buffers.

        Returns:
            The function, the pickle and its buffers; None if there is no code in either; what is
            wrong, if that is something.
        """
        in_call = body is not None and holds_code(body)
        if not in_call and not holds_code(encoded.body):
            return None
        from remote_executor.payload.by_source import dump_abroad

        try:
            function = cache.encode_abroad(fn, encoded, self.pythons)
            if in_call:
                body, buffers = dump_abroad(call, what, self.pythons)
        except PayloadError as error:
            return self._named(error)
        return function, body if body is not None else b"", buffers

    def only(self, fn: Callable[..., Any], call: Any) -> Form | PayloadError:
        """
        Pickle a task that cannot go by value, such as one with a class that has a lock.

        Args:
            fn: The function.
            call: The arguments.

        Returns:
            The function, the pickle and its buffers; or what is wrong.
        """
        from remote_executor.payload.by_source import dump_abroad
        from remote_executor.payload.code.digests import frozen
        from remote_executor.payload.functions import Encoded

        try:
            body, views = dump_abroad(fn, "function", self.pythons)
            return (
                Encoded(body, frozen(views), pure=False),
                *dump_abroad(call, "call", self.pythons),
            )
        except PayloadError as error:
            return self._named(error)

    def late(
        self, encoded: Encoded, what: str, items: Any, body: Buffer, buffers: Sequence[Buffer]
    ) -> Form | PayloadError:
        """
        Pickle a task for other Pythons at the time when it is sent.

        Args:
            encoded: The function.
            what: The task's name.
            items: The items of a map, which are pickled now in any case; None for other tasks.
            body: The pickle of the items or the arguments for an equal Python.
            buffers: Its buffers.

        Returns:
            The function, the pickle and its buffers; or what is wrong, such as that it captured
            values which are different by now.
        """
        in_call = holds_code(body)
        function: Encoded | PayloadError | None = encoded
        if holds_code(encoded.body):
            function = encoded.made_late(self.pythons)
        if function is None or (in_call and items is None):
            return CannotShip(what, LATE, python_words(), self.words, "submit it again")
        if isinstance(function, PayloadError):
            return self._named(function)
        if in_call:
            from remote_executor.payload.by_source import dump_abroad

            try:
                body, buffers = dump_abroad(items, "object", self.pythons)
            except PayloadError as error:
                return self._named(error)
        return function, body, buffers

    def _named(self, error: PayloadError) -> PayloadError:
        if isinstance(error, CannotShip):
            return error.between(python_words(), self.words)
        return error


def survey(
    here: tuple[str, tuple[int, ...]], servers: Iterable[tuple[str, tuple[int, ...]] | None]
) -> Foreign | None:
    """
    Look at the Pythons of a farm.

    Args:
        here: This process's implementation and version.
        servers: Those of the servers; None for one that has not said so yet.

    Returns:
        None if all are the same as here.
    """
    others: dict[tuple[str, tuple[int, ...]], None] = {}
    same = unknown = False
    for python in servers:
        if python is None:
            unknown = True
        elif alike(here, python):
            same = True
        else:
            others[python] = None
    if not others and not unknown:
        return None
    return Foreign(tuple(others), bool(others) and not same and not unknown)


def alike(one: tuple[str, tuple[int, ...]], other: tuple[str, tuple[int, ...]]) -> bool:
    """Tell whether two Pythons run the same bytecode."""
    return one[0] == other[0] and one[1][:2] == other[1][:2]


def in_their_words(error: BaseException, what: str, theirs: str) -> BaseException:
    """
    Say what kept another Python from loading a task, where that is the other version's doing.

    Args:
        error: What the worker raised.
        what: The task's name.
        theirs: The worker's Python.

    Returns:
        A CannotShip, or the error as it is.
    """
    if isinstance(error, CannotShip):
        return error.between(python_words(), theirs)
    of_python = isinstance(error, (AttributeError, SyntaxError))
    if isinstance(error, ImportError):
        of_python = (error.name or "").partition(".")[0] in sys.stdlib_module_names
    if not of_python:
        return error
    cure = "use what both versions have"
    named = CannotShip(what, f"{theirs} has no such thing: {error}", python_words(), theirs, cure)
    named.__cause__ = error
    return named


def differences(
    here: tuple[str, tuple[int, ...]],
    ours: dict[str, str],
    there: tuple[str, tuple[int, ...]],
    theirs: dict[str, str],
) -> tuple[str, ...]:
    """
    Tell what differs between the two ends, where it matters for what travels.

    Args:
        here: This process's implementation and version.
        ours: Versions of libraries here.
        there: The server's implementation and version.
        theirs: Versions of libraries there.

    Returns:
        One line for each difference.
    """
    lines = []
    if not alike(here, there):
        words = f"{python_words(*there)} there, {python_words(*here)} here"
        lines.append(f"{words}: functions travel as source")
    for library in OURS:
        version, other = ours.get(library), theirs.get(library)
        if version is not None and other is not None and version != other:
            lines.append(f"{library} {other} there, {version} here")
    return tuple(lines)


def of_other_libraries(
    error: BaseException,
    bodies: Iterable[Buffer],
    servers: Iterable[tuple[str, Mapping[str, str]]],
    what: str,
) -> RemoteError | None:
    """
    Say that a pickle could not be loaded where a library that it names is of another version.

    Args:
        error: What was raised when it was loaded.
        bodies: The pickle, or several.
        servers: Names of servers, and the versions of their libraries.
        what: What could not be loaded, and where.

    Returns:
        What names the versions at both ends; None if they are the same.
    """
    ours = installed()
    found = [
        f"{library} is {here} here and {there} on {name}"
        for name, theirs in servers
        for library, here, there in changed(bodies, ours, theirs)
    ]
    if not found:
        return None
    words = f"{what}: {error} ({'; '.join(found)})"
    return RemoteError(type(error).__qualname__, words, traceback_text(error))


def traceback_text(error: BaseException) -> str:
    """Return what Python prints for an exception, short of its context."""
    import traceback

    return "".join(traceback.format_exception(type(error), error, error.__traceback__, chain=False))
