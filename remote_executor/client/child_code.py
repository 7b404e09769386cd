"""
The functions of tasks that tasks make: how a worker tells its client what to call.

A function of the client's ``__main__`` is told by its name, and the client pickles its own. What a
task has made itself, a lambda or a closure, goes by value; the names of ``__main__`` that its code
has are the client's here, too. So a worker that runs a child gets exactly what it would get if the
client had submitted it: the same bytes, once for each server.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from remote_executor.errors import PayloadError
from remote_executor.payload import mains
from remote_executor.payload.code.names import main_globals, main_name
from remote_executor.payload.code.namespace import ABSENT
from remote_executor.payload.functions import Encoded, FunctionCache
from remote_executor.payload.pickles import dump_copied, guarded, keeper, plainly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from remote_executor.payload.captures import Captures
    from remote_executor.wire.frames import Buffer

__all__ = ["BY_NAME", "Told", "resolve", "tell"]

BY_NAME = (b"\x93\x94.", b"\x93.")
"""How a pickle ends that is nothing but the name of something in a module."""


class Told:
    """
    A function as a worker tells it to its client.

    Attributes:
        fields: What kind it is, and which names of ``__main__`` it needs.
        body: A pickle, if it does not go by name.
        buffers: Those of the pickle.
        pure: Whether calls leave no trace in it.
    """

    __slots__ = ("_captures", "body", "buffers", "fields", "pure")

    def __init__(
        self,
        fields: dict[str, Any],
        body: Buffer = b"",
        buffers: Sequence[Buffer] = (),
        *,
        pure: bool = True,
        captures: Captures | None = None,
        lasts: bool = True,
    ) -> None:
        self.fields = {**fields, "pure": pure}
        self.body = body
        self.buffers = buffers
        self.pure = pure
        self._captures = captures if captures is not None or lasts else False

    def holds(self, function: Callable[..., Any]) -> bool:
        """Whether it is still right: the function has captured nothing else since."""
        captures: Any = self._captures
        if captures is None or captures is False:
            return captures is None
        return bool(captures.hold(function))


def tell(function: Callable[..., Any], extra: tuple[str, ...]) -> Told:
    """
    Make what tells a function. In a worker.

    Args:
        function: Any callable.
        extra: Names of ``__main__`` that its arguments need.

    Raises:
        PayloadError: If it cannot be pickled.
    """
    fields: dict[str, Any] = {"what": getattr(function, "__qualname__", None), "names": extra}
    home = main_name(function)
    if home is not None and _is_known(home) and mains.arrived.get(function) == home:
        return Told({**fields, "home": home})
    plain = plainly(function)
    if plain is not None and plain[0].endswith(BY_NAME):
        kind = {"kind": "names"} if extra else {"kind": "plain"}
        return Told({**fields, **kind}, *plain)
    from remote_executor.payload.captures import is_code

    if is_code(function):
        return _tell_code(function, fields)
    body, buffers, visit = dump_copied(function, "function")
    names = [*extra, *(() if visit is None else (*visit.references, *visit.names))]
    if visit is not None and not all(map(_is_known, visit.references)):
        return _whole(function, fields)
    fields = {**fields, "kind": "names", "names": names}
    return Told(fields, body, buffers, pure=False, lasts=False)


def _tell_code(function: Callable[..., Any], fields: dict[str, Any]) -> Told:
    """Tell a function or class that goes by value."""
    import io

    from remote_executor.payload.by_value import Visit, WorkerPickler
    from remote_executor.payload.captures import Captures
    from remote_executor.payload.code import registrations
    from remote_executor.payload.code.names import names

    registrations.look()
    names.look()
    visit = Visit()
    buffers: list[memoryview] = []

    def way(part: Any) -> bytes:
        file = io.BytesIO()
        WorkerPickler(file, keeper(buffers), visit, ()).dump(part)
        return file.getvalue()

    body = guarded(way, function, "function")
    if not all(map(_is_known, visit.references)):
        return _whole(function, fields)
    captures = Captures(function, visit, main_globals())
    wanted = {
        "kind": "code",
        "names": [*fields["names"], *visit.names],
        "references": list(visit.references),
        "all": visit.all,
    }
    pure = captures.pure
    return Told({**fields, **wanted}, body, buffers, pure=pure, captures=captures.seal())


def _whole(function: Callable[..., Any], fields: dict[str, Any]) -> Told:
    """Tell what refers to something that only this worker has: with all that it needs."""
    encoded = FunctionCache().encode(function)
    told = {**fields, "kind": "plain"}
    return Told(told, encoded.body, encoded.buffers, pure=encoded.pure, lasts=False)


def _is_known(name: str) -> bool:
    """Whether a name of this worker's ``__main__`` has come from the client."""
    token = mains.applied.get(name.partition(".")[0])
    return token is not None and token != ABSENT


def resolve(
    cache: FunctionCache, fields: dict[str, Any], body: Buffer, buffers: Sequence[Buffer]
) -> Encoded:
    """
    Make what goes to servers. At the client.

    Args:
        cache: Has what was pickled before.
        fields: As the worker has told them.
        body: The pickle.
        buffers: The pickle's.

    Raises:
        PayloadError: If ``__main__`` has no such function any more, or something cannot be pickled.
    """
    home = fields.get("home")
    extra = [name for name in fields.get("names") or () if isinstance(name, str)]
    pure = fields.get("pure") is True
    views = [memoryview(each) for each in buffers]
    if isinstance(home, str):
        from remote_executor.payload.by_value import Visit

        needs = Visit()
        needs.names.update(dict.fromkeys(extra))
        return cache.encode(_find(home), needs)
    if fields.get("kind") == "plain":
        return Encoded(bytes(body), views, pure)
    from remote_executor.payload.by_value import Visit
    from remote_executor.payload.code.bundles import wrapped

    visit = Visit()
    visit.names.update(dict.fromkeys(extra))
    what = str(fields.get("what"))
    if fields.get("kind") != "code":
        whole, more = wrapped(bytes(body), views, visit, what)
        return Encoded(whole, [memoryview(each) for each in more], pure)
    from remote_executor.payload.code.bundles import bundle_of

    references = [name for name in fields.get("references") or () if isinstance(name, str)]
    visit.references.update(dict.fromkeys(references))
    visit.all = fields.get("all") is True
    return Encoded(*bundle_of(bytes(body), views, visit, what, pure), pure)


def _find(home: str) -> Any:
    found: Any = sys.modules["__main__"]
    for name in home.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            reason = "the program's __main__ has it no more"
            raise PayloadError(f"function {home!r}", reason) from None
    return found
