"""
A server that was launched over SSH for one client.

It is the process that the SSH server started: its standard input is the channel's, and tells by its
end that the channel is gone. The secret came by that way, through a pipe.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from remote_executor.server.process_names import set_process_name
from remote_executor.server.serve import serve, serve_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_executor.net.tls import TLS

__all__ = ["STDIO", "main"]

STDIO = "unix:stdio"
"""In the place of an address: the pipe that this process was started by."""

PUMP_CHUNK = 1024 * 1024


def main(fd: int) -> int:
    """
    Serve until the client is gone.

    Args:
        fd: The number of the descriptor from which to read what to do.

    Returns:
        The exit status.
    """
    sys.argv = sys.argv[:1]
    with open(fd, "rb") as file:
        config = json.loads(file.read())
    answers = os.dup(1)

    def tell(fields: dict[str, Any]) -> None:
        os.write(answers, (f"\n{config['mark']} {json.dumps(fields)}\n").encode())

    def ready(address: str) -> None:
        tell({"address": address, "pid": os.getpid()})
        os.close(answers)

    remove = config.get("remove", [])
    at = "boot"
    try:
        places = config["places"]
        pipe, pump = _take_pipe() if places == [STDIO] else (None, 0)
        lifeline = _detach(config["log_file"])
        at = "port"
        tell({"at": at})
        if pipe is not None:
            os.close(lifeline)
            serve_stream(
                pipe,
                workers=config["workers"],
                auth=config["secret"],
                preload=config["preload"],
                log_level=config["log_level"],
                ready=lambda: ready(STDIO),
            )
            os.waitpid(pump, 0)  # it has ended with our end of the pair
            return 0
        serve(
            address=_place(places, remove),
            workers=config["workers"],
            auth=config["secret"],
            tls=_tls(config["certificate"], remove),
            preload=config["preload"],
            log_level=config["log_level"],
            ready=ready,
            lifeline=lifeline,
            grace=config["grace"],
        )
    except Exception as exc:
        words = str(exc)
        if not isinstance(exc, (OSError, ValueError)):
            words = f"{type(exc).__name__}: {words}"
        try:
            tell({"error": words, "at": at})
        except OSError:
            raise exc from None  # it was up already
        return 1
    finally:
        for folder in remove:
            _remove(folder)
    return 0


def _place(places: list[str], remove: list[str]) -> str:
    """
    Return the address at which to listen: of Unix sockets the first whose folder can be made.

    Args:
        places: Addresses, or "direct".
        remove: Takes the folder that is to be removed in the end, if one is made.

    Raises:
        OSError: If none will do.
    """
    troubles = []
    for place in places:
        if place == "direct":
            return f"[{_own_address()}]:0"
        if not place.startswith("unix:"):
            return place
        folder = os.path.dirname(place.removeprefix("unix:"))
        try:
            os.mkdir(folder, 0o700)
        except OSError as exc:
            troubles.append(f"{os.path.dirname(folder)}: {exc.strerror}")
            continue
        remove.append(folder)
        return place
    raise OSError(f"no folder for a socket can be made ({'; '.join(troubles)})")


def _take_pipe() -> tuple[socket.socket, int]:
    """
    Return a socket that leads to whoever is at the other end of standard input and output.

    A process of its own passes bytes on, since these two may be pipes, or a terminal's, and a link
    wants one stream that does not block. It ends with either side.

    Returns:
        The socket, and that process.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return ours, pid
    status = 1
    try:
        ours.close()
        set_process_name("farm-pipe")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        inward = threading.Thread(target=_pump, args=(0, theirs.fileno()), daemon=True)
        inward.start()
        # What the other side has yet to say is of no use once the server has ended.
        _pump(theirs.fileno(), 1)
        status = 0
    finally:
        os._exit(status)


def _pump(source: int, sink: int) -> None:
    """Pass bytes on until the end, and end what takes them, too."""
    buffer = memoryview(bytearray(PUMP_CHUNK))
    try:
        while count := os.readv(source, [buffer]):
            part = buffer[:count]
            while part:
                part = part[os.write(sink, part) :]
    except OSError:
        pass
    try:
        with socket.socket(fileno=os.dup(sink)) as sock:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it is a pipe, which ends with this process


def _detach(log_file: str | None) -> int:
    """Let go of the channel's ends, which break when it does; return the one that tells of it."""
    lifeline = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    log = null
    if log_file is not None:
        log = os.open(os.path.expanduser(log_file), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for each in {null, log}:
        os.close(each)
    return lifeline


def _own_address() -> str:
    """Return the number by which the client's SSH connection has reached this host."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    if len(words) != 4:
        raise ValueError("the SSH server does not say at which address it was reached")
    number, _, zone = words[2].partition("%")
    return f"{number}%{zone}" if zone and number.lower().startswith("fe80:") else number


def _tls(certificate: str | None, remove: list[str]) -> TLS | bool:
    """
    Return what TLS is to be spoken with.

    Args:
        certificate: It and its key as PEM; None for plain text.
        remove: Takes the folder that is to be removed in the end, if one is made.
    """
    if certificate is None:
        return False
    from remote_executor.net.tls import TLS

    return TLS(certificate=_pem_file(certificate.encode(), remove))


def _pem_file(pem: bytes, remove: list[str]) -> str:
    """Return a path by which OpenSSL, which takes files only, can read what is in memory."""
    create: Callable[[str], int] | None = getattr(os, "memfd_create", None)
    try:
        if create is not None:
            # It has no name and is in memory.
            fd = create("certificate")
            os.write(fd, pem)
            path = f"/proc/self/fd/{fd}"
            if os.path.exists(path):
                return path
            os.close(fd)
    except OSError:  # a sandbox refuses it
        pass
    import tempfile

    folder = tempfile.mkdtemp(prefix="remote-executor-")  # nobody else can enter it
    remove.append(folder)
    path = os.path.join(folder, "pem")
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(pem)
    return path


def _remove(folder: str) -> None:
    """Remove a temporary folder that was made for us."""
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except OSError:
        pass  # somebody else cleans the temporary folder, too
