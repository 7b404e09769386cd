"""
Importable tasks for tests: what a worker is asked to do, well and badly behaved.

Every function here is importable by a worker as ``tests.support.tasks.name``, so it travels by
reference; the tests also send closures over the same bodies, which travel by value. Tasks tell
the test where they are through files in a directory that the test made: :func:`touch` marks a
point, :func:`wait_for` waits for the test's mark. Nothing here waits without a limit.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import faulthandler
import importlib
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

_SCALE = float(os.environ.get("REMOTE_EXECUTOR_TEST_SCALE", "1"))
#: No task of the tests lives longer than this, in seconds, whatever goes wrong.
LIFETIME = 30.0 * _SCALE
#: How often a waiting task looks, in seconds.
TICK = 0.005

STATE: dict[str, Any] = {}


# -- harmless ones ------------------------------------------------------------------------------


def add(x: Any, y: Any) -> Any:
    """Return ``x + y``."""
    return x + y


def square(x: int) -> int:
    """Return ``x * x``."""
    return x * x


def echo(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments as they came."""
    return args, kwargs


def same(value: Any) -> Any:
    """Return `value`."""
    return value


def nothing() -> None:
    """Return nothing."""


def fib(n: int) -> int:
    """Return the n-th Fibonacci number, by calling itself."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


class Adder:
    """A callable object with state, and with a method to send."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, value: int) -> int:
        return value + self.amount

    def plus(self, value: int) -> int:
        """Return the sum of `value` and the amount."""
        return value + self.amount


class Colour(enum.Enum):
    """Members must come back as the same objects."""

    RED = 1
    GREEN = 2


class Node:
    """A link of a circular list."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.next: Node = self


def ring_sum(node: Node) -> int:
    """Add up a circular list."""
    total, here = node.value, node.next
    while here is not node:
        total += here.value
        here = here.next
    return total


def pid() -> int:
    """Return the worker's process id."""
    return os.getpid()


def pids() -> tuple[int, int]:
    """Return the process ids of the worker and its parent."""
    return os.getpid(), os.getppid()


def in_main_thread() -> bool:
    """Tell whether the task runs in its process's main thread."""
    return threading.current_thread() is threading.main_thread()


# -- files as events ----------------------------------------------------------------------------


def touch(path: str | os.PathLike[str]) -> None:
    """Make the file `path`: a mark that the test waits for."""
    with open(path, "wb"):
        pass


def append(path: str | os.PathLike[str], line: str) -> None:
    """Add one line to a file in one write, so that lines of several workers never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def wait_for(path: str | os.PathLike[str], limit: float = LIFETIME) -> None:
    """
    Wait until the file `path` is there.

    Raises:
        TimeoutError: If it is not there after `limit` seconds.
    """
    end = time.monotonic() + limit
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(f"{path} did not appear within {limit} s")
        time.sleep(TICK)


def hold(
    started: str | os.PathLike[str], release: str | os.PathLike[str], value: Any = None
) -> Any:
    """Mark `started`, wait for `release`, return `value`."""
    touch(started)
    wait_for(release)
    return value


def meet(mine: str | os.PathLike[str], other: str | os.PathLike[str]) -> None:
    """Wait, without a pause that is worth mentioning, for another task to be here, too."""
    touch(mine)
    end = time.monotonic() + LIFETIME
    while not os.path.exists(other) and time.monotonic() < end:
        time.sleep(0.0005)


def tell_and_hold(path: str | os.PathLike[str], release: str | os.PathLike[str]) -> int:
    """Write this worker's id into the file `path`, wait for `release`, return the id."""
    temporary = f"{os.fspath(path)}.new"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    os.replace(temporary, path)  # whoever sees the file sees the id
    wait_for(release)
    return os.getpid()


def record(path: str | os.PathLike[str], value: Any) -> Any:
    """Append `value` to a file and return it: a run of the task leaves one line."""
    append(path, str(value))
    return value


def record_and_wait(
    path: str | os.PathLike[str], value: Any, release: str | os.PathLike[str]
) -> Any:
    """Append `value` to a file, wait for `release`, return `value`."""
    append(path, str(value))
    wait_for(release)
    return value


def record_and_nap(path: str | os.PathLike[str], value: Any, seconds: float) -> Any:
    """Append `value` to a file and return it after `seconds`."""
    append(path, str(value))
    time.sleep(seconds)
    return value


def nap(seconds: float, value: Any = None) -> Any:
    """Return `value` after `seconds`."""
    time.sleep(seconds)
    return value


def die_first(directory: str | os.PathLike[str], value: Any) -> Any:
    """End the process at the first run; return `value` at the next ones."""
    mark = os.path.join(directory, "died")
    append(os.path.join(directory, "runs"), str(os.getpid()))
    if not os.path.exists(mark):
        touch(mark)
        os._exit(3)
    return value


# -- initializers and state ---------------------------------------------------------------------


def set_state(key: str, value: Any) -> None:
    """Remember `value` in this worker."""
    STATE[key] = value


