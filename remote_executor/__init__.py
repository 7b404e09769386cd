"""
``concurrent.futures`` on many machines.

::

    from remote_executor import FarmExecutor

    with FarmExecutor() as ex:                                     # a worker for each core
        print(list(ex.map(pow, range(10), range(10))))

    with FarmExecutor(addresses=["node1:11111", "node2:11111"]) as ex:   # servers elsewhere
        future = ex.submit(pow, 2, 100)

    with FarmExecutor.spawn_over_ssh(["node1", "user@node2:2222"]) as ex:  # only Python there
        future = ex.submit(pow, 2, 100)

See :class:`FarmExecutor`; :func:`start_server` to serve; ``remote-executor --help`` for the shell.
"""

import sys

# ``python -m remote_executor`` puts the current folder before the standard library. What lies there
# is not to be run as a part of us, so that folder goes before anything is imported; even __future__
# is a file. While -m looks for us it stands where the program's name will be.
if (
    sys.argv[:1] == ["-m"]
    and "remote_executor" in {each.removeprefix("-m").partition(".")[0] for each in sys.orig_argv}
    and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))
):
    del sys.path[0]

TYPE_CHECKING = False  # as in typing, which is a file, too
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

__all__ = [
    "GSSAPI",
    "TLS",
    "Address",
    "AddressError",
    "Auth",
    "AuthenticationFailed",
    "CannotShip",
    "CommandHost",
    "ConnectionFailed",
    "CycleError",
    "FarmError",
    "FarmExecutor",
    "FarmStatus",
    "FarmView",
    "InitializerFailed",
    "Journal",
    "JournalError",
    "LaunchFailed",
    "LocalProtocolError",
    "LocalServers",
    "Mechanism",
    "NestingError",
    "NoKernelError",
    "NoServerError",
    "Options",
    "PayloadError",
    "Pool",
    "ProtocolMismatch",
    "PtreeError",
    "PtreeRedefinedError",
    "PtreeUndefinedError",
    "Refused",
    "RemoteError",
    "RemoteModuleNotFound",
    "RemoteProtocolError",
    "RemoteServers",
    "Retry",
    "RetryState",
    "SSHHost",
    "ServerFailed",
    "ServerHandle",
    "ServerLost",
    "ServerStatus",
    "ServersMissing",
    "Shared",
    "TaskKilled",
    "TaskTimeout",
    "Token",
    "UnsupportedError",
    "WorkerDied",
    "__version__",
    "current_executor",
    "deftask",
    "deftask_source",
    "drain_server",
    "end_local_servers",
    "end_remote_servers",
    "end_server",
    "parse_address",
    "ping",
    "register_joblib_backend",
    "server_status",
    "server_worker_index",
    "start_local_servers",
    "start_remote_servers",
    "start_server",
    "wait_exponential",
    "wait_fixed",
    "wait_random",
    "worker_index",
]

# Names are loaded when they are first used: a worker imports this package too, and must not load
# what only a client needs.
_WHERE = {
    "Address": "net.addresses",
    "parse_address": "net.addresses",
    "TLS": "net.tls",
    "GSSAPI": "net.gssapi",
    "Token": "net.tokens",
    "Auth": "wire.auth",
    "Mechanism": "wire.auth",
    "Options": "options",
    "Journal": "journal.store",
    **dict.fromkeys(
        ["Retry", "RetryState", "wait_exponential", "wait_fixed", "wait_random"], "retry"
    ),
    "FarmExecutor": "client.executor",
    "FarmView": "client.executor",
    "FarmStatus": "client.status",
    "ServerStatus": "client.status",
    "current_executor": "client.nested_executor",
    "drain_server": "client.admin",
    "end_server": "client.admin",
    "ping": "client.admin",
    "server_status": "client.admin",
    "Shared": "payload.shared",
    "ServerHandle": "server.serve",
    "start_server": "server.serve",
    "server_worker_index": "server.worker",
    "worker_index": "server.worker",
    "Pool": "adapters.pool",
    "register_joblib_backend": "adapters.joblib_backend",
    "CommandHost": "launch.hosts",
    "SSHHost": "launch.hosts",
    "deftask": "payload.finder",
    "deftask_source": "payload.source",
    "LocalServers": "launch.local",
    "end_local_servers": "launch.local",
    "start_local_servers": "launch.local",
    "RemoteServers": "launch.remote",
    "end_remote_servers": "launch.remote",
    "start_remote_servers": "launch.remote",
    **dict.fromkeys(
        [
            "AddressError",
            "AuthenticationFailed",
            "CannotShip",
            "ConnectionFailed",
            "FarmError",
            "JournalError",
            "LaunchFailed",
            "LocalProtocolError",
            "PayloadError",
            "ProtocolMismatch",
            "Refused",
            "RemoteProtocolError",
            "ServerFailed",
        ],
        "errors",
    ),
    **dict.fromkeys(
        [
            "CycleError",
            "InitializerFailed",
            "NestingError",
            "NoKernelError",
            "NoServerError",
            "PtreeError",
            "PtreeRedefinedError",
            "PtreeUndefinedError",
            "RemoteError",
            "RemoteModuleNotFound",
            "ServerLost",
            "ServersMissing",
            "ServersMissing",
            "TaskKilled",
            "TaskTimeout",
            "UnsupportedError",
            "WorkerDied",
        ],
        "task_errors",
    ),
}


def __getattr__(name: str) -> "Any":
    from importlib import import_module

    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted(__all__)


if TYPE_CHECKING:
    from remote_executor.adapters.joblib_backend import register_joblib_backend
    from remote_executor.adapters.pool import Pool
    from remote_executor.client.admin import drain_server, end_server, ping, server_status
    from remote_executor.client.executor import FarmExecutor, FarmView
    from remote_executor.client.status import FarmStatus, ServerStatus
    from remote_executor.errors import (
        AddressError,
        AuthenticationFailed,
        CannotShip,
        ConnectionFailed,
        FarmError,
        JournalError,
        LaunchFailed,
        LocalProtocolError,
        PayloadError,
        ProtocolMismatch,
        Refused,
        RemoteProtocolError,
        ServerFailed,
    )
    from remote_executor.journal.store import Journal
    from remote_executor.launch.hosts import CommandHost, SSHHost
    from remote_executor.launch.local import (
        LocalServers,
        end_local_servers,
        start_local_servers,
    )
    from remote_executor.launch.remote import (
        RemoteServers,
        end_remote_servers,
        start_remote_servers,
    )
    from remote_executor.net.addresses import Address, parse_address
    from remote_executor.net.gssapi import GSSAPI
    from remote_executor.net.tls import TLS
    from remote_executor.net.tokens import Token
    from remote_executor.options import Options
    from remote_executor.payload.finder import deftask
    from remote_executor.payload.shared import Shared
    from remote_executor.payload.source import deftask_source
    from remote_executor.retry import (
        Retry,
        RetryState,
        wait_exponential,
        wait_fixed,
        wait_random,
    )
    from remote_executor.server.serve import ServerHandle, start_server
    from remote_executor.server.worker import server_worker_index, worker_index
    from remote_executor.task_errors import (
        CycleError,
        InitializerFailed,
        NestingError,
        NoKernelError,
        NoServerError,
        PtreeError,
        PtreeRedefinedError,
        PtreeUndefinedError,
        RemoteError,
        RemoteModuleNotFound,
        ServerLost,
        ServersMissing,
        TaskKilled,
        TaskTimeout,
        UnsupportedError,
        WorkerDied,
    )
    from remote_executor.wire.auth import Auth, Mechanism
