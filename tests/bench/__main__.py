"""
Measure speed and memory against ProcessPoolExecutor and multiprocessing.Pool.

    python -m tests.bench [executor|parallel|network|code|ways] [--quick] [--only NAME,...]
                          [--json FILE]

Prints a Markdown table with the bar of each measurement and whether it is met. Each number is the
median of several rounds, in which the peers take turns; each run has an interpreter of its own.
The numbers on a machine that does something else as well mean little.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys

from tests.bench.groups import GROUPS, MEASURES
from tests.bench.report import machine, table, verdicts
from tests.bench.run import measure_in_turn


def main() -> int:
    """Run what was asked for; the exit code is 1 if a measurement failed or missed its bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("group", nargs="?", choices=list(GROUPS), help="default: all of them")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: a smoke test")
    parser.add_argument("--only", metavar="NAME,...", help="some of: " + ", ".join(MEASURES))
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one run")
    options = parser.parse_args()
    usual = GROUPS[options.group] if options.group else MEASURES
    names = options.only.split(",") if options.only else list(usual)
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        parser.error(f"no such measurement: {', '.join(unknown)}")

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    results = {name: measure_in_turn(name, options.quick, options.timeout, log) for name in names}
    rows = verdicts(results)
    where = machine()
    when = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    print(f"{where['processor']}, {where['cores']} cores, Python {where['python']}, {when}\n")
    print(table(rows))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(
                {
                    "date": when,
                    "machine": where,
                    "quick": options.quick,
                    "verdicts": rows,
                    "results": results,
                },
                file,
                indent=1,
            )
    return 0 if all(row["verdict"] == "pass" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
