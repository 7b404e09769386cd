"""
Index the source of the Python standard library, serially and on a farm.

Every module of the running interpreter's standard library is read here, parsed with ``ast`` on
the farm, and counted: which functions are called most, which modules are the longest. The serial
answer and the farm's must be the same. ::

    python examples/index_sources.py                                # a local server of its own
    python examples/index_sources.py --servers node1:11111,node2    # servers that run already

Only text travels, so a server needs none of these files. It needs this Python's minor version,
since the function that parses them lives in this script and is sent along.
"""

from __future__ import annotations

import argparse
import ast
import sys
import sysconfig
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from remote_executor import FarmExecutor


class ModuleIndex(NamedTuple):
    """What one module holds."""

    name: str
    lines: int
    functions: int
    calls: dict[str, int]
    error: str


def index_source(name: str, source: bytes) -> ModuleIndex:
    """
    Parse one module and count what it calls. This is the task that runs on the farm.

    Args:
        name: The module's name, for the report.
        source: The bytes of its file.
    """
    lines = source.count(b"\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in an old test is not our concern
            tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:  # some tests of Python are wrong on purpose
        return ModuleIndex(name, lines, 0, {}, type(error).__name__)
    calls: Counter[str] = Counter()
    functions = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                calls[node.func.id] += 1
            elif isinstance(node.func, ast.Attribute):
                calls["." + node.func.attr] += 1
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions += 1
    return ModuleIndex(name, lines, functions, dict(calls), "")


def read_sources(limit: int | None) -> tuple[list[str], list[bytes]]:
    """Return the names and the bytes of the standard library's modules."""
    root = Path(sysconfig.get_path("stdlib"))
    foreign = {"site-packages", "dist-packages", "__pycache__"}
    paths = [p for p in sorted(root.rglob("*.py")) if not foreign & set(p.parts)]
    if limit is not None:
        paths = paths[:: max(1, len(paths) // limit)][:limit]  # from all over the library
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in paths]
    return names, [path.read_bytes() for path in paths]


def report(indexes: list[ModuleIndex]) -> None:
    """Print the most used functions and the longest modules."""
    calls: Counter[str] = Counter()
    for index in indexes:
        calls.update(index.calls)
    total = sum(index.lines for index in indexes)
    functions = sum(index.functions for index in indexes)
    wrong = sum(1 for index in indexes if index.error)
    print(f"{len(indexes):,} modules, {total:,} lines, {functions:,} functions", end="")
    print(f" ({wrong} modules do not parse, as their tests want it)" if wrong else "")
    print("\nmost used functions")
    for name, count in sorted(calls.items(), key=lambda pair: (-pair[1], pair[0]))[:10]:
        print(f"  {count:>8,}  {name}()")
    print("\nlongest modules")
    for index in sorted(indexes, key=lambda index: (-index.lines, index.name))[:10]:
        print(f"  {index.lines:>8,}  {index.name}")


def main() -> int:
    """Run both ways, compare, report."""
    parser = argparse.ArgumentParser(description="Index the standard library on a farm.")
    parser.add_argument("--servers", metavar="HOST:PORT,...", help="default: one of its own")
    parser.add_argument("--workers", type=int, metavar="N", help="default: as many as there are")
    parser.add_argument("--limit", type=int, metavar="N", help="take only so many modules")
    options = parser.parse_args()
    addresses = options.servers.split(",") if options.servers else None

    start = time.perf_counter()
    names, sources = read_sources(options.limit)
    size = sum(map(len, sources)) / 1e6
    print(f"read {len(names):,} files, {size:.1f} MB, in {time.perf_counter() - start:.2f} s")

    start = time.perf_counter()
    serial = list(map(index_source, names, sources))
    serial_time = time.perf_counter() - start

    start = time.perf_counter()
    with FarmExecutor(options.workers, addresses=addresses) as executor:
        executor.submit(len, "").result()
        ready_time = time.perf_counter() - start
        farm = list(executor.map(index_source, names, sources))
        farm_time = time.perf_counter() - start - ready_time
        workers = executor._max_workers

    if farm != serial:
        print("the farm's answer differs from the serial one", file=sys.stderr)
        return 1
    report(farm)
    print(f"\nserial {serial_time:7.2f} s")
    print(f"farm   {farm_time:7.2f} s with {workers} workers, {serial_time / farm_time:.2f} times")
    print(f"       {ready_time:7.2f} s until the first result, apart from that")
    print("both gave the same answer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
