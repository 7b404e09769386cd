"""
The process that makes workers.

It is forked from the supervisor at the very start, while there is only one thread and no
connection, and forks workers on request. So a new worker has everything imported and shares the
memory. It waits for their end, and it kills: workers, what they leave behind, and everything if
the supervisor is gone. ::

    supervisor -> zygote   {"start": token, "index": ...} + 5 or 6 descriptors
                           {"kill": pid}    {"interrupt": pid}
    zygote -> supervisor   {"started": token, "pid": pid}    {"gone": pid, "status": exitcode}
                           {"trouble": text}

Each message is a line of JSON on a socket pair. The end of the stream means: kill all and end.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from remote_executor import garbage
from remote_executor.cores import thread_limits, usable_cores
from remote_executor.server.exit_codes import NOT_PREPARED
from remote_executor.server.kill_signal import KILL_SIGNAL
from remote_executor.server.process_names import set_process_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Zygote",
    "await_zygote",
    "fork_zygote",
    "kill_with_descendants",
    "start_zygote",
]

FDS_PER_WORKER = 5
IDLE_SECONDS = 0.05
"""After so long without a request there is time for what later workers may need."""

END_SECONDS = 3.0
SWEEP_SECONDS = 0.2
UNKNOWN_STATUS = 255 << 8
"""Exit code 255, for a worker that is gone and whose exit code somebody else has taken."""


def fork_zygote(
    slots: int, preload: Sequence[str], path: Sequence[str] | None = None
) -> tuple[int, socket.socket]:
    """
    Fork the zygote. Call it before anything is opened and before any thread is started.

    Args:
        slots: How many workers will be busy at a time.
        preload: Modules to import there before the first worker is made.
        path: What user code imports from; None for what this process imports from.

    Returns:
        Its pid and the control socket. Close the socket to end it, then wait for the pid.
    """
    _expect_children()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    status = 1
    try:
        ours.close()
        _close_all_but(theirs.fileno())
        Zygote(theirs).run(slots, preload, path)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def start_zygote(
    slots: int, preload: Sequence[str], path: Sequence[str] | None, closed: bool
) -> tuple[int, socket.socket]:
    """
    Start the zygote as a fresh process, in which nothing of our memory is left.

    For servers that several people use: what a zygote has, workers have, and so tasks. Where no
    Python is known that could be started, it is forked.

    Args:
        slots: How many workers will be busy at a time.
        preload: Modules to import there before the first worker is made.
        path: What user code imports from; None for what this process imports from.
        closed: Whether nobody may look into it, nor into workers.

    Returns:
        As :func:`fork_zygote`.
    """
    # Late: most servers are embedded ones, which have no use for it.
    from remote_executor.errors import LaunchFailed
    from remote_executor.interpreter import python_command
    from remote_executor.net.start import ROOT, START
    from remote_executor.server.privacy import environment_of_tasks

    try:
        command = python_command()
    except LaunchFailed:
        return fork_zygote(slots, preload, path)
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    how = {"fd": fd, "slots": slots, "preload": list(preload), "closed": closed}
    how["path"] = list(sys.path if path is None else path)
    how["token_file"] = os.environ.get("REMOTE_EXECUTOR_TOKEN_FILE") or None
    command += ["-c", START + FRESH, ROOT, json.dumps(how)]
    environ = environment_of_tasks(os.environ)
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    try:
        _close_all_but(fd)
        theirs.set_inheritable(True)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)  # the server's may bring what it is told, and tell of its end
        os.execvpe(command[0], command, environ)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(1)


FRESH = """\
import json
from remote_executor.server.zygote import main
main(**json.loads(sys.argv.pop(1)))
"""


def main(
    fd: int,
    slots: int,
    preload: list[str],
    path: list[str],
    closed: bool,
    token_file: str | None,
) -> NoReturn:
    """Be the zygote that :func:`start_zygote` has asked for, in a process made for it."""
    from remote_executor.server.privacy import set_closed

    if closed:
        set_closed(True)
    if token_file is not None:
        from remote_executor.net.tokens import inherit_path

        inherit_path(token_file)
    status = 1
    try:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
        control.set_inheritable(False)
        Zygote(control).run(slots, preload, path)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _expect_children() -> None:
    """
    Have the kernel tell of children that end, whatever the process that started this one wanted.

    A process inherits which signals are ignored and which are blocked. While SIGCHLD is ignored a
    child is gone without a trace, and nobody learns how a worker ended.
    """
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD, signal.SIGTERM])


def await_zygote(pid: int) -> None:
    """Wait until the zygote, whose control socket was closed, has ended; kill it in the end."""
    until = time.monotonic() + END_SECONDS + 1.0
    while not _has_ended(pid):
        if time.monotonic() > until:
            # It hangs in what it imports, say.
            _kill_one(pid)
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
            return
        time.sleep(0.002)


def _close_all_but(kept: int) -> None:
    """Close what was inherited: the client's socket must not stay open in here."""
    try:
        names = os.listdir("/dev/fd")
    except OSError:  # no /proc
        os.closerange(3, kept)
        os.closerange(max(3, kept + 1), os.sysconf("SC_OPEN_MAX"))
        return
    for name in names:
        fd = int(name)
        if fd > 2 and fd != kept:
            try:
                os.close(fd)
            except OSError:  # it was the folder's own
                pass


