"""
The kinds of message, and the small bodies that are not pickles.

::

    link level, not numbered               session level, numbered by counting
    ------------------------------------   -----------------------------------------
    HELLO PROOF REFUSED     handshake      client -> server -> worker
    ATTACH ATTACHED         a session        SETUP BLOB FORGET TASK OPTIONS
    PING PONG ACK GOODBYE   upkeep           TAKE_BACK KILL RELEASE MODULES RELOAD
                                             ASK_BEGUN PLACE CHILD
    ADMIN REPLY             admin          worker -> server -> client
                                             RESULT FAILURE BEGUN TAKEN_BACK DIED
                                             SLOTS OUTPUT LOG BROKEN READY RELEASE WANT
                                             SPAWN

One set serves both hops, so the server passes ``TASK``, ``BLOB``, ``RESULT`` and ``FAILURE`` on as
the bytes that came in. Bodies of tasks and results are pickles, and only workers and callers load
them. Every other body is JSON or an array of 64-bit ids: a peer that writes its own client needs
no pickle for them.
"""

from __future__ import annotations

import enum
import json
import struct
from typing import TYPE_CHECKING, Any

from remote_executor.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AGAIN",
    "AGAIN_BLOB",
    "EACH",
    "FIRST_NUMBERED",
    "GRACE",
    "KILLED",
    "MAX_SLOTS",
    "PROTOCOL",
    "SPOILT",
    "Flag",
    "Kind",
    "aux_of_grace",
    "check_slots",
    "decode_fields",
    "decode_ids",
    "encode_fields",
    "encode_ids",
    "fields_for_client",
    "grace_of_aux",
]

PROTOCOL = 1
"""The protocol's version. Peers that speak no common version part at the handshake."""

FIRST_NUMBERED = 32
"""Kinds from here on are numbered, acknowledged and sent again after a cut."""


class Kind(enum.IntEnum):
    """What a frame is."""

    HELLO = 1
    PROOF = 2
    REFUSED = 3
    ATTACH = 4
    ATTACHED = 5
    PING = 6
    PONG = 7
    GOODBYE = 8
    ACK = 9
    ADMIN = 10
    REPLY = 11

    SETUP = 32
    BLOB = 33
    FORGET = 34
    TASK = 35
    OPTIONS = 36
    TAKE_BACK = 37
    KILL = 38
    RELEASE = 39
    MODULES = 40
    RELOAD = 41
    ASK_BEGUN = 42
    """Which of these tasks have begun? The answer is a BEGUN with the id of this question. With an
    aux those that have are killed, too: it is the grace, as KILL's, and one more."""
    PLACE = 43
    """The aux is the index in the farm of this session's first worker."""
    CHILD = 44
    """About a task that a running task has made: see :mod:`remote_executor.wire.nested`."""

    RESULT = 64
    FAILURE = 65
    BEGUN = 66
    TAKEN_BACK = 67
    DIED = 68
    SLOTS = 69
    """The aux is how many tasks the session may have running from now on; see NO_SLOTS."""
    OUTPUT = 70
    BROKEN = 71
    READY = 72
    LOG = 73
    WANT = 74
    SPAWN = 75
    """A running task has made one of its own, or says something about such a one."""


GRACE = 0.5
"""Seconds that a task has to end by itself, once it is told to, where nobody says otherwise."""

GRACE_UNIT = 0.001
"""KILL: seconds in each of its aux, which says how long a task has to end by itself; 0 for none."""

MOST_GRACE = 1 << 31

SPOILT = 1
"""RELEASE, as its aux: somebody may still map the segment, so it is not to be used again."""

NO_SLOTS = 0
"""SLOTS, as its aux: the server drains. It takes nothing more, and ends the session when what has
begun is done."""

AGAIN = 2
"""RELEASE, as its aux: the segment's descriptor was lost on its way. The frame of that id is to be
sent again, with its buffers inline."""

AGAIN_BLOB = 3
"""The same for a BLOB, whose number is the id."""


class Flag(enum.IntFlag):
    """What else a frame says: the bits of its flags."""

    NONE = 0
    BATCH = 1
    """TASK: the body is a list of items, run one after the other. FAILURE: of such a task."""
    STAR = 2
    """TASK with BATCH: each item is a tuple of arguments."""
    PURE = 4
    """BLOB: the function may be rebuilt once and used again. FAILURE: see :data:`KILLED`."""
    SEGMENT = 8
    """The buffers are in a shared-memory segment whose descriptor came along."""
    OPTIONED = 16
    """TASK: an OPTIONS frame of the same id went before, with fields that may be missing: timeout
    and grace in seconds, worker (the index of the one that is to run it), priority, blobs (the
    numbers of the shared objects and of the parts of its function that it needs)."""
    UNLOADED = 32
    """FAILURE: the function or its arguments could not be unpickled."""
    SHARED = 64
    """BLOB: an object that was shared. The body is its token, the first buffer its pickle, the
    others are the pickle's. With PURE the object cannot change."""
    PART = 128
    """BLOB: its one buffer is one of those that functions' pickles refer to. A function's BLOB that
    has its buffers so says in ``id`` how many, and their numbers in its only buffer."""


def aux_of_grace(grace: float) -> int:
    """Return the aux of a KILL that gives a task so many seconds."""
    return min(MOST_GRACE, max(0, round(grace / GRACE_UNIT)))


def grace_of_aux(aux: int) -> float:
    """Return the seconds that :func:`aux_of_grace` has encoded."""
    return aux * GRACE_UNIT


KILLED = Flag.PURE
"""FAILURE, as one of its flags: the task was told to stop, and that is why it has failed. The flags
have eight bits, so it is one that only other messages have."""

