"""
Histories of a simulated farm: what is wanted of it, what befalls it, and whether all ends well.

Run one seed again and look at what happened::

    python -m tests.support.sim_histories 4711
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tests.support.sim import Client, Line, Server, Shared, Spec, World

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Broken", "Farm", "run_farm"]

MOST_SECONDS = 3000.0
"""No history takes longer once all faults are over, by its own clock."""


class Broken(AssertionError):
    """A history went wrong; the text has its seed and what happened last."""


class Farm:
    """
    One history: some servers, some clients, what they want, and what befalls them.

    Args:
        seed: Decides all of it.
        blips_only: Whether nothing worse happens than that streams are cut or stall.
    """

    def __init__(self, seed: int, blips_only: bool = False) -> None:
        self.world = world = World(seed)
        self.blips_only = blips_only
        self.random = chance = world.random
        world.delay = chance.choice([0.0, 0.0, 0.0002, 0.003, 0.04])
        world.capacity = chance.choice([600, 8192, 65536])
        most = chance.choice([0, 0, 60, 3000])
        world.stride = (lambda: chance.randint(1, most)) if most else None
        # Bytes that go with a call: not many where all goes in small pieces.
        self.paddings = [0, 0, 0, 0, 100, *([] if most == 60 else [5000, 50_000])]
        world.grace = 60.0 if blips_only else chance.choice([0.3, 5.0, 60.0])
        self.seconds = chance.choice([0.1, 1.0, 1.0, 10.0])
        self.scale = chance.choice([1e-5, 1e-3, 0.02, 0.3]) * self.seconds
        self.calm = blips_only or chance.random() < 0.1
        self.importing = chance.choice([0.0, 0.05, 0.5])
        """How many of the calls import modules of the client's."""
        for number in range(chance.randint(1, 3)):
            server = Server(world, f"s{number}", chance.randint(1, 4))
            server.bad_starts = 0.0 if self.calm else chance.choice([0.0, 0.0, 0.1])
            world.servers.append(server)
        for number in range(chance.choice([1, 1, 1, 2])):
            client = Client(world, f"c{number}")
            client.tasks_per_worker = chance.choice([None, None, None, 1, 3])
            client.lines = [Line(client, server) for server in world.servers]
            world.clients.append(client)

    def at_some_time(self, call: Callable[..., object], *arguments: Any) -> None:
        self.world.later(self.random.random() * self.seconds, call, *arguments)

    def spec(self) -> int:
        """Make up a call; return its label."""
        chance = self.random
        seconds = chance.expovariate(1 / self.scale) * (20 if chance.random() < 0.05 else 1)
        how = "return"
        if not self.calm and chance.random() < 0.08:
            how = chance.choice(["raise", "die"])
        imports = chance.choice([1, 1, 3]) if chance.random() < self.importing else 0
        self.world.specs.append(Spec(seconds, how, imports))
        return len(self.world.specs) - 1

    def plan(self) -> None:
        """Say what will be wanted, and what will go wrong."""
        chance = self.random
        for client in self.world.clients:
            for line in client.lines:
                self.at_some_time(line.connect)
            for _ in range(chance.choice([0, 1, 3, 10])):
                self.at_some_time(self.submit, client, chance.choice([1, 1, 5, 20]))
            for _ in range(chance.choice([0, 0, 1, 2])):
                self.at_some_time(self.map, client, chance.choice([1, 10, 150]))
            if chance.random() < 0.2:
                self.at_some_time(self.pin, client)
            if not self.calm:
                for _ in range(chance.choice([0, 0, 1, 4])):
                    self.at_some_time(self.stop_one, client)
        if self.calm and not self.blips_only:
            return
        self.world.flaky = chance.choice([0.0, 0.0, 0.3, 0.7])
        self.world.strangers = chance.choice([0.0, 0.0, 0.3])
        for _ in range(chance.choice([0, 1, 2, 5, 10])):
            self.at_some_time(self.cut)
        for _ in range(chance.choice([0, 0, 0, 1])):
            self.at_some_time(self.stall)
        if self.blips_only:
            return
        for server in self.world.servers:
            if chance.random() < 0.3:
                self.at_some_time(chance.choice([server.crash, server.shut_down]))
                self.at_some_time(server.come_back)
            if chance.random() < 0.15:
                self.at_some_time(self.part, server)
            for _ in range(chance.choice([0, 0, 0, 1, 2])):
                self.at_some_time(self.kill_worker, server)

    # --------------------------------------------------------------------- what happens

    def submit(self, client: Client, number: int) -> None:
        chance = self.random
        if chance.random() < 0.3:
            client.shared.append(Shared(client, chance.choice([10, 50, 200])))
        for _ in range(number):
            task = client.submit(
                self.spec(),
                chance.randrange(20),
                padding=chance.choice(self.paddings),
                retries=chance.choice([0, 3, 3]),
                blobs=chance.sample(
                    client.shared, min(len(client.shared), chance.choice([0, 1, 2]))
                ),
            )
            if chance.random() < 0.12 and not self.calm:
                call = chance.choice([client.cancel, client.kill])
                self.world.later(self.world.some(self.seconds / 2), call, task)
        if client.shared and chance.random() < 0.3:
            client.shared.pop(chance.randrange(len(client.shared)))

    def stop_one(self, client: Client) -> None:
        """Cancel or kill something that waits at a server or runs there."""
        tasks = list(client.scheduler.tasks.values())
        if tasks:
            call = self.random.choice([client.cancel, client.kill, client.kill])
            call(self.random.choice(tasks))

    def map(self, client: Client, items: int) -> None:
        chance = self.random
        labels = [self.spec() for _ in range(items)]
        feed = client.map(labels, chance.randrange(20), chance.choice([None, None, 1, 7]))
        if chance.random() < 0.2 and not self.calm:
            self.world.later(self.world.some(self.seconds), client.abandon, feed)

    def pin(self, client: Client) -> None:
        line = self.random.choice(client.lines)
        for index in range(line.target.slots):
            client.pin(line, index, self.spec())

    def cut(self) -> None:
        """Cut one of the younger streams, now or some bytes later."""
        pipes = self.world.pipes[-4:]
        if pipes:
            after = self.random.choice([0, 1, 30, 200, 3000, 30_000])
            self.world.log("! a stream is cut after", after, "bytes")
            self.random.choice(self.random.choice(pipes)).cut(after)

    def stall(self) -> None:
        pipes = self.world.pipes[-4:]
        if pipes:
            pipe, _ = self.random.choice(pipes)
            seconds = self.random.choice([0.1, 3.0, 20.0])
            self.world.log("! a stream stalls for", seconds, "s")
            pipe.stall()
            self.world.later(seconds, pipe.resume)

    def part(self, server: Server) -> None:
        """Let nobody reach a server for a while."""
        self.world.log(server, "! cannot be reached")
        server.reachable = False
        for connection in server.connections:
            connection.pipe.cut()
        self.world.later(self.world.grace * 2 * self.random.random(), self.join, server)

    def join(self, server: Server) -> None:
        self.world.log(server, "= can be reached")
        server.reachable = True

    def kill_worker(self, server: Server) -> None:
        workers = [worker for worker in server.workers if worker.alive]
        if workers:
            self.random.choice(workers).die("died")

    # ---------------------------------------------------------------------- from start to end

    def live(self) -> None:
        """Live through all of it."""
        world = self.world
        self.plan()
        end = world.now + self.seconds
        world.later(self.seconds, lambda: None)
        world.run(lambda: world.now >= end, self.seconds + 1.0)
        world.flaky = world.strangers = 0.0
        for server in world.servers:
            server.come_back()
            server.reachable = True
        world.log("= all faults are over")
        world.run(lambda: all(client.idle() for client in world.clients), MOST_SECONDS)
        for client in world.clients:
            client.drive()  # a last look at failures
            client.close()
            client.check()
        world.run(lambda: not any(server.busy() for server in world.servers), MOST_SECONDS)
        self.check()

    def check(self) -> None:
        """Everybody has gone home: see whether all was as it was promised."""
        for server in self.world.servers:
            assert server.pool.holding == 0
        for client in self.world.clients:
            self.check_client(client)

    def check_client(self, client: Client) -> None:
        scheduler = client.scheduler
        assert not scheduler.tasks
        assert not any(server.bytes or server.begun for server in scheduler.servers.values())
        tried: dict[int, list[str]] = {}
        runs = {id: run for (name, id), run in self.world.runs.items() if name == client.name}
        for id, task in client.attempts.items():
            run, end = runs.pop(id, None), client.ends[id]
            if run is not None:
                assert list(run.labels) == task.items
                for label in run.labels:
                    tried.setdefault(label, []).append(end)
            assert FATES[run.fate if run else "never ran"].issuperset([end]), (
                f"attempt {id} of {task.items[:3]} ended by {end!r}, but {run or 'it never ran'}"
            )
        assert not runs, f"nobody sent {runs}"
        for label, ends in tried.items():
            # It ran twice only if a server was lost with it.
            assert all(end == "lost" for end in ends[:-1]), f"{label} ran though {ends}"
        wanted = client.accepted - client.unwanted
        assert wanted <= client.outcomes.keys(), "a call was lost"
        for label in wanted:
            outcome = client.outcomes[label]
            ends = tried.get(label, [])
            assert ENDS[outcome].issuperset(ends[-1:]), f"{label} is {outcome!r}, but {ends}"
            if outcome == "result":
                assert self.world.specs[label].how == "return"
                assert ends


