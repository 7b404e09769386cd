"""
A server that knows the secret and means no good, against a real client.

In each round a real :class:`FarmExecutor` gives tasks to a server of ours that answers with random
and mutated bytes at one stage: before the proofs, in them, in ATTACHED, or in the session (results,
failures, DIED, BROKEN, LOG, WANT, SLOTS and all else). In some rounds an honest server is there,
too. What must hold::

    every future is settled, and every map ends, soon after the server is gone    ("hung")
    only our errors reach them, or what a server said that a task raised          ("raw")
    no log line has a traceback, no thread ends by an exception                   ("raw")
    beside an honest server nothing is lost                                       ("lost")
    memory stays as it is, and so do descriptors                                  ("grown")

A short run is a test. A long one by hand, which says what it found and exits with 1 for any::

    python -m tests.fuzz.hostile_server --minutes 10
    python -m tests.fuzz.hostile_server --seed 1234 --rounds 1    # one round again
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import random
import resource
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remote_executor import FarmError, FarmExecutor, ServerLost
from remote_executor.payload.failures import encode_failure
from remote_executor.payload.pickles import dump, load
from remote_executor.server.serve import start_server
from remote_executor.wire.auth import TokenAuth
from remote_executor.wire.frames import Frame, make_frame
from remote_executor.wire.link import PREAMBLE, Link, LinkState
from remote_executor.wire.messages import FIRST_NUMBERED, Flag, Kind, encode_ids
from tests.support.scale import scaled

__all__ = ["Report", "fuzz"]

SECRET = b"the secret of the hostile server"
TASKS = 6
ITEMS = 12
SETTLE_SECONDS = 20.0
"""After so long a future counts as hung. It takes less than two seconds, as a rule."""

MOST_GROWN = 24 * 1024 * 1024
MOST_ADDRESS_SPACE = 6 * 1024**3
"""A pickle may ask for any amount of memory, and that shall be a MemoryError."""

STAGES = ("babble", "hello", "proof", "attached", *["session"] * 8)

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    2**70,
    1.5,
    float("nan"),
    "",
    "x",
    "\ud800",
    "\x1b[2J",
    "y" * 50_000,
    [],
    [1, "2"],
    [[]],
    {},
    {"a": 1},
    {"": None},
)


class SaidToBeRaised(Exception):
    """What the server says that a task has raised."""


def honest(number: int) -> int:
    """What a task returns."""
    return number * 2


@dataclass
class Report:
    """What a run has found."""

    rounds: int = 0
    settled: int = 0
    raw: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """Resident bytes, now and then."""
    descriptors: list[int] = field(default_factory=list)

    @property
    def grown(self) -> int:
        """By how many bytes the memory has grown, from the end of the first quarter on."""
        quarter = len(self.memory) // 4
        return self.memory[-1] - max(self.memory[: quarter + 1]) if self.memory else 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.raw or self.hung or self.lost) and self.grown < MOST_GROWN

    def __str__(self) -> str:
        numbers = (
            f"{self.rounds} rounds, {self.settled} futures and maps settled: "
            f"{len(self.raw)} raw errors, {len(self.hung)} hung, {len(self.lost)} lost, "
            f"memory grew by {self.grown / 1e6:.1f} MB (limit {MOST_GROWN / 1e6:.0f}), "
            f"descriptors {self.descriptors[:1]} to {self.descriptors[-1:]}"
        )
        return "\n".join([numbers, *self.raw[:5], *self.hung[:5], *self.lost[:5]])


# ------------------------------------------------------------------------------ the server


class Hostile:
    """
    The server of one round.

    Args:
        path: Where to listen: a Unix socket.
        chance: All that it does follows from this.
        stage: Where it misbehaves.
        truthful: Whether it returns no wrong results.
    """

    def __init__(self, path: str, chance: random.Random, stage: str, truthful: bool) -> None:
        self.chance = chance
        self.stage = stage
        self.truthful = truthful
        self.story: list[str] = []
        self._open = True
        self._lock = threading.Lock()
        self._socks: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(16)
        self._path = path
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Hang up, and be gone."""
        self._open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        os.unlink(self._path)
        with self._lock:
            for sock in self._socks:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(scaled(10))

    def _accept(self) -> None:
        while self._open:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._socks.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            Talk(self, sock).run()
        except (OSError, FarmError, EOFError):
            pass  # the client has hung up, or did not like what it heard
        finally:
            with self._lock:
                self._socks.discard(sock)
            sock.close()


