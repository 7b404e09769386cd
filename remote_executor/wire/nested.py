"""
What a running task and its client say to each other about tasks of its own.

::

    SPAWN   worker -> server -> client     id: the task that speaks, aux: the child's number
    CHILD   client -> server -> worker     the same

The server passes both on unopened, but for WAITS and GOES_ON, of which it has to know too, and for
GO_ON, NO_ROOM and IDLE, which it says itself. What is said stands in the flags, below the bit of
:attr:`Flag.SEGMENT`.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Any

from remote_executor.errors import RemoteProtocolError
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind, decode_fields, encode_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_executor.wire.frames import Buffer, Frame

__all__ = ["Said", "Spawn", "child_frame", "said_in", "spawn_frame", "submit_frame", "submitted"]

HEAD = struct.Struct("<IH")
"""Before the pickle of a SUBMIT: the function's number, and the bytes of the options."""

MASK = 7


class Spawn(enum.IntEnum):
    """What a task says to its client."""

    SUBMIT = 0
    """Run a child. The body: HEAD, options, the pickle of the arguments, whose buffers follow."""
    FUNCTION = 1
    """Children may name this function, whose number is the aux. The first buffer has fields: see
    :mod:`remote_executor.client.child_code`."""
    CANCEL = 2
    """The child is not to begin; without an aux, none of the task's."""
    KILL = 3
    """The child is to stop. The body may have a grace in seconds."""
    STEAL = 4
    """Unless the child has begun, the task wants to run it itself: CANCELLED says that it may."""
    WAITS = 5
    """The task waits for its children, and lends its slot."""
    GOES_ON = 6
    """It wants the slot back."""
    COUNT = 7
    """How many tasks does the farm run at a time?"""


class Said(enum.IntEnum):
    """What a client says to a task about its children, and what the server adds."""

    RESULT = 0
    FAILURE = 1
    """As a task's. The last buffer is a note that says where it ran, or empty."""
    CANCELLED = 2
    BEGUN = 3
    """Also the answer to STEAL, if it has begun."""
    GO_ON = 4
    """The task has its slot again."""
    COUNT = 5
    """The aux is the number."""
    NO_ROOM = 6
    """So many tasks wait already that this one must not: the aux says how many."""
    IDLE = 7
    """The descriptor that comes along is that of a page whose first byte tells how many slots of
    this server nobody uses."""


def said_in(frame: Frame) -> int:
    """Return what a SPAWN or a CHILD says."""
    return frame.flags & MASK


def spawn_frame(
    what: Spawn, task: int, number: int = 0, body: Buffer = b"", buffers: Sequence[Buffer] = ()
) -> Frame:
    """
    Make what a task says.

    Args:
        what: What it is.
        task: The task's id.
        number: The child's, or the function's.
        body: The body.
        buffers: Its buffers.
    """
    return make_frame(Kind.SPAWN, task, body, buffers, aux=number, flags=what)


def submit_frame(
    task: int,
    number: int,
    function: int,
    options: dict[str, Any],
    body: Buffer,
    buffers: Sequence[Buffer],
) -> Frame:
    """
    Make a SUBMIT.

    Args:
        task: The task's id.
        number: The child's.
        function: The number of its function.
        options: Those that are not as the task's own.
        body: The pickle of its arguments.
        buffers: The pickle's buffers.
    """
    said = encode_fields(options) if options else b""
    whole = HEAD.pack(function, len(said)) + said + body
    return make_frame(Kind.SPAWN, task, whole, buffers, aux=number, flags=Spawn.SUBMIT)


def submitted(frame: Frame) -> tuple[int, dict[str, Any], Buffer]:
    """
    Return the number of a SUBMIT's function, its options, and the pickle of the arguments.

    Raises:
        RemoteProtocolError: If it is too short, or the options are none.
    """
    body = frame.body
    if len(body) < HEAD.size:
        raise RemoteProtocolError("SPAWN is too short")
    function, size = HEAD.unpack_from(body)
    end = HEAD.size + size
    if len(body) < end:
        raise RemoteProtocolError("SPAWN says more of its options than there is")
    options: dict[str, Any] = decode_fields(body[HEAD.size : end]) if size else {}
    return function, options, body[end:]


def child_frame(
    said: Said, task: int, number: int = 0, body: Buffer = b"", buffers: Sequence[Buffer] = ()
) -> Frame:
    """
    Make what a client says to a task.

    Args:
        said: What it is.
        task: The task's id.
        number: The child's.
        body: The body.
        buffers: Its buffers.
    """
    return make_frame(Kind.CHILD, task, body, buffers, aux=number, flags=said)
