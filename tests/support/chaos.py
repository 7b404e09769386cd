"""
A farm in trouble: whatever happens to servers, workers and links, no task is lost or runs twice.

::

    python -m tests.support.chaos                      # all scenarios, 10 minutes each
    python -m tests.support.chaos --minutes 1 submit   # one of them
    python -m tests.support.chaos --seed 7 grace       # the same troubles in the same order again

Three servers with two workers each, a proxy before each. Now and then a link is cut, stalled,
slowed, stranded half-open or refused; a worker or a server is killed, a server is stopped for a
while or started anew. Each execution of a task leaves a line in a log. In the end

- *lost* are tasks that failed with an error that none of these troubles explains,
- *hung* are those that were not done two minutes after the last trouble,
- *wrong* are those with another result than computed at home,
- *doubled* are those that ran again although their first server was not lost in between.

All four have to be 0. The seed gives the order and kinds of the troubles, not their exact times.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from remote_executor import FarmExecutor, ServerLost, TaskKilled, WorkerDied, ping
from remote_executor.net.tokens import renew_token
from remote_executor.parallel import Channel
from tests.support import chaos_tasks
from tests.support.faults import Proxy, free_port
from tests.support.scale import scaled
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

__all__ = ["SCENARIOS", "Report", "run"]

ROOT = Path(__file__).resolve().parents[2]
SERVERS = 3
WORKERS = 2
IN_FLIGHT = 200
LAST_RESULTS_SECONDS = 120.0
OFTEN = 1_000_000
"""``retries`` so high that a task is never given up for lost servers."""


class Scenario(NamedTuple):
    """
    What is tried.

    Attributes:
        tls: Whether the links speak TLS.
        grace: ``session_grace`` in seconds.
        mixed: Whether maps, shared objects, broadcasts, kills, cancels and channels run as well.
    """

    tls: bool = False
    grace: float = 60.0
    mixed: bool = False


SCENARIOS = {
    "submit": Scenario(),
    "mixed": Scenario(mixed=True),
    "tls": Scenario(tls=True),
    "grace": Scenario(grace=1.5),
}


class Report(NamedTuple):
    """
    What came of it.

    Attributes:
        tasks: How many tasks were submitted.
        troubles: How often each trouble was made.
        ended: How often each outcome was seen.
        lost, hung, wrong, doubled: A line for each task that ended as none may.
        again: How many executions a lost server explains.
    """

    tasks: int
    troubles: dict[str, int]
    ended: dict[str, int]
    lost: list[str]
    hung: list[str]
    wrong: list[str]
    doubled: list[str]
    again: int

    @property
    def clean(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.lost or self.hung or self.wrong or self.doubled)


class Server:
    """One server process behind a proxy, and when it was lost."""

    def __init__(self, number: int, folder: Path, tls: bool) -> None:
        self.number = number
        self.port = free_port()
        self.log = folder / f"server-{number}.log"
        self.tls = tls
        self.losses: list[tuple[float, float]] = []
        """From when to when something was done that may end its sessions."""
        self.killed_workers: set[int] = set()
        self._folder = folder
        self.start()
        self.proxy = Proxy(f"127.0.0.1:{self.port}")

    def start(self) -> None:
        """Start it, or start it anew on the same port, and wait until it answers."""
        command = [sys.executable, "-m", "remote_executor", "serve", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", str(WORKERS)]
        command += ["--tls" if self.tls else "--no-tls"]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, chaos_tasks.SERVER: str(self.number)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=self._folder,
                start_new_session=True,
            )
        wait_until(self._answers, 20, "a server that answers")

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"server {self.number} ended: {self.log.read_text()[-2000:]}")
        return ping(f"127.0.0.1:{self.port}", timeout=scaled(1), tls=self.tls)

    def kill(self) -> None:
        """End it as a power cut does."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(scaled(10))
        self.losses.append((begin, time.monotonic()))

    def terminate(self) -> None:
        """End it as an administrator does."""
        begin = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(scaled(10))
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"server {self.number} does not end at SIGTERM") from None
        self.losses.append((begin, time.monotonic()))

    def worker_pids(self) -> list[int]:
        """Return the processes that have run a task and are no server or zygote."""
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.process.pid).children(recursive=True)
            return [each.pid for each in below if each.ppid() != self.process.pid]
        return []

    def close(self) -> None:
        """End the proxy and the server."""
        self.proxy.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(scaled(5))
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(scaled(5))


