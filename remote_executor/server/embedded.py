"""A server that belongs to one client: it speaks on an inherited socket and ends with it."""

from __future__ import annotations

import signal
import socket
import sys

from remote_executor.lineage import take_off_mark
from remote_executor.net.loop import Loop
from remote_executor.net.streams import SocketStream
from remote_executor.server.process_names import set_process_name
from remote_executor.server.zygote import await_zygote, fork_zygote

__all__ = ["main"]


def main(fd: str, slots: str, preload: str = "", here: bool = False) -> int:
    """
    Serve the client at the other end of a socket until it is gone.

    Args:
        fd: The number of the socket's descriptor.
        slots: How many tasks to run at a time.
        preload: Modules to import before workers are made, separated by commas.
        here: Whether they may be in the current folder; see :mod:`remote_executor.net.start`.

    Returns:
        The exit status.
    """
    take_off_mark()
    names = [name for name in preload.split(",") if name]
    zygote, control = fork_zygote(int(slots), names, ["", *sys.path] if here else None)
    # Both load their parts at the same time now, so that the first task begins sooner.
    from remote_executor.server.supervisor import Supervisor
    from remote_executor.wire.auth import NoAuth

    # Whatever ends the client ends us; a signal meant for it should not do so before.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, int(fd))
    sock.set_inheritable(False)
    loop = Loop()
    set_process_name("farm-server")
    supervisor = Supervisor(loop, int(slots), control, NoAuth)
    supervisor.serve_one(SocketStream(sock), embedded=True)
    supervisor.run()
    loop.close()
    await_zygote(zygote)
    return 0