class Talk:
    """One connection of a hostile server."""

    def __init__(self, server: Hostile, sock: socket.socket) -> None:
        self.server = server
        self.chance = server.chance
        self.stage = server.stage
        self.sock = sock
        self.received = 0
        self.link = Link(
            "server",
            "the client",
            TokenAuth("server", (SECRET,)),
            time.monotonic(),
            nonce=os.urandom(32),
            limit=1 << 28,
        )

    def run(self) -> None:
        """Talk until one end has enough."""
        self.sock.settimeout(scaled(30))
        if self.stage == "babble":
            self.sock.sendall(self._noise())
            return
        while True:
            self._write()
            count = self.sock.recv_into(self.link.get_buffer())
            if not count:
                return
            for frame in self.link.received(count, time.monotonic()):
                self._take(frame)

    def _write(self) -> None:
        """Write what is to be written, changed if this is the stage for it."""
        data = b""
        while self.link.outbox.size:
            for part in self.link.outbox.chunk():
                data += part
            self.link.outbox.sent(self.link.outbox.size)
        if not data:
            return
        here = {"hello": LinkState.HELLO, "proof": LinkState.OPEN}.get(self.stage)
        if here is self.link.state and self.chance.random() < 0.9:
            data = self._before_the_end_of_the_proofs(data)
        self.sock.sendall(data)

    def _before_the_end_of_the_proofs(self, data: bytes) -> bytes:
        chance = self.chance
        how = chance.randrange(4)
        if how == 0:
            return self._mutated(data)
        if how == 1:
            fields = {"error": chance.choice(["auth", "protocol", "x"]), "reason": "go away"}
            frame = make_frame(Kind.REFUSED, body=self._odd_body(fields))
            return PREAMBLE * (self.stage == "hello") + bytes(frame.raw)
        if how == 2:
            frame = make_frame(chance.randrange(256), chance.randrange(9), self._noise())
            return PREAMBLE * (self.stage == "hello") + bytes(frame.raw)
        return data + self._noise()

    # ------------------------------------------------------------------ what it says

    def _noise(self) -> bytes:
        return self.chance.randbytes(self.chance.choice([1, 7, 24, 100, 3000]))

    def _mutated(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.chance.randint(1, 3)):
            if changed:
                changed[self.chance.randrange(len(changed))] = self.chance.randrange(256)
        if self.chance.random() < 0.3:
            del changed[self.chance.randrange(len(changed) + 1) :]
        return bytes(changed)

    def _odd_body(self, fields: dict[str, Any]) -> bytes:
        """Return a body of JSON with one odd field, or of something else."""
        chance = self.chance
        how = chance.randrange(8)
        if how == 0:
            return self._noise()
        if how == 1:
            return json.dumps(chance.choice(ODD)).encode()
        if how == 2:
            return b"[" * chance.choice([10, 100_000])
        fields = dict(fields)
        name = chance.choice(list(fields))
        if how == 3:
            del fields[name]
        else:
            fields[name] = chance.choice(ODD)
        if how == 4:
            return self._mutated(json.dumps(fields).encode())
        return json.dumps(fields).encode()

    def _put(
        self, kind: int, id: int = 0, body: bytes = b"", buffers: Any = (), **more: Any
    ) -> None:
        self.server.story.append(f"{kind} id={id} {bytes(body)[:80]!r} {more or ''}")
        self.link.outbox.put(make_frame(kind, id, body, buffers, **more))

    def _take(self, frame: Frame) -> None:
        if frame.kind >= FIRST_NUMBERED:
            self.received += 1
        if frame.kind == Kind.ATTACH:
            self._attach(json.loads(bytes(frame.body)))
        elif frame.kind == Kind.TASK:
            self._answer(frame)
        elif self.stage == "session" and self.chance.random() < 0.1:
            self._say_something(frame)

    def _attach(self, asked: dict[str, Any]) -> None:
        chance = self.chance
        fields = {
            "resumed": False,
            "received": 0,
            "slots": 2,
            "host": "hostile",
            "pid": 7,
            "server": "ab",
            "place": "hostile:1",
            "implementation": asked["implementation"],
            "python": asked["python"],
            "versions": {"numpy": "1.0"},
            "segments": False,
        }
        if self.stage != "attached" or chance.random() < 0.1:
            self._put(Kind.ATTACHED, body=json.dumps(fields).encode())
        elif chance.random() < 0.2:
            self._put(Kind.REPLY, body=self._odd_body({"error": "no room"}))
        elif chance.random() < 0.1:
            self._put(chance.randrange(256), chance.randrange(9), self._noise())
        else:
            self._put(Kind.ATTACHED, body=self._odd_body(fields))

    def _answer(self, task: Frame) -> None:
        """Answer a task, more or less."""
        if self.stage != "session" or self.chance.random() < 0.3:
            self._result(task)
        else:
            self._say_something(task)

    def _result(self, task: Frame) -> None:
        call = load(task.body, task.buffers)
        value = [honest(each) for each in call] if task.flags & Flag.BATCH else honest(*call[0])
        body, buffers = dump(value)
        self._put(Kind.RESULT, task.id, body, buffers, aux=10)

    def _say_something(self, frame: Frame) -> None:
        chance = self.chance
        if self.server.truthful:
            ways = [self._died, self._ids, self._words, self._numbers, self._link]
        else:
            ways = [self._died, self._ids, self._words, self._numbers, self._link]
            ways += [self._wrong_result, self._failure, self._failure, self._broken]
        chance.choice(ways)(frame)
        if chance.random() < 0.5:
            self._result_if_task(frame)

    def _result_if_task(self, frame: Frame) -> None:
        if frame.kind == Kind.TASK:
            self._result(frame)

    def _died(self, frame: Frame) -> None:
        fields = {
            "reason": self.chance.choice(["died", "killed", "timeout", "x"]),
            "host": "hostile",
            "pid": 3,
            "exitcode": -9,
            "stderr": "last words",
        }
        body = self._odd_body(fields)
        if self.server.truthful:  # what it says of a death must be one that is believed by nobody
            body = self.chance.choice(
                [b"{}", b"x", b'{"reason": 3}', b'{"reason":"died","pid":"x"}']
            )
        self._put(Kind.DIED, frame.id, body)

    def _ids(self, frame: Frame) -> None:
        chance = self.chance
        ids = [chance.choice([frame.id, 0, 2**64 - 1, chance.randrange(99)]) for _ in range(3)]
        body = encode_ids(ids) + b"x" * chance.randrange(2)
        self._put(chance.choice([Kind.BEGUN, Kind.TAKEN_BACK]), chance.randrange(9), body)

    def _words(self, frame: Frame) -> None:
        chance = self.chance
        record = {"name": "x", "levelno": 10, "msg": "m", "process": 1, "created": 1.0, "lineno": 3}
        questions = [{"modules": ["nothing.at.all"]}, {"list": "tests"}, {"file": ["tests", "x"]}]
        kind = chance.choice([Kind.LOG, Kind.WANT, Kind.OUTPUT])
        fields = record if kind == Kind.LOG else chance.choice(questions)
        body = self._noise() if kind == Kind.OUTPUT else self._odd_body(fields)
        if kind == Kind.OUTPUT:
            body = b""
        self._put(kind, frame.id, body, aux=chance.randrange(2**32))

    def _numbers(self, frame: Frame) -> None:
        chance = self.chance
        kind = chance.choice([Kind.SLOTS, Kind.RELEASE, Kind.READY, chance.randrange(64, 256)])
        aux = chance.choice([0, 1, 2**20 + 1, 2**32 - 1])
        if self.server.truthful and kind == Kind.SLOTS:
            aux = 2**32 - 1  # none at all, or a million, would be believed
        if kind in (Kind.RESULT, Kind.FAILURE, Kind.DIED, Kind.BROKEN):
            kind = Kind.READY
        self._put(kind, chance.choice([frame.id, 2**64 - 1]), b"", aux=aux)

    def _link(self, frame: Frame) -> None:
        """Say something that is not of the session, or break the link."""
        how = self.chance.randrange(7)
        if how == 0:
            self._put(Kind.ACK, self.chance.choice([0, 5, 2**64 - 1]))
        elif how == 1:
            self._put(self.chance.choice([Kind.PING, Kind.PONG]), 2**64 - 1)
        elif how == 2:
            self._put(self.chance.choice([Kind.HELLO, Kind.ATTACH, Kind.ATTACHED, Kind.ADMIN]))
        elif how == 3:
            self._write()
            self.sock.sendall(self._noise())
        elif how == 4:
            self._write()
            head = struct.pack("<BBHIQQ", Kind.RESULT, 0, 60_000, 0, frame.id, 2**62)
            self.sock.sendall(head + self._noise())
        elif how == 5:
            self._put(Kind.RESULT, 2**63, b"N.", flags=self.chance.randrange(256))
        else:
            self._write()
            raise EOFError

    def _wrong_result(self, frame: Frame) -> None:
        chance = self.chance
        value = chance.choice([[], [1], list(range(500)), 7, None, "text", {1: 2}])
        body, buffers = dump(value)
        if chance.random() < 0.6:
            body = self._mutated(bytes(body))
        if chance.random() < 0.2:
            buffers = [self._noise()]
        flags = 0 if chance.random() < 0.7 else chance.randrange(256)
        self._put(
            Kind.RESULT, frame.id, body, buffers, aux=chance.choice([0, 2**32 - 1]), flags=flags
        )

    def _failure(self, frame: Frame) -> None:
        chance = self.chance
        summary, pickled = encode_failure(SaidToBeRaised("by a task"))
        if chance.random() < 0.5:
            summary = self._odd_body(json.loads(summary))
        if chance.random() < 0.5:
            pickled = self._mutated(pickled)
        values, _ = dump(chance.choice([[], [1, 2], 5, list(range(99))]))
        buffers = chance.choice([(), (pickled,), (pickled, values), (pickled, self._noise())])
        flags = chance.choice([0, Flag.BATCH, Flag.UNLOADED, chance.randrange(256)])
        self._put(Kind.FAILURE, frame.id, summary, buffers, flags=flags)

    def _broken(self, frame: Frame) -> None:
        summary, pickled = encode_failure(SaidToBeRaised("by a task"))
        fields = {**json.loads(summary), "stage": self.chance.choice(["start", "initializer"])}
        buffers = self.chance.choice([(), (pickled,), (self._noise(),)])
        self._put(Kind.BROKEN, 0, self._odd_body(fields), buffers)


