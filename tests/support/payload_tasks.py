"""Importable tasks and classes, good and bad, and a worker in a second interpreter."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

from remote_executor.client.foreign import Foreign
from remote_executor.payload import failures, mains, pickles
from remote_executor.payload.functions import PURE, FunctionCache, FunctionTable, in_one_piece

ROOT = Path(__file__).resolve().parents[2]


def add(a, b=0):
    return a + b


def describe(obj):
    return type(obj).__name__


@functools.lru_cache
def cached(x):
    return x


class Lockable:
    def __init__(self):
        self.lock = threading.Lock()


class Plain:
    def __init__(self, x=0):
        self.x = x

    def plus(self, y):
        return self.x + y

    def __call__(self, y):
        return self.x + y


class Moody:
    """Pickles only when told so."""

    def __init__(self):
        self.willing = True

    def __reduce__(self):
        if not self.willing:
            raise ValueError("not today")
        return Moody, ()


class TwoArguments(Exception):
    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class BadFile(OSError):
    def __init__(self, where):
        super().__init__(2, "no such thing", where)
        self.where = where


class HoldsLock(Exception):
    def __init__(self, words="held"):
        super().__init__(words)
        self.lock = threading.Lock()


class BadStr(Exception):
    def __str__(self):
        raise SystemExit("no words")


class LeavesOnLoad(Exception):
    def __reduce__(self):
        return sys.exit, (3,)


class LoadsAsSomethingElse(Exception):
    def __reduce__(self):
        return str, ("not an exception",)


class ReducesToName(Exception):
    def __reduce__(self):
        return "no_such_name"


class OwnState(Exception):
    def __init__(self, words):
        super().__init__(words)
        self.secret = "s"

    def __reduce__(self):
        return OwnState, self.args, ("state", self.secret)

    def __setstate__(self, state):
        self.secret = state[1] + "!"


class RefusesState(Exception):
    def __reduce__(self):
        return RefusesState, self.args, ("state",)

    def __setstate__(self, state):
        raise ValueError("refused")


class OwnWay(Exception):
    def __reduce__(self):
        return OwnWay, self.args, None, None, None, own_way_setter


def own_way_setter(error, state):
    """Never called, as the state is None."""


class Fixed(Exception):
    """As a frozen dataclass."""

    def __setattr__(self, name, value):
        raise AttributeError(f"cannot assign {name}")


def fail(error):
    raise error


def fail_deep(error, depth):
    if depth:
        fail_deep(error, depth - 1)
    raise error


# --- a worker in a second interpreter, over its stdin and stdout ---------------------------------


def serve():
    """Be a worker until stdin ends."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    mains.prepare_main()
    table = FunctionTable()
    while True:
        try:
            kind, *parts = pickle.load(stdin)
        except EOFError:
            return
        if kind == "define":
            table.define(*parts)
            continue
        number, body, buffers = parts
        try:
            function = table.get(number)
            args, kwargs = pickles.load(body, buffers)
            answer = "result", *pickles.dump_result(function(*args, **kwargs))
        except BaseException as error:
            answer = "failure", *failures.encode_failure(error, skip=1)
        # As bytes, as a socket would have it.
        pickle.dump((answer[0], bytes(answer[1]), own(answer[2])), stdout)
        stdout.flush()


def own(buffers):
    return buffers if isinstance(buffers, bytes) else [bytearray(buffer) for buffer in buffers]


class Worker:
    """The client's end: calls functions in another interpreter."""

    def __init__(self):
        self.cache = FunctionCache()
        self.numbers = {}
        self.defined = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from tests.support import payload_tasks as t; t.serve()"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def pack(self, function, call):
        return self.cache.pack(function, call)

    def call(self, function, *args, **kwargs):
        encoded, body, buffers = self.pack(function, (args, kwargs))
        if encoded.key not in self.numbers:
            number = self.numbers[encoded.key] = len(self.numbers)
            flags = PURE if encoded.pure else 0
            self.send("define", number, flags, encoded.body, own(encoded.buffers))
            self.defined += 1
        self.send("call", self.numbers[encoded.key], body, own(buffers))
        kind, body, rest = pickle.load(self.process.stdout)
        if kind == "failure":
            raise failures.decode_failure(body, rest)
        return pickles.load(body, rest)

    def whole(self, function, *args):
        """Call a method or a partial, in one piece with its arguments if need be."""
        function, (args, _) = in_one_piece(function, (args, {}))
        return self.call(function, *args)

    def send(self, *message):
        pickle.dump(message, self.process.stdin)
        self.process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


class OtherWorker(Worker):
    """As Worker, but what is called goes as if to another Python."""

    PYTHONS = (("cpython", (3, 10)),)

    def pack(self, function, call):
        encoded, body, buffers = super().pack(function, call)
        form = Foreign(self.PYTHONS, True).form(
            self.cache, function, encoded, "call", call, body, buffers
        )
        if isinstance(form, Exception):
            raise form
        return form or (encoded, body, buffers)


def run_main(script, folder=None):
    """
    Run a script as the ``__main__`` of a new interpreter; return its output.

    Args:
        script: The script.
        folder: Where to put it, if its text is to be found; what is there can be imported.
    """
    how = ["-c", HEAD + script]
    path = [str(ROOT)]
    if folder is not None:
        path.append(str(folder))
        how = [str(folder / "program.py")]
        (folder / "program.py").write_text(HEAD + script, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", *how],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


class NamesItself:
    """A wrapper that is pickled as the name of what it wraps."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args):
        self.calls += 1
        return self.function(*args)

    def __reduce__(self):
        return self.__qualname__


class Asking:
    """A descriptor that is pickled as what its class has."""

    def __init__(self, held):
        self.held = held

    def __set_name__(self, owner, name):
        self.owner, self.name = owner, name

    def __get__(self, obj, owner=None):
        return self

    def __reduce__(self):
        return of_class, (self.owner, self.name)


def of_class(owner, name):
    return vars(owner)[name]


HEAD = """
from tests.support.payload_tasks import OtherWorker, Worker
from tests.support import payload_tasks
"""
