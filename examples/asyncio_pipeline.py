"""
Compress the Python standard library on a farm, from a program of asyncio.

Files are read by an asynchronous generator, packed on the farm, and counted as they come back. The
generator reads no faster than results are taken, and the loop is never blocked: a ticker shows that
it has its turn all the while. ::

    python examples/asyncio_pipeline.py                               # a local server of its own
    python examples/asyncio_pipeline.py --servers node1:11111,node2   # servers that run already
"""

from __future__ import annotations

import argparse
import asyncio
import lzma
import sysconfig
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

from remote_executor import FarmExecutor


def pack(name: str, text: bytes) -> tuple[str, int, int]:
    """Compress a file: its name, its size, and what is left of that. Runs on the farm."""
    return name, len(text), len(lzma.compress(text))


async def contents(paths: list[Path]) -> AsyncIterator[bytes]:
    """Yield what files hold; reading does not hold up the loop."""
    for path in paths:
        yield await asyncio.to_thread(path.read_bytes)


async def tick(ticks: list[float]) -> None:
    """Note that the loop has its turn."""
    while True:
        await asyncio.sleep(0.01)
        ticks.append(time.monotonic())


async def main(servers: str | None, paths: list[Path]) -> None:
    """Compress files, and say what came of it."""
    ticks: list[float] = [time.monotonic()]
    ticking = asyncio.create_task(tick(ticks))
    before = after = count = 0
    async with FarmExecutor(addresses=servers) as executor:
        name, *_ = await executor.asubmit(pack, "this text", b"text" * 1000)
        print(f"the farm works: it has packed {name}")
        names = [path.name for path in paths]
        results = executor.amap(pack, names, contents(paths), buffersize=32)
        async for name, size, packed in results:
            before, after, count = before + size, after + packed, count + 1
            if count % 50 == 0:
                print(f"{count} files, the last one was {name}")
    ticking.cancel()
    longest = max(later - earlier for earlier, later in pairwise(ticks))
    print(f"{count} files, {before:,} bytes, {after:,} when packed")
    print(f"the loop was held up for {longest * 1000:.0f} ms at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--servers", help="addresses of servers, separated by commas")
    parser.add_argument("--limit", type=int, default=200, help="how many files")
    arguments = parser.parse_args()
    library = Path(sysconfig.get_path("stdlib"))
    asyncio.run(main(arguments.servers, sorted(library.glob("*.py"))[: arguments.limit]))