class Zygote:
    """
    Fork workers, wait for them, kill them.

    Args:
        control: The socket to the supervisor.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._fds: deque[list[int]] = deque()
        """Descriptors that came along, for one worker each; none if there was no room for them."""
        self._buffer = b""
        self._workers: set[int] = set()
        self._reaper = False
        self._rested = False
        self._path: list[str] | None = None
        """What workers import from whose client has not said it, if that is not as it is here."""

    def run(self, slots: int, preload: Sequence[str], path: Sequence[str] | None = None) -> None:
        """Serve until the supervisor is gone, then kill everything and return."""
        set_process_name("farm-zygote")
        # Out of the terminal's reach: its ^C and hang-up are the supervisor's to handle.
        if os.getpid() != os.getsid(0):
            os.setsid()
        woken, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._set_signals()
        self._own = (self._control.fileno(), woken, wakeup)
        os.environ.update(thread_limits(os.environ, slots, usable_cores()))
        self._preload(preload, path)
        self._set_signals()  # once more: what was preloaded may have set others
        # Here and not above: meanwhile the supervisor loads its own part.
        from remote_executor.server import worker

        # Before there is a worker: the very first task may make a daemon at once.
        self._reaper = worker.become_reaper()
        # Collections would write to every object's header, and so copy the pages shared.
        garbage.freeze()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(woken, select.POLLIN)
        try:
            while True:
                waits = self._rested or not self._workers
                ready = dict(poll.poll(None if waits else IDLE_SECONDS * 1000))
                if not ready:
                    self._rest()
                if woken in ready:
                    while _drained(woken):
                        pass
                self._reap_all()
                if self._control.fileno() in ready and not self._read():
                    return
        except (BrokenPipeError, ConnectionResetError):
            pass  # the supervisor is gone
        finally:
            self._end()

    def _set_signals(self) -> None:
        """Be woken when a child ends; the rest is for the supervisor."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def _preload(self, names: Sequence[str], path: Sequence[str] | None) -> None:
        """Import the user's modules from where the user's code does, as nothing of ours is."""
        own = sys.path[:]
        if path is not None:
            sys.path[:] = path
        for name in names:
            try:
                importlib.import_module(name)
            except BaseException as exc:
                self._tell({"trouble": f"cannot preload {name}: {type(exc).__name__}: {exc}"})
        if path is not None:
            # They may have added to it.
            self._path, sys.path[:] = sys.path[:], own

    def _rest(self) -> None:
        """Prepare for later workers, now that nobody waits."""
        self._rested = True
        self._load(("cloudpickle", "tblib.pickling_support", "remote_executor.server.logs"))

    def _load(self, names: Sequence[str]) -> None:
        """Load modules that workers made from now on shall have at once."""
        for name in names:
            try:
                importlib.import_module(name)
            except ImportError:
                pass  # the first task that needs it will say so
            except BaseException as exc:
                # It was a favour: a module that breaks here breaks no server that others use.
                self._tell({"trouble": f"cannot load {name}: {type(exc).__name__}: {exc}"})
        garbage.freeze()

    # ------------------------------------------------------------------- requests

    def _read(self) -> bool:
        """Carry out what the supervisor asks for; return False if it is gone."""
        data, fds, flags, _ = socket.recv_fds(self._control, 65536, 64)
        if flags & socket.MSG_CTRUNC:
            # There was no room for all of them here, so that worker cannot be made now.
            for fd in fds:
                os.close(fd)
            self._fds.append([])
        elif fds:
            self._fds.append(list(fds))
        if not data:
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "start" in message:
                self._start(message)
            elif "interrupt" in message:
                self._interrupt(message["interrupt"])
            elif "load" in message:
                self._load(message["load"])
            else:
                self._kill(message["kill"])
        return True

    def _start(self, config: dict[str, Any]) -> None:
        fds = self._fds.popleft() if self._fds else []
        try:
            if len(fds) != FDS_PER_WORKER + bool(config.get("modules")):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            pid = os.fork()
        except OSError as exc:
            for fd in fds:
                os.close(fd)
            self._tell({"started": config["start"], "pid": 0, "errno": exc.errno})
            return
        if not pid:
            self._be_worker(config, fds)
        self._workers.add(pid)
        for fd in fds:
            os.close(fd)
        self._tell({"started": config["start"], "pid": pid})

    def _be_worker(self, config: dict[str, Any], fds: list[int]) -> NoReturn:
        """Become a worker, in the new process."""
        from remote_executor.server import worker

        if self._path is not None and config.get("sys_path") is None:
            config["sys_path"] = self._path
        try:
            os.setsid()
            for fd in (*self._own, *chain(*self._fds)):
                os.close(fd)
        except BaseException:
            os._exit(NOT_PREPARED)
        worker.run(config, *fds)

    def _tell(self, message: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n")

    # --------------------------------------------------------------------- deaths

    def _reap_all(self) -> None:
        """Wait for whoever has ended."""
        for pid, status in self._ended():
            if pid in self._workers:
                self._workers.discard(pid)
                self._sweep()
                self._tell({"gone": pid, "status": os.waitstatus_to_exitcode(status)})

    def _ended(self) -> Iterator[tuple[int, int]]:
        """Find the children that have ended; a worker's group is killed."""
        waitid = getattr(os, "waitid", None)  # not on macOS before Python 3.13
        while waitid is not None:
            try:
                info = waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            except OSError:  # a sandbox refuses it
                break
            if info is None:
                return
            # It is not waited for yet, so its group's number cannot have been given away.
            if info.si_pid in self._workers:
                _kill_group(info.si_pid)
            yield os.waitpid(info.si_pid, 0)
        for pid in list(self._workers):
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # a module that was preloaded has waited for all
                found, status = pid, UNKNOWN_STATUS
            if found:
                _kill_group(pid)
                yield pid, status

    def _interrupt(self, pid: int) -> None:
        if pid in self._workers:
            try:
                os.kill(pid, KILL_SIGNAL)
            except ProcessLookupError:  # on macOS for one that has ended and was not waited for
                pass

    def _kill(self, pid: int) -> None:
        if pid in self._workers:
            _kill_group(pid)

    def _sweep(self) -> None:
        """Kill what dead workers left behind: orphans are our children now."""
        if not self._reaper:
            return
        killed: set[int] = set()
        for _ in range(20):
            found = [
                pid
                for pid in _children(os.getpid())
                if pid not in self._workers and pid not in killed and self._is_orphan(pid)
            ]
            if not found:
                return
            for pid in found:
                _kill_one(pid)
            killed.update(found)
            # Their own children come to us as soon as they have ended.
            until = time.monotonic() + SWEEP_SECONDS
            while found and time.monotonic() < until:
                found = [pid for pid in found if not _has_ended(pid)]
                time.sleep(0.0005)

    def _is_orphan(self, pid: int) -> bool:
        try:
            return os.getsid(pid) not in self._workers  # else its worker lives and may use it
        except ProcessLookupError:
            return False

    def _end(self) -> None:
        """Kill everybody."""
        self._control.close()
        for pid in self._workers:
            _kill_group(pid)
        until = time.monotonic() + END_SECONDS
        while self._workers and time.monotonic() < until:
            self._workers = {pid for pid in self._workers if not _has_ended(pid)}
            time.sleep(0.001)
        self._workers.clear()
        self._sweep()


def _drained(fd: int) -> bool:
    try:
        return len(os.read(fd, 4096)) == 4096
    except BlockingIOError:
        return False


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # It has not made its group yet, or only dead ones are left in it.
        _kill_one(pid)


def _kill_one(pid: int) -> None:
    _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def kill_with_descendants(pid: int) -> None:
    """
    Kill a worker and what its tasks have left behind, if the zygote cannot do it any more.

    What they left are the worker's children for as long as it lives, on Linux.
    """
    _signal(pid, signal.SIGSTOP)
    for child in _children(pid):
        kill_with_descendants(child)
    _kill_group(pid)


def _children(of: int) -> list[int]:
    """Return a process's children; none where there is no /proc."""
    found: list[int] = []
    if not os.path.isdir("/proc"):
        return found
    try:
        for thread in os.listdir(f"/proc/{of}/task"):
            with open(f"/proc/{of}/task/{thread}/children", encoding="ascii") as file:
                found += [int(pid) for pid in file.read().split()]
        return found
    except OSError:
        found = []
    try:
        names = os.listdir("/proc")
    except OSError:  # no descriptor is left to look: what is known of is killed all the same
        return found
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(fields[1]) == of:
                found.append(int(name))
    return found