class Troubles:
    """
    Makes trouble in a thread of its own until it is told to stop, and then puts all right again.

    Args:
        servers: Whom it troubles.
        chance: Decides.
        grace: The executor's; an outage that is about as long may lose the server's session.
    """

    def __init__(self, servers: list[Server], chance: random.Random, grace: float) -> None:
        self.made: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._servers = servers
        self._chance = chance
        self._grace = grace
        self._stop = threading.Event()
        self._kinds: list[tuple[Callable[[Server], None], int]] = [
            (self.cut, 6),
            (self.cut_within_a_frame, 6),
            (self.stall, 3),
            (self.trickle, 2),
            (self.strand, 1),
            (self.refuse, 3),
            (self.kill_worker, 3),
            (self.stop_worker, 2),
            (self.stop_server, 2),
            (self.kill_server, 1),
            (self.restart_server, 1),
        ]
        self._thread = threading.Thread(target=self._run, name="troubles", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Stop, and raise what went wrong in making trouble."""
        self._stop.set()
        self._thread.join(scaled(60))
        for server in self._servers:
            server.proxy.accept()
            server.proxy.flow()
        if self.errors:
            raise self.errors[0]

    def _run(self) -> None:
        kinds, weights = zip(*self._kinds, strict=True)
        try:
            while not self._stop.wait(self._chance.uniform(0.05, 1.0)):
                trouble = self._chance.choices(kinds, weights)[0]
                self.made[trouble.__name__] += 1
                trouble(self._chance.choice(self._servers))
        except BaseException as error:
            self.errors.append(error)

    @contextlib.contextmanager
    def _outage(self, server: Server):
        """Take note of an outage that may last as long as the grace: the server may be lost."""
        begin = time.monotonic()
        yield
        end = time.monotonic()
        if end - begin > self._grace / 2:
            # The session may end at any time from here on, until a link is there again.
            server.losses.append((begin, end + 5))

    # -- the kinds

    def cut(self, server: Server) -> None:
        """Reset all links."""
        server.proxy.cut()

    def cut_within_a_frame(self, server: Server) -> None:
        """Reset all links after some more bytes."""
        server.proxy.cut_after(self._chance.randrange(1, 20_000))

    def stall(self, server: Server) -> None:
        """Let no byte pass for a while."""
        with self._outage(server):
            server.proxy.stall()
            self._stop.wait(self._chance.uniform(0.1, 3.0))
            server.proxy.flow()

    def trickle(self, server: Server) -> None:
        """Let few bytes pass for a while."""
        with self._outage(server):
            server.proxy.trickle(self._chance.randrange(1, 60))
            self._stop.wait(self._chance.uniform(0.5, 3.0))
            server.proxy.flow()

    def strand(self, server: Server) -> None:
        """Keep the links and forward nothing on them ever again: the ends must find out."""
        server.proxy.strand()
        if self._grace < 30:
            begin = time.monotonic()
            server.losses.append((begin, begin + 30))

    def refuse(self, server: Server) -> None:
        """Refuse connections for a while."""
        with self._outage(server):
            server.proxy.refuse()
            self._stop.wait(self._chance.uniform(0.1, 3.0))
            server.proxy.accept()

    def kill_worker(self, server: Server) -> None:
        """Kill one worker."""
        pids = server.worker_pids()
        if pids:
            pid = self._chance.choice(pids)
            server.killed_workers.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop_worker(self, server: Server) -> None:
        """Stop one worker for a while."""
        pids = server.worker_pids()
        if pids:
            pid = self._chance.choice(pids)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self._stop.wait(self._chance.uniform(0.1, 1.0))
                os.kill(pid, signal.SIGCONT)

    def stop_server(self, server: Server) -> None:
        """Stop the server's own process for a while."""
        with self._outage(server):
            os.kill(server.process.pid, signal.SIGSTOP)
            self._stop.wait(self._chance.uniform(0.1, 3.0))
            os.kill(server.process.pid, signal.SIGCONT)

    def kill_server(self, server: Server) -> None:
        """Kill a server, and start it anew."""
        server.kill()
        self._stop.wait(self._chance.uniform(0.0, 1.0))
        server.start()

    def restart_server(self, server: Server) -> None:
        """End a server by SIGTERM, and start it anew."""
        server.terminate()
        server.start()


class Load:
    """
    Submits tasks, and judges what comes of them.

    Args:
        executor: Where to.
        log: The file that executions note themselves in.
        chance: Decides sizes and durations.
    """

    def __init__(self, executor: FarmExecutor, log: Path, chance: random.Random) -> None:
        self.executor = executor
        self.log = str(log)
        self.ended: Counter[str] = Counter()
        self.lost: list[str] = []
        self.wrong: list[str] = []
        self.hung: list[str] = []
        self.killed_workers: Callable[[], set[int]] = set
        self._chance = chance
        self._keys = itertools.count()
        self._mutex = threading.Lock()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._pending: dict[Future[Any], str] = {}
        self._data = [chance.randbytes(size) for size in (0, 0, 0, 100, 3_000, 100_000, 400_000)]

    @property
    def count(self) -> int:
        """How many tasks there were."""
        return next(self._keys)

    def key(self) -> int:
        """Return a new task's number."""
        return next(self._keys)

    def settle(self, what: str, value: Any, expected: Any, error: BaseException | None) -> None:
        """Judge one outcome."""
        with self._mutex:
            if error is None:
                self.ended["result"] += 1
                if value != expected:
                    self.wrong.append(f"{what}: {value!r:.80} in place of {expected!r:.80}")
                return
            self.ended[type(error).__name__] += 1
            if isinstance(error, WorkerDied) and error.pid in self.killed_workers():
                return
            self.lost.append(f"{what}: {error!r:.400}")

    # -- one after the other, many at a time

    def submit_many(self, until: float) -> None:
        """Submit small tasks for as long as there is time."""
        while time.monotonic() < until:
            if not self._room.acquire(timeout=0.2):
                continue
            key, data = self.key(), self._chance.choice(self._data)
            seconds = self._chance.choice((0.0, 0.0, 0.001, 0.01, 0.05))
            future = self.executor.submit(chaos_tasks.work, self.log, key, seconds, data)
            with self._mutex:
                self._pending[future] = f"task {key}"
            expected = chaos_tasks.answer(key, data)
            future.add_done_callback(functools.partial(self._done, f"task {key}", expected))

    def _done(self, what: str, expected: Any, future: Future[Any]) -> None:
        with self._mutex:
            self._pending.pop(future, None)
        self._room.release()
        error = future.exception()
        self.settle(what, None if error else future.result(), expected, error)

    def wait_for_all(self) -> None:
        """Wait for what is under way; what is not done in time hangs."""
        until = time.monotonic() + scaled(LAST_RESULTS_SECONDS)
        while self._pending and time.monotonic() < until:
            time.sleep(0.05)
        with self._mutex:
            self.hung += [f"{what}: {future!r}" for future, what in self._pending.items()]

    # -- other ways to call

    def map_some(self) -> None:
        """Map over items with a shared object."""
        data = self._chance.randbytes(300_000)
        shared = self.executor.share(data)
        items = [(self.key(), self._chance.choice((0.0, 0.002, 0.02))) for _ in range(200)]
        work = functools.partial(chaos_tasks.work_on_shared, self.log, shared)
        results = self.executor.map(work, items, timeout=scaled(LAST_RESULTS_SECONDS))
        for item in items:
            try:
                value, error = next(results), None
            except TimeoutError:
                self.hung.append(f"item {item[0]} of a map")
                return
            except Exception as failure:
                # The iterator ends with the first error, as the standard library's does.
                self.settle(f"item {item[0]} of a map", None, None, failure)
                return
            self.settle(f"item {item[0]} of a map", value, (item[0], _digest(data)), error)

    def broadcast(self) -> None:
        """Run something in each worker; it runs at most once, so a lost server is an error."""
        try:
            found = self.executor.broadcast(chaos_tasks.worker)
        except (ServerLost, WorkerDied):
            self.ended["broadcast that met a loss"] += 1
            return
        if len(set(found)) != len(found):
            self.wrong.append(f"broadcast: {found}")

    def kill_one(self) -> None:
        """Kill a task that naps."""
        key = self.key()
        future = self.executor.submit(chaos_tasks.work, self.log, key, 5.0)
        time.sleep(self._chance.uniform(0.0, 0.3))
        told = self.executor.kill(future)
        try:
            value = future.result(scaled(LAST_RESULTS_SECONDS))
        except TaskKilled:
            if not told:
                self.lost.append(f"task {key}: killed, though kill() said no")
            self.ended["killed"] += 1
        except TimeoutError:
            self.hung.append(f"task {key}: told to stop")
        except Exception as error:
            self.settle(f"task {key}", None, None, error)
        else:
            self.settle(f"task {key}", value, chaos_tasks.answer(key, b""), None)

    def cancel_some(self) -> None:
        """Cancel tasks, some of which run already."""
        work = chaos_tasks.work
        tasks = [(key, self.executor.submit(work, self.log, key, 0.02)) for key in self._some(30)]
        cancelled = {key: future.cancel() for key, future in reversed(tasks)}
        for key, future in tasks:
            try:
                value = future.result(scaled(LAST_RESULTS_SECONDS))
            except CancelledError:
                if not cancelled[key]:
                    self.lost.append(f"task {key}: cancelled, though cancel() said no")
                self.ended["cancelled"] += 1
            except TimeoutError:
                self.hung.append(f"task {key}: among the cancelled")
            except Exception as error:
                self.settle(f"task {key}", None, None, error)
            else:
                if cancelled[key]:
                    self.wrong.append(f"task {key}: a result, though cancel() said yes")
                self.settle(f"task {key}", value, chaos_tasks.answer(key, b""), None)

    def use_a_channel(self) -> None:
        """Submit by a channel and receive as many."""
        keys = list(self._some(50))
        with self.executor.as_kernel():
            channel = Channel()
            for key in keys:
                channel.submit(chaos_tasks.work, self.log, key, 0.005)
            expected = {chaos_tasks.answer(key, b"") for key in keys}
            for _ in keys:
                try:
                    value, came = channel.try_receive(timeout=scaled(LAST_RESULTS_SECONDS))
                except Exception as error:
                    self.settle("a task of a channel", None, None, error)
                    continue
                if not came:
                    self.hung.append(f"a channel: {len(expected)} to come")
                    return
                self.settle("a task of a channel", value in expected, True, None)
                expected.discard(value)

    def _some(self, count: int):
        return [self.key() for _ in range(count)]

    def mix(self, until: float) -> None:
        """Call in all other ways in turn for as long as there is time."""
        ways = [
            self.map_some,
            self.kill_one,
            self.cancel_some,
            self.use_a_channel,
            self.broadcast,
        ]
        while time.monotonic() < until:
            for way in ways:
                way()


def _digest(data: bytes) -> str:
    return chaos_tasks.digest_of(data)


def run(scenario: Scenario, seconds: float, seed: int, folder: Path) -> Report:
    """
    Run one scenario.

    Args:
        scenario: What is tried.
        seconds: For how long trouble is made.
        seed: Of the troubles and the tasks.
        folder: An empty one, for logs.
    """
    chance = random.Random(seed)
    executions = folder / "executions.log"
    executions.touch()
    servers: list[Server] = []
    try:
        # One by one: what has started is ended also if the next does not start.
        servers.extend(Server(number, folder, scenario.tls) for number in range(SERVERS))
        executor = FarmExecutor(
            addresses=[server.proxy.address for server in servers],
            tls=scenario.tls,
            session_grace=scenario.grace,
            retries=OFTEN,
        )
        with executor:
            load = Load(executor, executions, random.Random(chance.random()))
            load.killed_workers = lambda: set().union(*(each.killed_workers for each in servers))
            executor.wait_for_workers(SERVERS * WORKERS, scaled(30))
            troubles = Troubles(servers, random.Random(chance.random()), scenario.grace)
            until = time.monotonic() + seconds
            work = [threading.Thread(target=load.submit_many, args=(until,), daemon=True)]
            if scenario.mixed:
                work.append(threading.Thread(target=load.mix, args=(until,), daemon=True))
            for thread in work:
                thread.start()
            troubles.start()
            work[0].join(seconds + scaled(LAST_RESULTS_SECONDS))
            troubles.end()
            for thread in work:
                thread.join(scaled(3 * LAST_RESULTS_SECONDS))
                if thread.is_alive():
                    load.hung.append(f"{thread.name}: a caller")
            load.wait_for_all()
            if load.hung:
                executor.kill_workers()
    finally:
        for server in servers:
            server.close()
    doubled, again = _doubles(executions, servers)
    return Report(
        load.count,
        dict(troubles.made),
        dict(load.ended),
        load.lost,
        load.hung,
        load.wrong,
        doubled,
        again,
    )


def _doubles(log: Path, servers: list[Server]) -> tuple[list[str], int]:
    """Find the tasks that ran again, and tell those apart whose first server was lost meanwhile."""
    runs: dict[int, list[tuple[float, int, int]]] = {}
    for line in log.read_text().splitlines():
        key, server, pid, at = line.split()
        runs.setdefault(int(key), []).append((float(at), int(server), int(pid)))
    doubled: list[str] = []
    again = 0
    for key, found in runs.items():
        found.sort()
        for (begin, number, pid), (end, *_) in itertools.pairwise(found):
            if any(begin <= until and since <= end for since, until in servers[number].losses):
                again += 1
            else:
                doubled.append(f"task {key}: {found}, first in {pid} of server {number}")
    return doubled, again


def main() -> int:
    """Run what was asked for; the exit code is 1 if a task was lost, hung, wrong or doubled."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", nargs="*", help=f"some of {', '.join(SCENARIOS)}; all of them")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each scenario")
    parser.add_argument("--seed", type=int, default=None, help="by default another each time")
    options = parser.parse_args()
    unknown = sorted(set(options.scenario) - set(SCENARIOS))
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    clean = True
    for name in options.scenario or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="remote-executor-chaos-") as folder:
            os.environ["REMOTE_EXECUTOR_TOKEN_FILE"] = os.path.join(folder, "token")
            renew_token()  # a file that is named is not made by the way
            report = run(SCENARIOS[name], options.minutes * 60, seed, Path(folder))
        clean = clean and report.clean
        print(f"{name}, seed {seed}: {report.tasks} tasks, {report.again} explained again;", end="")
        for kind in ("lost", "hung", "wrong", "doubled"):
            print(f" {kind} {len(getattr(report, kind))}", end="")
        print()
        print("  troubles:", json.dumps(report.troubles), "ended:", json.dumps(report.ended))
        for line in (report.lost + report.hung + report.wrong + report.doubled)[:20]:
            print("  !", line)
        sys.stdout.flush()
    return not clean


if __name__ == "__main__":
    sys.exit(main())
