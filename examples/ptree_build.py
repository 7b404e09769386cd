"""
A build as a graph: an index of some packages of the standard library, each step computed once.

Each package is a node that reads, parses and summarises it; a table for each package, an index of
all names, and the page that holds them all depend on these. What does not depend on each other is
computed in parallel. One node fails at first, as a package name is misspelled: the error is kept
and fails what needs it, and nothing else. ``clear_errors`` lets the build go on from where it
stood. ::

    python examples/ptree_build.py                                # a local server of its own
    python examples/ptree_build.py --servers node1:11111,node2    # servers that run already
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import sysconfig
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import remote_executor.parallel as p

PACKAGES = ["asyncio", "concurrent", "email", "encodings", "http", "json", "multiprocessing", "xml"]


class Package(NamedTuple):
    """What a package defines."""

    name: str
    modules: int
    lines: int
    defined: dict[str, int]
    where: int


def summarize(name: str, spelling: dict[str, str], sources: dict[str, bytes]) -> Package:
    """
    Parse a package: how many modules and lines it has, and what it defines how often.

    Args:
        name: The package's name.
        spelling: How names are spelled that are not spelled as they should be.
        sources: The bytes of its files; what travels is text, so servers need no such files.

    Raises:
        ModuleNotFoundError: If there is no such package.
    """
    if name in spelling:
        raise ModuleNotFoundError(f"no package is called {spelling[name]!r}")
    defined: dict[str, int] = {}
    for source in sources.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                defined[node.name] = defined.get(node.name, 0) + 1
    lines = sum(source.count(b"\n") for source in sources.values())
    return Package(name, len(sources), lines, defined, os.getpid())


def table(package: Package) -> str:
    """Return the row of a package."""
    public = [name for name in package.defined if not name.startswith("_")]
    return (
        f"{package.name:<16}{package.modules:>5} modules {package.lines:>7,} lines"
        f" {len(package.defined):>6,} names, {len(public):,} of them public"
    )


def index(*packages: Package) -> dict[str, list[str]]:
    """Return for each public name the packages that define it."""
    found: dict[str, list[str]] = {}
    for package in packages:
        for name in package.defined:
            if not name.startswith("_"):
                found.setdefault(name, []).append(package.name)
    return found


def page(names: dict[str, list[str]], *tables: str) -> str:
    """Return the whole report."""
    shared = sorted(names, key=lambda name: (-len(names[name]), name))[:5]
    lines = [*tables, "", f"{len(names):,} public names; defined by most packages:"]
    lines += [f"  {name:<10} {', '.join(names[name])}" for name in shared]
    return "\n".join(lines)


def read_package(name: str) -> dict[str, bytes]:
    """Return the sources of a package."""
    folder = Path(sysconfig.get_path("stdlib")) / name
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.py")}


def build_graph(packages: list[str], spelling: dict[str, str]) -> p.Ptree:
    """Return the graph. Nodes may be defined in any order; the spelling may be mended later."""
    tree = p.ptree()
    tree.define("page", ["index", *(f"table {name}" for name in packages)], page)
    tree.define("index", [f"package {name}" for name in packages], index)
    for name in packages:
        tree.define(f"table {name}", [f"package {name}"], table)
        # What a function holds is sent as it is when the node is computed.
        tree.define(f"package {name}", [], partial(summarize, name, spelling, read_package(name)))
    return tree


def state_of(tree: p.Ptree, node: str) -> str:
    """Return a word for what has become of a node, without computing it."""
    if not tree.computed(node):
        return "not yet"
    try:
        tree.call(node)
    except ModuleNotFoundError:
        return "failed"
    return "done"


def main() -> int:
    """Build, fail, mend, go on."""
    parser = argparse.ArgumentParser(description="Build an index of packages as a graph.")
    parser.add_argument("--servers", metavar="HOST:PORT,...", help="default: one of its own")
    parser.add_argument("--workers", type=int, metavar="N", help="default: as many as there are")
    options = parser.parse_args()
    what: Any = options.servers.split(",") if options.servers else options.workers
    spelling = {"json": "jsno"}
    with p.make_kernel(what):
        tree = build_graph(PACKAGES, spelling)
        tree.check()  # no ring, and nothing is undefined

        begin = time.perf_counter()
        try:
            tree.call("page")
        except ModuleNotFoundError as error:
            print(f"the build failed after {time.perf_counter() - begin:.2f} s: {error}")
        tree.call("table xml")  # fails with nothing that it does not need
        for node in ("package json", "table json", "index", "page", "table xml"):
            print(f"  {node:<14}{state_of(tree, node)}")

        spelling.clear()
        tree.clear_errors()
        begin = time.perf_counter()
        report = tree.call("page")
        print(f"\nmended; the rest took {time.perf_counter() - begin:.2f} s\n")
        print(report)
        pids = {tree.call(f"package {name}").where for name in PACKAGES}
        print(f"\nthe packages were parsed in {len(pids)} processes; {tree!r}")

    packages = [summarize(name, {}, read_package(name)) for name in PACKAGES]
    serial = page(index(*packages), *map(table, packages))
    if report != serial:
        print("the build differs from the serial one", file=sys.stderr)
        return 1
    print("a serial build gives the same page")
    return 0


if __name__ == "__main__":
    sys.exit(main())
