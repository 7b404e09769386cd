"""
Compile the Python standard library on a kernel, and look at each module as soon as it is done.

A channel hands out results in the order of completion, not of submission. A timer reports what is
done so far, without occupying a worker. A bounded channel keeps a reader of files from being far
ahead of those who compile them. A module that does not compile is an error that is received, once,
and the loop goes on. ::

    python examples/channels.py                                # a local server of its own
    python examples/channels.py --servers node1:11111,node2    # servers that run already
    python examples/channels.py --executor threads             # any executor will do
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
import threading
import time
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import remote_executor.parallel as p
from remote_executor import FarmExecutor

REPORT_SECONDS = 0.5


class Compiled(NamedTuple):
    """What became of one module."""

    name: str
    source_bytes: int
    code_objects: int
    instructions: int
    seconds: float


def compile_source(name: str, source: bytes) -> Compiled:
    """
    Compile a module and count what came out. This is the task.

    Args:
        name: The module's name.
        source: The bytes of its file.

    Raises:
        SyntaxError: If it is no Python: some tests of the library are wrong on purpose.
    """
    import types  # here, as tasks that travel bring their own imports

    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = [compile(source, name, "exec", dont_inherit=True)]
    objects = size = 0
    while codes:
        code = codes.pop()
        objects += 1
        size += len(code.co_code)
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return Compiled(name, len(source), objects, size // 2, time.perf_counter() - begin)


def find_modules(limit: int | None) -> list[tuple[str, Path]]:
    """Return the names and the files of the standard library's modules."""
    root = Path(sysconfig.get_path("stdlib"))
    foreign = {"site-packages", "dist-packages", "__pycache__"}
    paths = [path for path in sorted(root.rglob("*.py")) if not foreign & set(path.parts)]
    if limit is not None:
        paths = paths[:: max(1, len(paths) // limit)][:limit]  # from all over the library
    return [(".".join(path.relative_to(root).with_suffix("").parts), path) for path in paths]


def compile_all(modules: list[tuple[str, Path]], executor: Executor) -> tuple[list[Compiled], int]:
    """Return what was compiled, in order of completion, and how many modules failed."""
    channel = p.Channel(executor, maxsize=64)  # at most 64 files are read ahead

    def submit_all() -> None:
        for name, path in modules:
            channel.submit(compile_source, name, path.read_bytes())  # waits while there is no room

    reader = threading.Thread(target=submit_all)
    reader.start()
    done: list[Compiled] = []
    failed = 0
    begin = time.perf_counter()
    timer = channel.submit_timeout(REPORT_SECONDS, None)
    while len(done) + failed < len(modules):
        try:
            result = channel.receive()
        except SyntaxError as error:
            failed += 1
            if failed <= 3:
                print(f"  does not compile: {error.filename}, {error.msg}")
            continue
        if result is None:  # the timer's
            elapsed = time.perf_counter() - begin
            print(f"  after {elapsed:4.1f} s: {len(done):5,} of {len(modules):,} modules")
            timer = channel.submit_timeout(REPORT_SECONDS, None)
        else:
            done.append(result)
    channel.cancel_timeout(timer)
    reader.join()
    return done, failed


def make_executor(kind: str, servers: str | None, workers: int | None) -> Executor:
    """Return the executor that was asked for."""
    if kind == "threads":
        return ThreadPoolExecutor(workers)
    if kind == "processes":
        return ProcessPoolExecutor(workers)
    return FarmExecutor(workers, addresses=servers.split(",") if servers else None)


def main() -> int:
    """Compile, report, and compare with the serial way."""
    parser = argparse.ArgumentParser(description="Compile the standard library by a channel.")
    parser.add_argument("--servers", metavar="HOST:PORT,...", help="default: one of its own")
    parser.add_argument("--workers", type=int, metavar="N", help="default: as many as there are")
    parser.add_argument("--limit", type=int, metavar="N", help="take only so many modules")
    parser.add_argument("--executor", choices=["farm", "threads", "processes"], default="farm")
    options = parser.parse_args()
    modules = find_modules(options.limit)

    print(f"{len(modules):,} modules, compiled by {options.executor}")
    begin = time.perf_counter()
    with make_executor(options.executor, options.servers, options.workers) as executor:
        done, failed = compile_all(modules, executor)
    elapsed = time.perf_counter() - begin

    order = {name: place for place, (name, _) in enumerate(modules)}
    late = max(done, key=lambda each: done.index(each) - order[each.name])
    print(f"\n{len(done):,} compiled and {failed} not, in {elapsed:.2f} s, start and end included")
    print(f"{sum(each.code_objects for each in done):,} code objects", end=", ")
    print(f"{sum(each.instructions for each in done):,} instructions")
    print(f"overtaken by most: {late.name}, submitted as number {order[late.name] + 1}", end=", ")
    print(f"received as number {done.index(late) + 1}")
    print("\nlongest to compile")
    for each in sorted(done, key=lambda each: -each.seconds)[:5]:
        print(f"  {each.seconds * 1000:7.1f} ms  {each.source_bytes:>9,} bytes  {each.name}")

    sample = modules[:: max(1, len(modules) // 50)]
    by_name = {each.name: each for each in done}
    for name, path in sample:
        try:
            expected = compile_source(name, path.read_bytes())
        except SyntaxError:
            continue
        if by_name[name][:3] != expected[:3]:
            print(f"{name} differs from the serial answer", file=sys.stderr)
            return 1
    print(f"\n{len(sample)} modules were compiled here as well, with the same answer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
