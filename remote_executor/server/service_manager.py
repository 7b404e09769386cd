"""
What a service manager wants of a server, and gives it: systemd's two small protocols.

*Readiness*: once clients can connect, and when the server begins to end, a datagram says so to the
socket that ``NOTIFY_SOCKET`` names (``Type=notify``). *Socket activation*: the manager listens, and
hands the sockets over as descriptors from 3 on (``LISTEN_FDS``), so that no client is refused while
the server starts or is replaced. Where neither variable is set, nothing happens.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from remote_executor.net.addresses import Address

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["address_of", "inherited_sockets", "notify"]

FIRST_FD = 3
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def notify(state: str, environ: MutableMapping[str, str] = os.environ) -> bool:
    """
    Tell the service manager something.

    Args:
        state: "READY=1", "STOPPING=1", "STATUS=some words"; several with newlines between.
        environ: Where ``NOTIFY_SOCKET`` may stand.

    Returns:
        Whether there is one, and it was told. A manager that does not listen stops no server.
    """
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    where = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode(), where)
    except OSError:
        return False
    return True


def inherited_sockets(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """
    Take the sockets that the service manager listens at, and that are meant for this process.

    The variables are taken out of the environment, as sd_listen_fds does on request: what this
    process starts shall not take the sockets for its own.

    Args:
        environ: Where ``LISTEN_PID`` and ``LISTEN_FDS`` may stand.

    Returns:
        The sockets; none if there are none.

    Raises:
        ValueError: If what was handed over is no socket that listens for streams.
    """
    pid, count = environ.get("LISTEN_PID"), environ.get("LISTEN_FDS", "")
    for name in VARIABLES:
        environ.pop(name, None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for fd in range(FIRST_FD, FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        try:
            sock = socket.socket(fileno=fd)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as exc:
            raise ValueError(f"descriptor {fd} of LISTEN_FDS is no socket: {exc}") from exc
        if not listens or sock.type != socket.SOCK_STREAM:
            sock.close()
            raise ValueError(
                f"descriptor {fd} of LISTEN_FDS does not listen for streams: the socket unit needs "
                "ListenStream= and Accept=no"
            )
        sock.setblocking(False)
        found.append(sock)
    return found


def address_of(sock: socket.socket) -> Address:
    """Return where a socket listens."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return Address("unix", path=os.fsdecode(name))
    return Address("tcp", name[0], name[1])
