"""
What is known to be wrong, or to be refused: ``known.txt``, a line for each program.

::

    a_identity:default_sentinel wrong embedded elsewhere
    h_conversions:memoryview_of_array refused embedded

The list is strict: what is right now must leave it, and what is wrong and not in it is a failure.
``python -m tests.oracle --update`` takes off what has become right or refused; ``--accept`` also
adds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.oracle.runner import Verdict

__all__ = ["read_known", "surprises", "write_known"]

FILE = Path(__file__).with_name("known.txt")

Known = dict[tuple[str, str], str]
"""For a program's id and a mode: "wrong" or "refused"."""


def read_known(file: Path = FILE) -> Known:
    """Return what is known of which program in which mode."""
    found: Known = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line:
            id, word, *modes = line.split()
            found.update({(id, mode): word for mode in modes})
    return found


def write_known(known: Known, file: Path = FILE) -> None:
    """Write a list, in an order that merges well."""
    lines: dict[tuple[str, str], list[str]] = {}
    for (id, mode), word in sorted(known.items()):
        lines.setdefault((id, word), []).append(mode)
    text = [f"{id} {word} {' '.join(modes)}\n" for (id, word), modes in sorted(lines.items())]
    file.write_text("".join(text), encoding="utf-8")


def surprises(id: str, verdicts: dict[str, Verdict], known: Known) -> list[str]:
    """Return what differs from the list, in words; for each mode that was tried."""
    found = []
    for mode, verdict in verdicts.items():
        expected = known.get((id, mode), "right")
        if verdict.word in ("skipped", expected):
            continue
        words = f"{id} {mode}: {verdict.word}, not {expected} as known.txt says"
        if verdict.word in ("right", "refused"):
            words += "; python -m tests.oracle --update takes it off"
        found.append(f"{words}\n    {verdict.reason}\n{verdict.log}".rstrip())
    return found


def updated(
    known: Known, judged: Iterable[tuple[str, dict[str, Verdict]]], *, accept: bool
) -> Known:
    """
    Return the list as it should be after programs were judged.

    Args:
        known: The list as it is.
        judged: Programs and how they fared.
        accept: Whether what is worse than the list says is put into it.
    """
    order = ["right", "refused", "wrong"]
    found = dict(known)
    for id, verdicts in judged:
        for mode, verdict in verdicts.items():
            if verdict.word == "skipped":
                continue
            before = found.get((id, mode), "right")
            if accept or order.index(verdict.word) < order.index(before):
                found[id, mode] = verdict.word
                if verdict.word == "right":
                    del found[id, mode]
    return found
