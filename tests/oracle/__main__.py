"""
Run programs of the oracle: ``python -m tests.oracle a_identity``.

Prints a line for each program that is not right in all ways, and what it showed with ``--show``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from remote_executor.net.tokens import renew_token
from tests.oracle.catalog import read_programs
from tests.oracle.known import read_known, surprises, updated, write_known
from tests.oracle.runner import MODES, Oracle


def main() -> int:
    """Run what the arguments name; return 1 if something is not as ``known.txt`` says."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="kinds, or programs, or how they begin; all without any"
    )
    parser.add_argument("--modes", default=",".join(MODES), help="default: %(default)s")
    parser.add_argument(
        "--show", action="store_true", help="also what is wrong or refused, and why"
    )
    parser.add_argument("--logs", action="store_true", help="also what the programs wrote")
    parser.add_argument("--update", action="store_true", help="take off known.txt what is better")
    parser.add_argument("--accept", action="store_true", help="write known.txt as it is now")
    parser.add_argument("--python", help="the other Python")
    parser.add_argument("-j", type=int, default=3, help="programs at a time (%(default)s)")
    options = parser.parse_args()
    modes = options.modes.split(",")
    programs = read_programs()
    chosen = [
        each
        for each in programs
        if not options.names or any(_is_named(each.id, name) for name in options.names)
    ]
    known = read_known()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="remote-executor-oracle-") as folder:
        os.environ["REMOTE_EXECUTOR_TOKEN_FILE"] = os.path.join(folder, "token")
        renew_token()
        with closing(Oracle(Path(folder), programs, modes, options.python)) as oracle:
            with ThreadPoolExecutor(options.j) as pool:
                judged = list(
                    zip([each.id for each in chosen], pool.map(oracle.judge, chosen), strict=True)
                )
    counts = {mode: Counter(verdicts[mode].word for _, verdicts in judged) for mode in modes}
    unexpected = 0
    for id, verdicts in judged:
        odd = surprises(id, verdicts, known)
        unexpected += len(odd)
        words = {mode: verdict.word for mode, verdict in verdicts.items()}
        if set(words.values()) <= {"right", "skipped"} and not odd:
            continue
        print(id.ljust(50), *(f"{words[mode]:8}" for mode in modes), "  !" if odd else "")
        for mode, verdict in verdicts.items():
            if options.show and verdict.word in ("wrong", "refused"):
                print(f"  {mode}: {verdict.reason}")
            if options.logs and verdict.log:
                print(verdict.log)
    for mode in modes:
        print(mode.rjust(50), *(f"{word} {count}" for word, count in sorted(counts[mode].items())))
    print(f"{len(chosen)} programs in {time.monotonic() - began:.1f} s, {unexpected} unexpected")
    if options.update or options.accept:
        write_known(updated(known, judged, accept=options.accept))
        return 0
    return 1 if unexpected else 0


def _is_named(id: str, name: str) -> bool:
    """Whether an argument means a program: its kind's or its own name, or how they begin."""
    return id.startswith(name) or id.partition(":")[2].startswith(name)


if __name__ == "__main__":
    sys.exit(main())