# ------------------------------------------------------------------------------- the rounds


class Ears(logging.Handler):
    """Hears of every traceback that is logged, or that ends a thread."""

    def __init__(self) -> None:
        super().__init__(0)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of what has a traceback."""
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info))
            self.heard.append(f"logged: {record.getMessage()}\n{text}")

    def end_of_thread(self, args: Any) -> None:
        """Take note of an exception that ends a thread."""
        text = "".join(
            traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
        )
        self.heard.append(f"thread {args.thread}: {text}")

    def unraisable(self, args: Any) -> None:
        """Take note of an exception that nobody could be told of."""
        text = "".join(
            traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
        )
        self.heard.append(f"unraisable in {args.object!r}: {text}")


@contextlib.contextmanager
def listening() -> Any:
    """Hear all that goes wrong without anybody being told."""
    ears = Ears()
    logger = logging.getLogger("remote_executor")
    hooks = threading.excepthook, sys.unraisablehook
    level, propagate = logger.level, logger.propagate
    logger.addHandler(ears)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    threading.excepthook, sys.unraisablehook = ears.end_of_thread, ears.unraisable
    try:
        yield ears
    finally:
        logger.removeHandler(ears)
        logger.setLevel(level)
        logger.propagate = propagate
        threading.excepthook, sys.unraisablehook = hooks


def is_ours(error: BaseException) -> bool:
    """Whether it may reach a future: ours, or what the server said that the task raised."""
    return isinstance(error, (FarmError, futures.CancelledError, SaidToBeRaised))


def one_round(seed: int, folder: str, beside: str | None, report: Report) -> None:
    """Play one round, and note in the report what came of it."""
    chance = random.Random(seed)
    stage = chance.choice(STAGES)
    path = os.path.join(folder, f"s{seed}")
    hostile = Hostile(path, chance, stage, truthful=beside is not None)
    addresses = [f"unix:{path}", *([beside] if beside else [])]
    executor = FarmExecutor(
        addresses=addresses, auth=SECRET, session_grace=0.1, connect_timeout=0.5
    )
    name = f"seed {seed}{' beside' if beside else ''}, stage {stage}"
    found: list[Any] = []
    try:
        try:
            tasks = [executor.submit(honest, number) for number in range(TASKS)]
        except FarmError:
            tasks = []  # it has refused by now, and is the only one
        mapped = threading.Thread(target=take_map, args=(executor, found), daemon=True)
        mapped.start()
        futures.wait(tasks, 0.3 if beside is None else scaled(SETTLE_SECONDS))
        if beside is not None:
            mapped.join(scaled(SETTLE_SECONDS))
        hostile.close()
        _, waiting = futures.wait(tasks, scaled(SETTLE_SECONDS))
        mapped.join(scaled(SETTLE_SECONDS))
        story = "\n  ".join(hostile.story[-12:])
        for future in waiting:
            report.hung.append(f"{name}: {future}\n  {story}")
        if mapped.is_alive():
            report.hung.append(f"{name}: a map\n  {story}")
        for future in set(tasks) - waiting:
            judge(future.exception() if not future.cancelled() else None, name, story, report)
        for outcome in found:
            judge(outcome, f"{name}, map", story, report)
        # A batch that was lost with it four times is an error by the rules.
        if beside is not None and found != [None] and not isinstance(found[0], ServerLost):
            report.lost.append(f"{name}: a map beside an honest server: {found}\n  {story}")
        report.lost += [
            f"{name}: {future.exception()!r}\n  {story}"
            for future in set(tasks) - waiting
            if beside is not None
            and future.exception() is not None
            and not isinstance(future.exception(), ServerLost)
        ]
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def take_map(executor: FarmExecutor, found: list[Any]) -> None:
    """Take all results of a map; what ended it goes into the list."""
    try:
        for _ in executor.map(honest, range(ITEMS)):
            pass
    except BaseException as exc:
        found.append(exc)
    else:
        found.append(None)


def judge(error: BaseException | None, name: str, story: str, report: Report) -> None:
    """Count an outcome, and take note of an error that is nobody's."""
    report.settled += 1
    if error is not None and not is_ours(error):
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        report.raw.append(f"{name}: {error!r}\n{text}\n  {story}")