def set_state_and_pid(key: str, value: Any) -> int:
    """Remember `value` in this worker and tell which worker it is."""
    STATE[key] = value
    return os.getpid()


def get_state(key: str) -> Any:
    """Return what :func:`set_state` put there, or None."""
    return STATE.get(key)


def get_state_and_pid(key: str) -> tuple[int, Any]:
    """Return this worker's id and what :func:`set_state` put there."""
    return os.getpid(), STATE.get(key)


def failing_initializer(message: str = "error in initializer") -> None:
    """Raise ValueError, as an initializer must not."""
    raise ValueError(message)


def dying_initializer() -> None:
    """End the process, as an initializer must not."""
    os._exit(5)


# -- exceptions ---------------------------------------------------------------------------------


class PlainError(Exception):
    """An error with a field of its own."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message, code)
        self.code = code


class AwkwardError(Exception):
    """Pickles, and cannot be rebuilt: its constructor wants more than its args hold."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left} and {right}")


class LockedError(Exception):
    """Cannot be pickled: it holds a lock."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class HostileError(Exception):
    """Raises while it is pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle of me")


class LateHostileError(Exception):
    """Pickles, and raises while it is unpickled."""

    def __reduce__(self) -> Any:
        return _raise_value_error, ("no unpickle of me",)


class ExitingError(Exception):
    """Pickles, and leaves the interpreter while it is unpickled."""

    def __reduce__(self) -> Any:
        return sys.exit, (1,)


def _raise_value_error(message: str) -> None:
    raise ValueError(message)


def fail(message: str = "foo") -> None:
    """Raise RuntimeError."""
    raise RuntimeError(message)  # the line that a remote traceback shows


def raise_it(error: BaseException) -> None:
    """Raise `error`."""
    raise error


def raise_new(kind: Callable[..., BaseException], *args: Any) -> None:
    """Raise a new exception that was never pickled on its way here."""
    raise kind(*args)


def raise_from() -> None:
    """Raise PlainError from a KeyError."""
    try:
        {}["absent"]
    except KeyError as error:
        raise PlainError("outer", 7) from error


def raise_while_handling() -> None:
    """Raise PlainError while a ZeroDivisionError is being handled."""
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        raise PlainError("second", 8)  # noqa: B904


def raise_noted() -> None:
    """Raise a ValueError with a note (Python 3.11 and later)."""
    error = ValueError("noted")
    if hasattr(error, "add_note"):
        error.add_note("a note from the worker")
    raise error


def raise_group() -> None:
    """Raise an ExceptionGroup (Python 3.11 and later)."""
    kind = getattr(__builtins__, "ExceptionGroup", None) or __builtins__["ExceptionGroup"]  # type: ignore[index]
    raise kind("several", [ValueError("one"), KeyError("two")])


def raise_deep(depth: int) -> None:
    """Raise from `depth` calls down."""
    if depth:
        raise_deep(depth - 1)
    raise ValueError("deep")


def leave(code: Any = 1) -> None:
    """Raise SystemExit."""
    sys.exit(code)


def interrupt() -> None:
    """Raise KeyboardInterrupt."""
    raise KeyboardInterrupt("by the task")


def warn(message: str) -> None:
    """Warn, and write to standard error."""
    warnings.warn(message, UserWarning, stacklevel=1)


# -- values that do not travel -------------------------------------------------------------------


def crash() -> None:
    """Die by a segmentation fault, without a core file."""
    with contextlib.suppress(Exception):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