FATES = {
    "never ran": {"taken back", "killed", "lost"},
    "done": {"result", "lost"},
    "died": {"died", "killed", "lost"},
    "killed": {"killed", "lost"},
    "lost": {"lost"},
}
"""What may become of an attempt, by what became of it at its worker."""

ENDS = {
    "result": {"result"},
    "raised": {"result"},
    "died": {"died"},
    "killed": {"killed", "lost"},
    "cancelled": {"lost"},
    "lost": {"lost"},
}
"""How the last attempt that ran may have ended, by what the caller heard."""


def run_farm(farm: Farm) -> None:
    """
    Live through a history.

    Raises:
        Broken: If something was not as it should be.
    """
    try:
        farm.live()
    except Exception as exc:
        seed = farm.world.seed
        again = f"python -m tests.support.sim_histories {seed}{' --blips' * farm.blips_only}"
        raise Broken(
            f"seed {seed}: {type(exc).__name__}: {exc}\n{farm.world.story()}\nAgain by: {again}"
        ) from exc


def main(arguments: list[str]) -> None:
    """Run seeds again and tell their stories."""
    for seed in arguments:
        if seed.isdigit():
            farm = Farm(int(seed), "--blips" in arguments)
            run_farm(farm)
            print(farm.world.story(last=10_000))
            print(f"seed {seed}: {farm.world.steps} steps, {len(farm.world.runs)} runs, all well")


if __name__ == "__main__":
    main(sys.argv[1:])