def resident() -> int:
    """Return this process's resident bytes, and 0 where that is not to be had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def fuzz(seed: int, *, rounds: int | None = None, seconds: float | None = None) -> Report:
    """
    Play rounds until there were so many, or the time is over.

    Args:
        seed: The first round's; each next one has the next number.
        rounds: How many.
        seconds: For how long.
    """
    report = Report()
    until = None if seconds is None else time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="rx-fuzz-") as folder, listening() as ears:
        with start_server(address=f"unix:{folder}/honest", workers=1, auth=SECRET) as honest_server:
            while rounds is None or report.rounds < rounds:
                if until is not None and time.monotonic() >= until:
                    break
                number = seed + report.rounds
                beside = str(honest_server.address) if number % 4 == 3 else None
                one_round(number, folder, beside, report)
                report.rounds += 1
                if ears.heard:
                    report.raw += [f"seed {number}: {words}" for words in ears.heard]
                    ears.heard.clear()
                if report.rounds % 8 == 0:
                    gc.collect()
                    report.memory.append(resident())
                    with contextlib.suppress(OSError):
                        report.descriptors.append(len(os.listdir("/proc/self/fd")))
    return report


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, help="for how long")
    parser.add_argument("--rounds", type=int, help="or how many rounds")
    parser.add_argument("--seed", type=int, default=None, help="the first round's seed")
    options = parser.parse_args()
    if options.minutes is None and options.rounds is None:
        options.minutes = 10.0
    seed = random.randrange(10**6) if options.seed is None else options.seed
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESS_SPACE, MOST_ADDRESS_SPACE))
    print(f"from seed {seed}", flush=True)
    seconds = None if options.minutes is None else options.minutes * 60
    report = fuzz(seed, rounds=options.rounds, seconds=seconds)
    print(report)
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    # What is pickled here is to be found under the module's own name.
    from tests.fuzz import hostile_server

    sys.exit(hostile_server.main())
