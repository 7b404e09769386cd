"""
Runs programs, each in a fork of this process: ``python template.py HELPER_FOLDER``.

So a program costs a fork, and not the start of an interpreter. Reads requests as lines of JSON,
``{"id", "program", "mode", "address", "limit"}``, and answers ``{"id", "status"}`` when the program
has ended. What it showed is in the file ``outcome.json`` of its folder then, and what it wrote in
``outcome.log``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import selectors
import signal
import sys
import time
import traceback
from importlib.machinery import SourceFileLoader
from types import FunctionType, ModuleType


def run(request, helper):
    """Run a program as ``python program.py`` does, and note what came of it."""
    import oracle

    path = request["program"]
    folder = os.path.dirname(path)
    os.chdir(folder)
    oracle.MODE, oracle.ADDRESS = request["mode"], request["address"]
    main = ModuleType("__main__")
    main.__file__ = path
    main.__loader__ = SourceFileLoader("__main__", path)
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main
    sys.argv = [path]
    sys.path[:0] = [folder]
    error = None
    try:
        with open(path, "rb") as stream:
            code = compile(stream.read(), path, "exec", dont_inherit=True)
        exec(code, vars(main))
    except BaseException as raised:
        traceback.print_exc()
        error = {
            "type": type(raised).__name__,
            "text": str(raised),
            "refusal": oracle.is_refusal(raised),
        }
    finally:
        oracle.close()
    refused = refused_by_pickle(main) if request["mode"] == "home" else []
    with open(os.path.join(folder, "outcome.json"), "w", encoding="utf-8") as stream:
        json.dump({"shown": oracle.SHOWN, "error": error, "refused": refused}, stream)


def refused_by_pickle(main):
    """Return the names of a program's globals that are data which pickle refuses."""
    found = []
    for name, value in list(vars(main).items()):
        if name[:2] != "__" and type(value) not in (FunctionType, ModuleType, type):
            try:
                pickle.dumps(value, 5)
            except Exception:
                found.append(name)
    return found


def start(request, helper):
    """Fork, and run the program in the child."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.path.join(os.path.dirname(request["program"]), "outcome.log")
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for here, there in ((null, 0), (out, 1), (out, 2)):
            os.dup2(here, there)
        os.closerange(3, 256)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        run(request, helper)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main():
    """Serve requests until there are no more."""
    helper = sys.argv[1]
    sys.path[0] = helper
    for name in ("oracle", "remote_executor.client.executor"):
        importlib.import_module(name)
    waker, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    gc.freeze()
    running = {}
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(waker, selectors.EVENT_READ)
    open_end, rest = True, b""
    while open_end or running:
        for key, _ in selector.select(0.5 if running else None):
            read = os.read(key.fd, 1 << 16)
            if key.fd == waker:
                continue
            if not read:
                open_end = False
                selector.unregister(0)
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                request = json.loads(line)
                running[start(request, helper)] = request, time.monotonic() + request["limit"]
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            request, _ = running.pop(pid)
            kill_group(pid)  # what it left behind
            answer = json.dumps({"id": request["id"], "status": status})
            os.write(1, answer.encode() + b"\n")
        for pid, (_, deadline) in running.items():
            if time.monotonic() > deadline:
                kill_group(pid)


def kill_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()
