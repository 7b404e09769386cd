"""From the numbers of all rounds to verdicts, a Markdown table and JSON."""

from __future__ import annotations

import os
import platform
import statistics
from typing import TYPE_CHECKING, Any

from tests.bench.groups import MEASURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.bench.bars import Bar

__all__ = ["machine", "table", "verdicts"]


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line for line in file if line.startswith("model name")]
        processor = lines[0].partition(":")[2].strip()
    except (OSError, IndexError):
        pass
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def verdicts(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each bar of each measurement that was run."""
    return [
        _verdict(name, bar, found["peers"])
        for name, found in results.items()
        for bar in MEASURES[name].bars
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the verdicts as a Markdown table."""
    lines = [
        "| what | remote_executor | peers | result | bar | |",
        "|---|---:|---|---:|---:|---|",
    ]
    for row in rows:
        others = " · ".join(f"{peer} {_short(value)}" for peer, value in row["others"].items())
        sign = "≥" if row["least"] else "≤"
        lines.append(
            f"| {row['what']} | {_short(row['ours'])} {row['unit']} | {others or '-'} | "
            f"{_short(row['result'])} | {sign} {_short(row['limit'])} | {row['verdict']} |"
        )
    return "\n".join(lines)


def _verdict(name: str, bar: Bar, peers: Mapping[str, Any]) -> dict[str, Any]:
    medians = {peer: _median(found["rounds"], bar.number) for peer, found in peers.items()}
    ours = medians.pop(bar.ours, None)
    # The best of the peers to compare with, by its median over all rounds.
    best = max if bar.least else min
    rivals = {peer: medians[peer] for peer in bar.against if medians.get(peer) is not None}
    rival = best(rivals, key=lambda peer: rivals[peer] or 0.0) if rivals else None
    result = ours
    if bar.kind != "plain":
        result = None
        if rival is not None:
            # One quotient a round: what slows the machine down for a while slows both.
            result = (
                statistics.median(
                    mine[bar.number] / its[bar.number]
                    if bar.kind == "ratio"
                    else mine[bar.number] - its[bar.number]
                    for mine, its in zip(
                        peers[bar.ours]["rounds"], peers[rival]["rounds"], strict=False
                    )
                )
                if peers[bar.ours]["rounds"]
                else None
            )
    verdict = "failed"
    if result is not None:
        met = result >= bar.limit if bar.least else result <= bar.limit
        verdict = "pass" if met else "miss"
    return {
        "measure": name,
        "number": bar.number,
        "what": bar.what,
        "unit": bar.unit,
        "ours": ours,
        "others": medians,
        "against": rival,
        "kind": bar.kind,
        "result": result,
        "least": bar.least,
        "limit": bar.limit,
        "verdict": verdict,
    }


def _median(rounds: list[dict[str, float]], number: str) -> float | None:
    return statistics.median(each[number] for each in rounds) if rounds else None


def _short(value: float | None) -> str:
    if value is None:
        return "none"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
