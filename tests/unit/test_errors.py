"""The error tree: fields, words, bases, and that all of them pickle."""

from __future__ import annotations

import concurrent.futures
import pickle
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from remote_executor import errors, task_errors
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
    exit_words,
)

ALL = [
    (FarmError("words"), "words"),
    (LocalProtocolError("a bug"), "a bug"),
    (RemoteProtocolError("frame of 9 GB"), "frame of 9 GB"),
    (AddressError("h:99999", "no such port"), "bad address 'h:99999': no such port"),
    (ConnectionFailed("h:1", "refused"), "cannot connect to h:1: refused"),
    (AuthenticationFailed("h:1", "no proof"), "authentication with h:1 failed: no proof"),
    (ProtocolMismatch("h:1", "1 and 3"), "no common protocol with h:1: 1 and 3"),
    (
        LaunchFailed("me@h", "import", "it ended", "no room", "ssh me@h true"),
        "no server on me@h: import: it ended; it wrote: no room; try by hand: ssh me@h true",
    ),
    (Refused("you are not Bob"), "you are not Bob"),
    (JournalError("run.db", "disk full"), "journal run.db: disk full"),
    (ServerFailed("its zygote has died"), "its zygote has died"),
    (PayloadError("argument 1", "a lock"), "argument 1 cannot be pickled: a lock"),
    (
        WorkerDied("h", 77, -9, "f", "x", "o"),
        "worker 77 on h was killed by signal 9 (SIGKILL) during f: o\nlast lines of its stderr:\nx",
    ),
    (WorkerDied("node1", 77, 3, "f"), "worker 77 on node1 ended with exit code 3 during f"),
    (InitializerFailed("node1", "ValueError: x"), "the initializer failed on node1: ValueError: x"),
    (ServerLost("f", ["a:1", "b:2"]), "f was lost with its server: a:1, b:2"),
    (NoServerError(["a:1"], "refused"), "no server (a:1): refused"),
    (NoServerError([], "all removed"), "no server (no address is known): all removed"),
    (TaskKilled("f"), "f was killed"),
    (TaskKilled("f", "node1", 7, "kill()"), "f was killed in worker 7 on node1: kill()"),
    (TaskTimeout("f", 2.5), "f ran for longer than 2.5 s and was stopped"),
    (RemoteError("m.E", "bad", "Traceback ..."), "m.E: bad"),
    (RemoteError("m.E", ""), "m.E"),
    (CannotShip("f", "it has no source"), "f cannot be sent: it has no source"),
    (
        CannotShip("f", "it has no source", "Python 3.12", "Python 3.10", "use deftask"),
        "f cannot be sent from Python 3.12 to Python 3.10: it has no source; use deftask",
    ),
    (
        RemoteModuleNotFound("a.b", "node1", "A", "1.2", "must be installed there, too"),
        "node1 has no module 'a.b' of A 1.2, which must be installed there, too",
    ),
    (
        RemoteModuleNotFound("a", "node1", "a", "", "is not sent"),
        "node1 has no module 'a' of a, which is not sent",
    ),
    (
        NestingError("tasks are nested 500 deep"),
        "tasks are nested 500 deep",
    ),
    (
        NoKernelError("there is no current kernel"),
        (
            "there is no current kernel: make one with make_kernel(4) or "
            "make_kernel(['host:port']), or use 'with executor.as_kernel():', or pass executor="
        ),
    ),
    (
        UnsupportedError("ThreadPoolExecutor", "kill tasks"),
        "ThreadPoolExecutor cannot kill tasks; a FarmExecutor can",
    ),
    (
        UnsupportedError("SerialExecutor", "broadcast"),
        "a task cannot broadcast on the kernel that runs it",
    ),
    (
        ServersMissing(["b:2", "c:3"], "b:2: refused; c:3: connecting", "f has run nowhere"),
        (
            "f has run nowhere, since not all servers serve (b:2: refused; c:3: connecting): "
            'start them, or remove_server(address), or broadcast(..., missing="skip")'
        ),
    ),
    (CycleError("'a', 'b'"), "it would wait for itself for ever: 'a', 'b'"),
    (PtreeError("a"), "a"),
    (PtreeRedefinedError("a"), "node 'a' has a function already"),
    (PtreeUndefinedError("a"), "node 'a' has no function"),
    (
        PtreeUndefinedError("a", ["b", "c"]),
        "node 'a' has no function; it is asked for by 'b', 'c'",
    ),
]


@pytest.mark.parametrize(("error", "words"), ALL, ids=lambda value: type(value).__name__)
def test_words_come_from_the_fields(error, words):
    assert words == str(error)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", [error for error, _ in ALL], ids=repr)
def test_errors_pickle_with_fields_and_notes(error, protocol):
    error.__dict__["__notes__"] = ["a note"]

    again = pickle.loads(pickle.dumps(error, protocol))

    assert type(error) is type(again)
    assert error.args == again.args
    assert vars(error) == vars(again)
    assert str(error) == str(again)


def test_every_error_has_an_example_and_a_place_in_the_tree():
    names = {*errors.__all__, *task_errors.__all__}

    assert names == {type(error).__name__ for error, _ in ALL}
    assert all(name in errors.__doc__ for name in names)
    assert all(isinstance(error, FarmError) for error, _ in ALL)


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (AddressError, ValueError),
        (ConnectionFailed, ConnectionError),
        (AuthenticationFailed, ConnectionFailed),
        (ProtocolMismatch, ConnectionFailed),
        (LaunchFailed, ConnectionFailed),
        (PayloadError, pickle.PicklingError),
        (PayloadError, TypeError),
        (WorkerDied, BrokenProcessPool),
        (InitializerFailed, BrokenProcessPool),
        (ServerLost, BrokenExecutor),
        (NoServerError, BrokenExecutor),
        (TaskKilled, BrokenExecutor),
        (TaskTimeout, concurrent.futures.TimeoutError),
        (NestingError, RuntimeError),
        (NoKernelError, RuntimeError),
        (UnsupportedError, TypeError),
        (CycleError, RuntimeError),
        (PtreeRedefinedError, ValueError),
        (PtreeUndefinedError, LookupError),
    ],
)
def test_errors_are_what_the_standard_library_would_raise(error, base):
    assert issubclass(error, base)


def test_an_address_is_not_taken_for_an_errno():
    error = ConnectionFailed("h:1", "refused")

    assert error.errno is None
    assert error.args == ("h:1", "refused")


def test_exit_words():
    assert exit_words(None) == "ended, nobody knows how"
    assert exit_words(0) == "ended with exit code 0"
    assert exit_words(-11) == "was killed by signal 11 (SIGSEGV)"
    assert exit_words(-999) == "was killed by signal 999"


def test_servers_and_workers_do_not_pay_for_the_client():
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import remote_executor.errors, remote_executor.payload.functions\n"
        "import remote_executor.payload.failures\n"
        "heavy = {'concurrent.futures', 'logging', 'dataclasses', 'inspect', 'cloudpickle',\n"
        "         'tblib', 'hashlib', 'ssl', 'subprocess', 'asyncio', 'json', 'traceback', 'dis'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))\n"
    )
    # -S: what a site-packages .pth file imports is not ours to answer for.
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.strip() == "[]"