class Tracked:
    """Is known as long as it lives."""

    living: ClassVar[weakref.WeakSet[Tracked]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.living.add(self)

    def __reduce__(self) -> Any:
        return Tracked, ()


def tracked() -> int:
    """Return how many live here."""
    return len(Tracked.living)


class ErrorAtPickle:
    """Raises while it is pickled."""

    def __reduce__(self) -> Any:
        raise pickle.PicklingError("error at pickle")


class ErrorAtUnpickle:
    """Raises while it is unpickled."""

    def __reduce__(self) -> Any:
        return _raise_value_error, ("error at unpickle",)


class ExitAtUnpickle:
    """Leaves the interpreter while it is unpickled."""

    def __reduce__(self) -> Any:
        return sys.exit, (1,)


class ExitAtPickle:
    """Leaves the interpreter while it is pickled."""

    def __reduce__(self) -> Any:
        sys.exit(1)


class DeathAtPickle:
    """Ends the process while it is pickled."""

    def __reduce__(self) -> Any:
        os._exit(4)


class DeathAtUnpickle:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (4,)


class OnlyAt:
    """Unpickles in one process only: everywhere else it raises."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __reduce__(self) -> Any:
        return _only_at, (self.pid,)


def _only_at(pid: int) -> OnlyAt:
    if os.getpid() != pid:
        raise LookupError(f"this belongs to process {pid}")
    return OnlyAt(pid)


class ByName:
    """Pickles as what a module has under a name, which the other end looks up."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __reduce__(self) -> Any:
        return _look_up, (self.module, self.name)


def _look_up(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def make(kind: Callable[..., Any], *args: Any) -> Any:
    """Return a new `kind`: a result that may not travel."""
    return kind(*args)


def make_only_here() -> OnlyAt:
    """Return what only this worker can unpickle."""
    return OnlyAt(os.getpid())


def make_lock() -> Any:
    """Return a lock, which cannot be pickled."""
    return threading.Lock()


def make_generator() -> Iterator[int]:
    """Return a generator, which cannot be pickled."""
    return (i for i in range(3))


# -- tasks that misbehave -----------------------------------------------------------------------


def die(code: int = 1, stderr: str = "") -> None:
    """End this process at once, after a last word."""
    if stderr:
        os.write(2, stderr.encode())
    os._exit(code)


def kill_self(number: int = signal.SIGKILL) -> None:
    """End this process by a signal."""
    os.kill(os.getpid(), number)
    time.sleep(LIFETIME)


def spin(started: str | os.PathLike[str]) -> None:
    """Loop tightly until killed."""
    touch(started)
    end = time.monotonic() + LIFETIME
    while time.monotonic() < end:
        pass


def spin_and_catch(started: str | os.PathLike[str]) -> None:
    """Loop until killed, whatever exception is thrown at it."""
    touch(started)
    end = time.monotonic() + LIFETIME
    while time.monotonic() < end:
        try:
            while time.monotonic() < end:
                time.sleep(TICK)
        except BaseException:  # noqa: S110
            pass


def block_signals(started: str | os.PathLike[str]) -> None:
    """Block every signal that can be blocked, and wait until killed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    touch(started)
    end = time.monotonic() + LIFETIME
    while time.monotonic() < end:
        time.sleep(TICK)


def hold_gil(started: str | os.PathLike[str], seconds: int) -> int:
    """Hold the GIL for `seconds` in one C call: no Python code of this process runs."""
    touch(started)
    ctypes.PyDLL(None).sleep(ctypes.c_uint(seconds))
    return seconds


def close_descriptors() -> str:
    """Close the descriptors 0 to 20, as daemons do."""
    for number in range(21):
        with contextlib.suppress(OSError):
            os.close(number)
    return "closed"


def leave_grandchild(seconds: float, *, ignore_signals: bool = False) -> int:
    """Start a process that keeps our standard output and error open, and do not wait for it."""
    code = f"import time; time.sleep({seconds})"
    if ignore_signals:
        code = (
            "import signal, time\n"
            "for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): "
            "signal.signal(n, signal.SIG_IGN)\n"
            f"time.sleep({seconds})"
        )
    child = subprocess.Popen([sys.executable, "-c", code])
    child.returncode = 0  # nobody waits for it: no warning about that
    return child.pid


def fork_grandchild(seconds: float) -> int:
    """Fork a process that keeps everything open that we have, and do not wait for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        time.sleep(seconds)
        os._exit(0)
    return child


def exhaust_memory(limit: int) -> int:
    """Ask for more memory than `limit` bytes above what is in use allow: MemoryError."""
    import resource

    old = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, old[1]))
    try:
        return len(bytearray(4 * limit))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def eat_memory_until_killed(limit: int) -> None:
    """Do as a task that the kernel's memory killer ends: die by SIGKILL while allocating."""
    blocks = []
    while sum(map(len, blocks)) < limit:
        blocks.append(bytearray(1 << 20))
    os.kill(os.getpid(), signal.SIGKILL)


def print_words(out: str = "", err: str = "") -> None:
    """Print to both streams."""
    if out:
        print(out)
    if err:
        print(err, file=sys.stderr)


def print_raw(out: bytes = b"", err: bytes = b"") -> None:
    """Write past Python's streams, as C code does."""
    if out:
        os.write(1, out)
    if err:
        os.write(2, err)


def print_much(count: int, size: int) -> int:
    """Print `count` lines of `size` bytes, newline included."""
    line = "x" * (size - 1)
    for _ in range(count):
        print(line)
    return count * size


def replace_streams() -> str:
    """Put other objects in place of sys.stdout and sys.stderr, and leave them there."""
    sys.stdout = io.StringIO()
    sys.stderr = io.StringIO()
    return "replaced"


def read_stdin() -> str:
    """Read standard input to its end: there is none in a worker."""
    return sys.stdin.read() if sys.stdin is not None else ""


def own_executor() -> str:
    """Use a process pool inside a task."""
    import concurrent.futures
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return str(pool.submit(add, 3, 4).result(LIFETIME))


def thread_left_running(seconds: float) -> str:
    """Leave a thread behind that runs on after the task."""
    threading.Thread(target=time.sleep, args=(seconds,), daemon=True).start()
    return "left"


def change_directory(path: str | os.PathLike[str]) -> str:
    """Change the worker's working directory."""
    os.chdir(path)
    return os.getcwd()