EACH = Flag.SHARED
"""TASK with BATCH: an item that fails does not end the batch. FAILURE of such a task: some items
have failed. The first buffer is the pickle of a list of (index, summary, pickle) of these, the
second that of the list of the other values. Again a bit that only other messages have."""


def encode_fields(fields: dict[str, Any]) -> bytes:
    """Encode a flat dict of JSON values as a body."""
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_fields(body: bytes | bytearray | memoryview, **types: type | tuple[type, ...]) -> Any:
    """
    Decode a body written by :func:`encode_fields`.

    Args:
        body: The bytes.
        types: The fields that must be there, and the type of each.

    Raises:
        RemoteProtocolError: If it is not a JSON object, or a field is missing or mistyped.
    """
    try:
        fields = json.loads(bytes(body))
    except (ValueError, RecursionError) as exc:
        raise RemoteProtocolError(f"a control message is not JSON: {exc}") from None
    if not isinstance(fields, dict):
        raise RemoteProtocolError("a control message is not a JSON object")
    for name, wanted in types.items():
        if not isinstance(fields.get(name), wanted):
            raise RemoteProtocolError(f"field {name!r} of a control message is missing or mistyped")
    return fields


# ------------------------------------------------------- what a client takes from a server

MAX_SLOTS = 1 << 20
"""More tasks at a time than any server runs."""


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_slots(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_SLOTS


def _is_small(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 31


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_version(value: Any) -> bool:
    return type(value) is list and 2 <= len(value) <= 5 and all(map(_is_small, value))


def _is_texts(value: Any) -> bool:
    return type(value) is dict and all(map(_is_text, value.values()))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


MUST, MAY = True, False

_FOR_CLIENT: dict[int, dict[str, tuple[bool, Callable[[Any], bool]]]] = {
    Kind.ATTACHED: {
        "resumed": (MUST, _is_flag),
        "received": (MUST, _is_count),
        "slots": (MUST, _is_slots),
        "segments": (MAY, _is_flag),
        "host": (MAY, _is_text),
        "pid": (MAY, _is_count),
        "server": (MAY, _is_text),
        "place": (MAY, _is_text),
        "implementation": (MAY, _is_text),
        "python": (MAY, _is_version),
        "versions": (MAY, _is_texts),
    },
    Kind.REPLY: {"error": (MUST, _is_text)},
    Kind.DIED: {
        "reason": (MUST, _is_text),
        "host": (MAY, _is_text),
        "pid": (MAY, _or_none(_is_count)),
        "exitcode": (MAY, _or_none(_is_small)),
        "stderr": (MAY, _is_text),
        "why": (MAY, _is_text),
    },
    Kind.LOG: {
        "name": (MUST, _is_text),
        "levelno": (MUST, _is_small),
        "msg": (MUST, _is_text),
        "process": (MUST, _is_count),
        "levelname": (MAY, _is_text),
        "pathname": (MAY, _is_text),
        "filename": (MAY, _is_text),
        "module": (MAY, _is_text),
        "funcName": (MAY, _or_none(_is_text)),
        "lineno": (MAY, _or_none(_is_count)),
        "created": (MAY, _is_number),
        "msecs": (MAY, _is_number),
        "thread": (MAY, _or_none(_is_count)),
        "threadName": (MAY, _or_none(_is_text)),
        "exc_text": (MAY, _or_none(_is_text)),
        "stack_info": (MAY, _or_none(_is_text)),
    },
}
"""Each field that a client looks at: whether it must be there, and what it must be."""


def fields_for_client(kind: int, body: bytes | bytearray | memoryview) -> dict[str, Any]:
    """
    Decode the body of a message that a client takes from a server, and check all of its fields.

    This is the one place where that is done: what it returns can be used without another look.

    Args:
        kind: Which message it is: ATTACHED, REPLY (to ATTACH), DIED or LOG. A question of WANT is
            looked at by who answers it.
        body: Its body.

    Returns:
        The fields that a client knows; others, which a later version may send, are left out.

    Raises:
        RemoteProtocolError: If the body is no JSON object, or a field is missing or odd. The server
            that has sent it is not to be trusted any further.
    """
    name = Kind(kind).name
    try:
        said = decode_fields(body)
    except RemoteProtocolError as exc:
        raise RemoteProtocolError(f"{name}: {exc}") from exc
    fields = {}
    for field, (needed, is_right) in _FOR_CLIENT[kind].items():
        if field not in said:
            if needed:
                raise RemoteProtocolError(f"{name} has no field {field!r}")
        elif is_right(said[field]):
            fields[field] = said[field]
        else:
            raise RemoteProtocolError(f"{name} has an odd field {field!r}: {said[field]!r:.100}")
    return fields


def check_slots(slots: int) -> int:
    """
    Return the number of slots that a SLOTS message names.

    Raises:
        RemoteProtocolError: If no server has so many.
    """
    if slots > MAX_SLOTS:
        raise RemoteProtocolError(f"SLOTS says {slots}, and no server has so many")
    return slots


def encode_ids(ids: list[int]) -> bytes:
    """Encode task ids as little-endian 64-bit integers."""
    return struct.pack(f"<{len(ids)}Q", *ids)


def decode_ids(body: bytes | bytearray | memoryview) -> tuple[int, ...]:
    """
    Decode what :func:`encode_ids` wrote.

    Raises:
        RemoteProtocolError: If the length is not a multiple of eight.
    """
    if len(body) % 8:
        raise RemoteProtocolError(f"a list of ids has {len(body)} bytes, not a multiple of 8")
    return struct.unpack(f"<{len(body) // 8}Q", body)
