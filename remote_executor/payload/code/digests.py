"""Names of content, and snapshots of buffers that later writes do not reach."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

__all__ = ["Frozen", "digest", "frozen", "key_of", "same_bytes"]


def same_bytes(snapshot: memoryview, view: memoryview) -> bool:
    """
    Compare a view of a live object with a snapshot.

    Args:
        snapshot: A view of a whole bytes or bytearray.
        view: A flat view.
    """
    # A memoryview would compare item by item, a bytearray does it with memcmp.
    whole: Any = snapshot.obj
    if type(whole) is bytes:
        whole = bytearray(whole)
    return len(whole) == len(view) and bool(whole == view)


class Frozen(bytearray):
    """A copy of a buffer that nobody writes to, and the name of its content once it was wanted."""

    __slots__ = ("__weakref__", "key")

    key: bytes


_frozen: weakref.WeakValueDictionary[int, Frozen] = weakref.WeakValueDictionary()
"""All there are, by id."""


def digest(body: bytes, buffers: Sequence[Any] = (), short: int = 0) -> bytes:
    """
    Name a pickle by its content.

    Args:
        body: The pickle.
        buffers: Its large buffers.
        short: A pickle of at most so many bytes, without buffers, is its own name.
    """
    if not buffers and len(body) <= short:
        return body
    from hashlib import sha256

    # The lengths are in it, so that bytes cannot move from one part to the next unseen.
    content = sha256(repr([len(body), *map(len, buffers)]).encode())
    content.update(body)
    for buffer in buffers:
        content.update(buffer)
    return content.digest()


def frozen(views: Sequence[memoryview], pool: Sequence[memoryview] = ()) -> list[memoryview]:
    """
    Make snapshots of buffers, so that later writes do not show.

    Args:
        views: Flat views of live objects.
        pool: Earlier snapshots to look at first. One that has the same content is used again.

    Returns:
        Views, each of the whole of a bytes or a Frozen.
    """
    snapshots = []
    for view in views:
        owner: Any = view.obj
        if type(owner) in (bytes, Frozen) and len(owner) == len(view):
            snapshots.append(view)
            continue
        for earlier in pool:
            if same_bytes(earlier, view):
                snapshots.append(earlier)
                break
        else:
            snapshots.append(memoryview(_earlier(view) or _freeze(view)))
    return snapshots


def _earlier(view: memoryview) -> Frozen | None:
    """Find a snapshot with that content: a closure that is made anew captures the same array."""
    for owner in list(_frozen.values()):
        if len(owner) == len(view) and same_bytes(memoryview(owner), view):
            return owner
    return None


def _freeze(view: memoryview) -> Frozen:
    owner = Frozen(view)
    _frozen[id(owner)] = owner
    return owner


def key_of(snapshot: memoryview) -> bytes:
    """Name a snapshot by its content; what was frozen here is looked at once."""
    owner: Any = snapshot.obj
    if type(owner) is not Frozen:
        return digest(b"", [snapshot])
    key: bytes | None = getattr(owner, "key", None)
    if key is None:
        key = owner.key = digest(b"", [snapshot])
    return key
