"""
Descriptors for other processes of this user on this machine, over a Unix socket.

For pipes and memory that a program hands to its workers as it makes an executor: each worker asks
for them, however late it is started. Who asks has to know a secret, and the socket lies in a folder
that is open to this user alone.
"""

from __future__ import annotations

import hmac
import os
import secrets
import shutil
import socket
import tempfile
import threading
from typing import NamedTuple

from remote_executor.net.interruptible import start_thread

__all__ = ["Descriptor", "Descriptors"]

SECRET_BYTES = 32
NUMBER_BYTES = 4

PATIENCE = 5.0
"""Seconds that one who asks may take."""


class Descriptor(NamedTuple):
    """
    A descriptor of another process. It can be pickled.

    Attributes:
        path: Where to ask for it.
        secret: What to say there.
        number: Which one it is.
    """

    path: str
    secret: bytes
    number: int

    def detach(self) -> int:
        """
        Return a descriptor of this process for the same thing. The caller closes it.

        Raises:
            OSError: If the process that has it is gone, or its executor has ended.
        """
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(PATIENCE)
            asked.connect(self.path)
            asked.sendall(self.secret + self.number.to_bytes(NUMBER_BYTES, "big"))
            _, found, _, _ = socket.recv_fds(asked, 1, 1)
        if not found:
            raise OSError(f"the process that had descriptor {self.number} gives it no more")
        os.set_inheritable(found[0], False)
        return found[0]


class Descriptors:
    """Gives descriptors of this process to others, until it is closed."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="remote-executor-")  # mode 0700
        self._path = os.path.join(self._folder, "descriptors")
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._offered: list[int] = []
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen(64)
        name = "remote_executor descriptors"
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        start_thread(self._thread)

    def offer(self, fd: int) -> Descriptor:
        """
        Return what another process gets a copy of a descriptor by.

        Args:
            fd: Which; a copy is kept, so the caller may close it.
        """
        self._offered.append(os.dup(fd))
        return Descriptor(self._path, self._secret, len(self._offered) - 1)

    def _serve(self) -> None:
        while not self._closed:
            try:
                asking, _ = self._listener.accept()
            except OSError:
                continue  # who asked is gone, or there are too many descriptors for the moment
            with asking:
                try:
                    asking.settimeout(PATIENCE)
                    self._answer(asking)
                except OSError:
                    pass  # who asked is gone, or takes too long

    def _answer(self, asking: socket.socket) -> None:
        wanted = SECRET_BYTES + NUMBER_BYTES
        said = b""
        while len(said) < wanted:
            more = asking.recv(wanted - len(said))
            if not more:
                return
            said += more
        number = int.from_bytes(said[SECRET_BYTES:], "big")
        if hmac.compare_digest(said[:SECRET_BYTES], self._secret) and number < len(self._offered):
            socket.send_fds(asking, [b"."], [self._offered[number]])

    def close(self) -> None:
        """Give nothing any more. May be called again."""
        if self._closed:
            return
        self._closed = True
        try:
            with socket.socket(socket.AF_UNIX) as waking:
                waking.connect(self._path)
        except OSError:
            pass  # it does not wait
        self._thread.join(PATIENCE)
        self._listener.close()
        for fd in self._offered:
            os.close(fd)
        shutil.rmtree(self._folder, ignore_errors=True)
