"""
A server at an address: in this process, or in one of its own.

:func:`serve` runs it here until it is stopped; the command line does that. :func:`start_server`
starts a process that does it, and returns a :class:`ServerHandle`.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from remote_executor.core.lease import Lease
from remote_executor.cores import usable_cores
from remote_executor.errors import ConnectionFailed
from remote_executor.lineage import take_off_mark
from remote_executor.net.addresses import Address, AddressLike, parse_address
from remote_executor.net.loop import Loop
from remote_executor.net.security import auth_of, is_exposed, server_tls, tls_of
from remote_executor.net.start import ROOT, START, UsersFolders
from remote_executor.net.streams import DistantStream
from remote_executor.server.door import Door
from remote_executor.server.privacy import set_closed
from remote_executor.server.process_names import set_process_name
from remote_executor.server.service_manager import notify
from remote_executor.server.signals import ServerSignals
from remote_executor.server.supervisor import Supervisor
from remote_executor.server.zygote import await_zygote, fork_zygote, start_zygote

if TYPE_CHECKING:
    import socket
    import subprocess
    from collections.abc import Callable, Sequence

    from remote_executor.net.security import AuthLike, TLSLike
    from remote_executor.server.signals import LogFile

__all__ = ["ServerHandle", "serve", "start_server"]

START_SECONDS = 60.0


def serve(
    host: str = "127.0.0.1",
    port: int = 11111,
    *,
    address: AddressLike | None = None,
    workers: int | None = None,
    auth: AuthLike = None,
    tls: TLSLike = None,
    preload: Sequence[str] = (),
    insecure: bool = False,
    log_level: str = "info",
    ready: Callable[[str], None] | None = None,
    lifeline: int | None = None,
    grace: float | None = None,
    debuggable: bool = False,
    path: Sequence[str] | None = None,
    memory_per_worker: int | None = None,
    log_file: LogFile | None = None,
    inherited: Sequence[socket.socket] = (),
) -> None:
    """
    Run a server in this process until it is ended or gets SIGTERM or SIGINT.

    For what else it does at signals see :mod:`remote_executor.server.signals`.

    The process must have one thread only, since it forks. While it serves nobody but root can look
    into it (see :mod:`remote_executor.server.privacy`), unless it belongs to one client.

    Args:
        host: The name or number of the interface to listen on.
        port: The port; 0 means any free one.
        address: Instead of host and port; may be "unix:/path".
        workers: How many tasks run at a time; None means one for each core.
        auth: How clients prove who they are: a secret, or two (the one in use, and the one before
            it), ``Token``, ``GSSAPI``, or a mechanism of your own. None means
            ``REMOTE_EXECUTOR_AUTH``, and without that the user's token file, as it is now.
        tls: True (with a certificate made now), False, ``TLS`` or an ``ssl.SSLContext``. None means
            ``REMOTE_EXECUTOR_TLS``, and without that: TLS if the address can be reached from other
            machines.
        preload: Modules to import before workers are made.
        insecure: Speak plain text where other machines can listen.
        log_level: "debug", "info", "warning" or "error".
        ready: Called with the address, as text, once clients can connect.
        lifeline: A descriptor; at its end the server stops.
        grace: If given, the server belongs to the first client that comes: it stops when that one
            says goodbye, or has had no link for so many seconds, or if link and lifeline end.
        debuggable: Let others of this account look into the server and its workers, with a debugger
            say: also the tasks of one user into those of another.
        path: What user code imports from; None for what this process imports from.
        memory_per_worker: Bytes that a worker may have for itself, beside what it shares. One that
            has more is killed, and its task fails with WorkerDied, before the system kills
            something else.
        log_file: Opened anew at SIGHUP.
        inherited: Sockets that listen at that address, in place of ones that are made.

    Raises:
        ServerFailed: If it has ended though nobody has asked for that.
        ValueError: If the address needs ``insecure``, or ``auth`` or ``tls`` cannot be used.
        TypeError: If ``auth`` or ``tls`` is something else.
        OSError: If that address cannot be had.
    """
    where = parse_address(address if address is not None else (host, port))
    auth, asked = auth_of(auth), tls_of(tls)
    tls = server_tls(where, auth, asked, insecure)
    slots = workers if workers is not None else usable_cores()
    if slots < 1:
        raise ValueError("workers must be greater than 0")
    was_closed = closed = False
    if grace is None:
        # Several people may use it. What is secret is loaded below, and is only in this process.
        zygote, control = start_zygote(slots, preload, path, not debuggable)
        closed = not debuggable
    else:
        zygote, control = fork_zygote(slots, preload, path)
    if closed:
        was_closed = set_closed(True)
    door = Door(where, inherited)
    try:
        mechanism = auth.server()
        streams = None
        if tls:
            from remote_executor.net.tls import ServerTLS

            # Whoever asked for TLS wants no exception; the default is for those who could listen.
            streams = ServerTLS(tls, plain_locally=asked is None)
        door.open()
    except BaseException:
        control.close()
        await_zygote(zygote)
        if closed:
            set_closed(was_closed)
        raise
    loop = Loop()
    supervisor = Supervisor(loop, slots, control, mechanism, log_level, streams, memory_per_worker)
    if is_exposed(where, auth, tls):
        text = f"! {where} is served in plain text: others may read what travels, and change it"
        supervisor.log("warning", text)
    supervisor.listen(door)
    if grace is not None:
        supervisor.let(Lease(time.monotonic(), grace))
    if lifeline is not None:
        _hold(loop, lifeline, supervisor.stop if grace is None else supervisor.hung_up)
    set_process_name("farm-server")
    try:
        with ServerSignals(supervisor, loop, log_file, zygote):
            if ready is not None:
                ready(str(door.address))
            notify("READY=1")
            supervisor.run()
    finally:
        notify("STOPPING=1")
        loop.close()
        await_zygote(zygote)
        if closed:
            set_closed(was_closed)


def serve_stream(
    sock: socket.socket,
    *,
    workers: int | None,
    auth: AuthLike,
    preload: Sequence[str] = (),
    log_level: str = "warning",
    ready: Callable[[], None] | None = None,
) -> None:
    """
    Run a server in this process for the one client at the other end of a stream, and end with it.

    Args:
        sock: The stream.
        workers: How many tasks run at a time; None means one for each core.
        auth: The secret that the client knows.
        preload: Modules to import before workers are made.
        log_level: "debug", "info", "warning" or "error".
        ready: Called before the first byte is written.

    Raises:
        ServerFailed: If it has ended though nobody has asked for that.
    """
    slots = workers if workers is not None else usable_cores()
    zygote, control = fork_zygote(slots, preload)
    loop = Loop()
    supervisor = Supervisor(loop, slots, control, auth_of(auth).server(), log_level)
    set_process_name("farm-server")
    try:
        with ServerSignals(supervisor, loop, None, zygote):
            if ready is not None:
                ready()
            supervisor.serve_one(DistantStream(sock), embedded=False)
            supervisor.run()
    finally:
        loop.close()
        await_zygote(zygote)


def _hold(loop: Loop, lifeline: int, ended: Callable[[], None]) -> None:
    def readable() -> None:
        try:
            alive = bool(os.read(lifeline, 4096))
        except OSError:  # a socket that was reset
            alive = False
        if not alive:
            loop.forget(lifeline)
            ended()

    loop.watch(lifeline, readable)


# ------------------------------------------------------------------ a process of its own

BOOT = START + (
    "import json; c = json.loads(sys.stdin.buffer.readline()); "
    "from remote_executor.server.serve import serve_configured; sys.exit(serve_configured(c))"
)


# The running ones: a server should not end because nobody kept its handle.
_running: set[ServerHandle] = set()


def _stop_all() -> None:
    """At the interpreter's exit, after that of executors: stop what this process has started."""
    for handle in list(_running):
        handle.stop()


