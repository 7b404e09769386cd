"""The command ``remote-executor``: serve, launch, doctor, ping, status, end, token."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from remote_executor import __version__
from remote_executor import cli_arguments as read
from remote_executor.errors import AddressError, FarmError, ServerFailed
from remote_executor.net.addresses import DEFAULT_PORT
from remote_executor.server.exit_codes import CANNOT_START, ENDED_BY_FAILURE

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: Without the program's name; None means those of the process.

    Returns:
        The exit code: 0 if all is well, 1 if not, 2 for wrong usage, 3 if a server has ended though
        nobody has asked it to, and 141 if whoever was to read the output has gone, as with
        ``| head``.
    """
    try:
        try:
            return _run(arguments)
        finally:
            # Not at the interpreter's end, where a closed pipe could not be told from trouble.
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
    except BrokenPipeError:
        _let_go_of_output()
        return 128 + signal.SIGPIPE


def _run(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        code: int = given.run(given)
    except BrokenPipeError:
        raise
    except AddressError as exc:
        print(f"remote-executor: {exc}", file=sys.stderr)
        return 2
    except (FarmError, ImportError, OSError, ValueError) as exc:
        print(f"remote-executor: {exc}", file=sys.stderr)
        return ENDED_BY_FAILURE if isinstance(exc, ServerFailed) else CANNOT_START
    return code


def _let_go_of_output() -> None:
    """Have what is left to be written go nowhere, or the interpreter would complain at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(null, stream.fileno())
        except (AttributeError, OSError, ValueError):  # none, or one that is no file
            pass
    os.close(null)


def _parser() -> read.Parser:
    parser = read.Parser(
        prog="remote-executor", description="Serve tasks of FarmExecutor, or look after servers."
    )
    parser.add_argument("--version", action="version", version=f"remote-executor {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parser.commands = commands.choices

    one = commands.add_parser(
        "serve",
        help="run a server in the foreground until it is ended",
        description="Run a server in the foreground. SIGTERM and ^C end it, SIGUSR1 has it drain "
        "first, SIGHUP has it open its log file anew. It tells systemd when it is ready, and takes "
        "the sockets of a socket unit.",
        epilog="Exit codes: 0 it was asked to end; 1 it cannot start; 2 wrong usage; 3 it has "
        "ended by a failure, and may be started again.",
    )
    one.add_argument(
        "--host",
        type=read.host,
        default="127.0.0.1",
        help="where to listen (default: %(default)s)",
    )
    one.add_argument(
        "--port",
        type=read.port,
        default=DEFAULT_PORT,
        help="0 for any free one (default: %(default)s)",
    )
    one.add_argument(
        "--unix", type=read.socket_path, metavar="PATH", help="listen on a Unix socket instead"
    )
    one.add_argument(
        "--workers", type=read.count, metavar="N", help="tasks at a time (default: cores)"
    )
    one.add_argument(
        "--preload",
        type=read.module_names,
        default=[],
        metavar="A,B",
        help="modules to import before workers are made",
    )
    one.add_argument(
        "--log-level", default="warning", choices=["debug", "info", "warning", "error"]
    )
    one.add_argument(
        "--memory-per-worker",
        type=read.size,
        metavar="SIZE",
        help="such as 4G: a worker that has more for itself is killed, and its task fails",
    )
    one.add_argument(
        "--log-file",
        type=read.text,
        metavar="PATH",
        help="where the log goes (default: standard error); SIGHUP has it opened anew",
    )
    one.add_argument(
        "--debuggable",
        action="store_true",
        help="let other processes of this account look into the server and its workers: debuggers, "
        "and also the tasks of one user into those of another",
    )
    one.add_argument(
        "--insecure",
        action="store_true",
        help="speak plain text, although others may read what travels, and change it",
    )
    _add_security(one, server=True)
    one.set_defaults(run=_serve)

    one = commands.add_parser(
        "launch",
        help="start servers over SSH, print where they can be reached from here, end them at ^C",
    )
    _add_ssh_options(one)
    one.add_argument(
        "--min-servers",
        type=read.count,
        metavar="N",
        default=1,
        help="how many must start (default: 1)",
    )
    one.set_defaults(run=_launch)

    one = commands.add_parser(
        "doctor", help="try to start a server on hosts over SSH; print each stage with its time"
    )
    _add_ssh_options(one)
    one.set_defaults(run=_doctor)

    one = commands.add_parser("ping", help="tell whether a server answers")
    one.add_argument("address", type=read.address, metavar="ADDRESS")
    one.add_argument("--timeout", type=read.seconds, default=3.0, metavar="SECONDS")
    _add_security(one)
    one.set_defaults(run=_ping)

    one = commands.add_parser("status", help="print what a server does, as JSON")
    one.add_argument("address", type=read.address, metavar="ADDRESS")
    _add_security(one)
    one.set_defaults(run=_status)

    one = commands.add_parser("end", help="have a server end when its clients are done")
    one.add_argument("address", type=read.address, metavar="ADDRESS")
    _add_security(one)
    one.set_defaults(run=_end)

    one = commands.add_parser(
        "drain", help="have a server finish what it has begun, give the rest back, and end"
    )
    one.add_argument("address", type=read.address, metavar="ADDRESS")
    one.add_argument("--wait", action="store_true", help="return only when it has ended")
    one.add_argument(
        "--timeout",
        type=read.seconds,
        metavar="SECONDS",
        help="end after so long, whatever runs (default: as long as it takes)",
    )
    _add_security(one)
    one.set_defaults(run=_drain)

    one = commands.add_parser("journal", help="show or remove results that are kept in a file")
    one.add_argument("action", choices=["ls", "show", "rm"], help="what to do")
    one.add_argument("file", help="the journal, as given to resume= or Journal()")
    one.add_argument(
        "keys", nargs="*", metavar="KEY", help="which results, by the first digits of their keys"
    )
    one.add_argument("--function", metavar="NAME", help="those of this function")
    one.set_defaults(run=_journal)

    one = commands.add_parser("token", help="show the secret that clients and servers share")
    one.add_argument(
        "what",
        choices=["path", "show", "new"],
        nargs="?",
        default="path",
        help="path: where it is; show: print it; new: make another, and keep the one before, which "
        "servers that start from now on accept as well (default: %(default)s)",
    )
    one.set_defaults(run=_token)
    return parser


def _add_ssh_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("hosts", nargs="+", metavar="HOST", help="host, user@host, user@host:port")
    one.add_argument("--user", type=read.text, help="who to log in as")
    one.add_argument("--port", type=read.ssh_port, help="the port of the SSH server")
    one.add_argument("--python", type=read.text, metavar="PATH", help="the Python to run there")
    one.add_argument(
        "--setup", type=read.text, metavar="LINE", help="a line for sh to be run before"
    )
    one.add_argument(
        "--workers", type=read.count, metavar="N", help="tasks at a time (default: cores)"
    )
    one.add_argument("--key", type=read.file, metavar="FILE", help="a private key")
    one.add_argument("--proxy", type=read.text, metavar="HOST,...", help="hosts to jump over")
    one.add_argument("--client", choices=["paramiko", "openssh", "auto"], default="paramiko")
    one.add_argument(
        "--accept-new",
        action="store_true",
        help="add a host that is not in known_hosts to it, instead of refusing it",
    )
    one.add_argument(
        "--ssh-config", type=read.file, metavar="FILE", help="instead of ~/.ssh/config"
    )


def _ssh_options(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "client": given.client,
        "host_keys": "accept-new" if given.accept_new else "strict",
        "ssh_config": given.ssh_config,
        "user": given.user,
        "port": given.port,
        "python": given.python,
        "setup": given.setup,
        "workers": given.workers,
        "key_filename": given.key,
        "proxy": given.proxy,
    }


def _add_security(one: argparse.ArgumentParser, server: bool = False) -> None:
    """Add what makes ``auth=`` and ``tls=``; the environment counts where nothing is said."""
    group = one.add_argument_group(
        "who may talk to whom, and how", "see examples/guides/security.md for all of it"
    )
    group.add_argument(
        "--auth",
        choices=["token", "gssapi"],
        help="how both ends prove who they are (default: REMOTE_EXECUTOR_AUTH, else token)",
    )
    group.add_argument(
        "--gssapi-service",
        type=read.text,
        metavar="NAME",
        help="the service in the server's Kerberos principal",
    )
    if server:
        group.add_argument(
            "--gssapi-users",
            type=read.names,
            metavar="USER@REALM,...",
            help="the principals that may run code here",
        )
    group.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        help="speak TLS (default: REMOTE_EXECUTOR_TLS, else where others could listen)",
    )
    group.add_argument(
        "--tls-certificate", type=read.file, metavar="PEM", help="this end's certificate"
    )
    group.add_argument(
        "--tls-key", type=read.file, metavar="PEM", help="its key, if it is in another file"
    )
    group.add_argument(
        "--tls-ca",
        type=read.file,
        metavar="PEM",
        help="who must have signed the "
        + ("clients' certificates" if server else "server's certificate"),
    )
    if not server:
        group.add_argument(
            "--tls-name",
            type=read.text,
            metavar="HOST",
            help="the name in it (default: the address's host)",
        )


def _security(given: argparse.Namespace) -> dict[str, Any]:
    """Return ``auth=`` and ``tls=``; None where nothing was said."""
    auth: Any = None
    if given.auth == "token":
        from remote_executor.net.tokens import Token

        auth = Token()
    elif given.auth == "gssapi" or given.gssapi_service or getattr(given, "gssapi_users", None):
        from remote_executor.net.gssapi import GSSAPI

        users = getattr(given, "gssapi_users", None) or []
        auth = GSSAPI(given.gssapi_service or "remote_executor", users)
    fields = {
        "certificate": given.tls_certificate,
        "key": given.tls_key,
        "ca": given.tls_ca,
        "server_name": getattr(given, "tls_name", None),
        "password": os.environ.get("REMOTE_EXECUTOR_TLS_PASSWORD"),
    }
    tls: Any = given.tls
    if tls is not False and any(
        fields[name] for name in ("certificate", "key", "ca", "server_name")
    ):
        from remote_executor.net.tls import TLS

        tls = TLS(**fields)
    return {"auth": auth, "tls": tls}


# Each command imports what it needs: a server's workers are forked from it, so it stays small.


def _serve(given: argparse.Namespace) -> int:
    from remote_executor.server.serve import serve
    from remote_executor.server.service_manager import address_of, inherited_sockets
    from remote_executor.server.signals import LogFile

    log_file = LogFile(given.log_file) if given.log_file else None
    inherited = inherited_sockets()
    if inherited:
        address: Any = address_of(inherited[0])
    else:
        address = f"unix:{given.unix}" if given.unix else None
    serve(
        given.host,
        given.port,
        address=address,
        inherited=inherited,
        log_file=log_file,
        workers=given.workers,
        memory_per_worker=given.memory_per_worker,
        preload=given.preload,
        log_level=given.log_level,
        insecure=given.insecure,
        debuggable=given.debuggable,
        **_security(given),
        ready=lambda address: print(f"listening on {address}", flush=True),
    )
    return 0


def _launch(given: argparse.Namespace) -> int:
    import logging
    import signal

    from remote_executor.launch.remote import start_remote_servers

    logging.basicConfig(format="remote-executor: %(message)s", level=logging.WARNING)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        with start_remote_servers(
            given.hosts, min_servers=given.min_servers, **_ssh_options(given)
        ) as servers:
            for host, address in zip(servers.hosts, servers.addresses, strict=True):
                print(f"{address}  {host}", flush=True)
            named = ",".join(map(str, servers.addresses))
            print(f"export REMOTE_EXECUTOR_ADDRESSES={named}", file=sys.stderr, flush=True)
            servers.join()
    except KeyboardInterrupt:
        return 0
    print("remote-executor: all servers have ended", file=sys.stderr)
    return 1


def _doctor(given: argparse.Namespace) -> int:
    from remote_executor.launch.remote import examine

    code = 0
    for found in examine(given.hosts, **_ssh_options(given)):
        print(found.host)
        for stage, seconds in found.stages:
            print(f"  {stage:<18} {seconds * 1000:7.0f} ms")
        if found.error is None:
            print(f"  all is well: Python {found.python}, {found.workers} tasks at a time")
        else:
            print(f"  {found.error}")
            code = 1
    return code


def _ping(given: argparse.Namespace) -> int:
    from remote_executor.client.admin import why_no_answer

    error = why_no_answer(given.address, given.timeout, **_security(given))
    if error is None:
        print(f"{given.address} answers")
        return 0
    print(f"{given.address} does not answer: {error}", file=sys.stderr)
    return 1


def _status(given: argparse.Namespace) -> int:
    from remote_executor.client.admin import server_status

    print(json.dumps(server_status(given.address, **_security(given)), indent=2))
    return 0


def _end(given: argparse.Namespace) -> int:
    from remote_executor.client.admin import end_server

    end_server(given.address, **_security(given))
    print(f"{given.address} ends when its clients are done")
    return 0


def _drain(given: argparse.Namespace) -> int:
    from remote_executor.client.admin import drain_server

    if not drain_server(given.address, given.timeout, wait=given.wait, **_security(given)):
        print(f"remote-executor: {given.address} has not ended in time", file=sys.stderr)
        return 1
    print(f"{given.address} has ended" if given.wait else f"{given.address} drains")
    return 0


def _journal(given: argparse.Namespace) -> int:
    from remote_executor.journal.admin import run

    return run(given.action, given.file, given.keys, given.function)


def _token(given: argparse.Namespace) -> int:
    from remote_executor.net.tokens import load_token, renew_token, token_path

    if given.what == "path":
        print(token_path())
    elif given.what == "show":
        print(load_token().decode())
    else:
        print(f"a new token is in {renew_token()}, and the one before in its second line")
        print("copy the file to the servers' machines and restart them, then to the clients';")
        print("once no client has the old one, remove the second line")
    return 0