atexit.register(_stop_all)


class ServerHandle:
    """
    A server in a process of its own. It stops with this process, or by :meth:`stop`.

    Made by :func:`start_server`. In a ``with`` block it is stopped at the end.

    Attributes:
        address: Where it listens.
        pid: Its process id.
    """

    def __init__(self, process: subprocess.Popen[bytes], address: Address) -> None:
        self._process = process
        self.address = address
        self.pid = process.pid
        _running.add(self)

    def drain(self, timeout: float | None = None) -> bool:
        """
        Have the server finish what it has begun and give the rest back, and wait until it has.

        Its clients run what it gives back on their other servers; it ends with exit code 0.

        Args:
            timeout: Seconds after which it is stopped, whatever runs; None for as long as it takes.

        Returns:
            Whether all was done in that time.
        """
        self._process.send_signal(signal.SIGUSR1)
        if self.join(timeout):
            return True
        self.stop()
        return False

    def stop(self, timeout: float = 5.0) -> None:
        """
        Stop the server and wait until it is gone. It may have stopped already.

        Args:
            timeout: Seconds after which it is killed.
        """
        import subprocess

        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _running.discard(self)

    def join(self, timeout: float | None = None) -> bool:
        """
        Wait until the server has ended.

        Args:
            timeout: Seconds; None means for ever.

        Returns:
            Whether it has.
        """
        import subprocess

        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        assert self._process.stdin is not None
        self._process.stdin.close()
        _running.discard(self)
        return True

    def __enter__(self) -> ServerHandle:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._process.poll() is not None else "running"
        return f"<ServerHandle {self.address} pid={self.pid} {state}>"


def start_server(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    address: AddressLike | None = None,
    workers: int | None = None,
    background: bool = True,
    auth: AuthLike = None,
    tls: TLSLike = None,
    preload: Sequence[str] = (),
    insecure: bool = False,
    log_level: str = "warning",
    debuggable: bool = False,
) -> ServerHandle:
    """
    Start a server on this machine, in a process of its own.

    Args:
        host: The name or number of the interface to listen on.
        port: The port; 0 means any free one.
        address: Instead of host and port; may be "unix:/path".
        workers: How many tasks run at a time; None means one for each core.
        background: Return at once; otherwise wait until the server has ended.
        auth: How clients prove who they are: a secret, or two (the one in use, and the one before
            it), ``Token``, ``GSSAPI``, or a mechanism of your own. None means
            ``REMOTE_EXECUTOR_AUTH``, and without that the user's token file, as it is now.
        tls: True (with a certificate made now), False, ``TLS`` or an ``ssl.SSLContext``. None means
            ``REMOTE_EXECUTOR_TLS``, and without that: TLS if the address can be reached from other
            machines.
        preload: Modules to import before workers are made.
        insecure: Speak plain text where other machines can listen.
        log_level: "debug", "info", "warning" or "error", for its standard error.
        debuggable: Let other processes of this account look into it and its workers: see
            :func:`remote_executor.server.serve.serve`.

    Returns:
        The server, which can be reached by now.

    Raises:
        ValueError: If the address needs ``insecure``, or is none.
        TypeError: If ``auth`` or ``tls`` is something else, or cannot be pickled for that process.
        ConnectionFailed: If it cannot start: it says why. A LaunchFailed if no Python is known that
            it could be started with: see ``multiprocessing.set_executable``.
    """
    import subprocess

    from remote_executor.interpreter import check_python, python_command, server_environment
    from remote_executor.payload.pickles import dump

    where = parse_address(address if address is not None else (host, port))
    server_tls(where, auth_of(auth), tls_of(tls), insecure)
    if workers is not None and workers < 1:
        raise ValueError("workers must be greater than 0")
    # Pickles, since they can be anybody's objects; an SSLContext cannot travel, TLS(...) can.
    security = None
    if auth is not None or tls is not None:
        security = dump((auth, tls), "what auth= and tls= hold")[0].decode("latin-1")
    python = python_command()
    config = {
        "sys_path": sys.path if ROOT in sys.path else [*sys.path, ROOT],
        "address": str(where),
        "workers": workers,
        "security": security,
        "preload": list(preload),
        "insecure": insecure,
        "debuggable": debuggable,
        "log_level": log_level,
    }
    process = subprocess.Popen(
        [*python, "-c", BOOT, ROOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=server_environment(python),
        start_new_session=True,  # ^C at the terminal is for us to handle
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        try:
            process.stdin.write(json.dumps(config).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has failed already; what it says comes below
        answer = _read_answer(process)
    except BaseException:
        process.kill()
        process.wait()
        process.stdin.close()
        raise
    finally:
        process.stdout.close()
    if "address" not in answer:
        process.stdin.close()
        process.wait()
        check_python()  # if it was none, that explains it better
        raise ConnectionFailed(str(where), f"the server did not start: {answer['error']}")
    handle = ServerHandle(process, parse_address(answer["address"]))
    if not background:
        try:
            handle.join()
        finally:
            handle.stop()
    return handle


def _read_answer(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Read the line by which a server says that it is ready, or why it cannot be."""
    import select

    assert process.stdout is not None
    until = time.monotonic() + START_SECONDS
    data = b""
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    while not data.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            process.kill()
            return {"error": f"it said nothing within {START_SECONDS:.0f} s"}
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            return {"error": f"its process ended with exit code {process.wait()}"}
        data += chunk
    try:
        answer: dict[str, Any] = json.loads(data)
    except ValueError:
        process.kill()
        return {"error": f"what was started is no server of ours: it wrote {data[:200]!r}"}
    return answer


def serve_configured(config: dict[str, Any]) -> int:
    """Run the server that :func:`start_server` asked for; the process was made for it."""
    take_off_mark()
    # What tasks of others print must never be taken for our answer.
    answers = os.dup(1)
    os.dup2(2, 1)

    def tell(fields: dict[str, str]) -> None:
        os.write(answers, json.dumps(fields).encode() + b"\n")
        os.close(answers)

    told = False

    def ready(address: str) -> None:
        nonlocal told
        told = True
        tell({"address": address})

    try:
        auth = tls = None
        if config["security"] is not None:
            from remote_executor.payload.mains import prepare_main
            from remote_executor.payload.pickles import load

            prepare_main()  # for classes of the program's own __main__
            # The user's own objects, found where the user's code finds them.
            own, sys.path[:] = sys.path[:], config["sys_path"]
            auth, tls = load(config["security"].encode("latin-1"))
            sys.path[:] = own
            # A mechanism may import what it needs later.
            sys.meta_path.append(UsersFolders(config["sys_path"]))
        serve(
            address=config["address"],
            workers=config["workers"],
            auth=auth,
            tls=tls,
            preload=config["preload"],
            insecure=config["insecure"],
            debuggable=config["debuggable"],
            path=config["sys_path"],
            log_level=config["log_level"],
            ready=ready,
            lifeline=0,
        )
    except (OSError, ValueError) as exc:
        if told:
            raise
        tell({"error": str(exc)})
        return 1
    return 0
