"""
Work on a large list: every word of the standard library's sources, millions of them.

``pmap`` over a list needs no chunk size: on a farm batches grow until each takes a while, and each
part carries its own words only. ``preduce``, ``pcount_if``, ``pfind_if`` and ``psort`` work on the
same list. All answers are compared with the serial ones. ::

    python examples/pmap_large_list.py                                # a local server of its own
    python examples/pmap_large_list.py --servers node1:11111,node2    # servers that run already
"""

from __future__ import annotations

import argparse
import keyword
import re
import sys
import sysconfig
import time
from collections import Counter
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import remote_executor.parallel as p

if TYPE_CHECKING:
    from collections.abc import Callable

WORD = re.compile(rb"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*")
PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def read_words(limit: int | None) -> list[str]:
    """Return the words of all modules of the standard library, in order."""
    root = Path(sysconfig.get_path("stdlib"))
    foreign = {"site-packages", "dist-packages", "__pycache__"}
    words: list[str] = []
    for path in sorted(root.rglob("*.py")):
        if not foreign & set(path.parts):
            words += [word.decode() for word in WORD.findall(path.read_bytes())]
            if limit is not None and len(words) >= limit:
                break
    return words[:limit]


def pieces(name: str) -> str:
    """Return the English words of an identifier: ``getFileName2`` gives ``get file name 2``."""
    return " ".join(PIECE.findall(name)).lower()


def nearest_keyword(name: str) -> str:
    """Return the keyword of Python whose letters are most like a word's."""
    letters = set(name.lower())

    def likeness(word: str) -> float:
        other = set(word.lower())
        return len(letters & other) / len(letters | other)

    return max(keyword.kwlist, key=likeness)


def longer(one: str, other: str) -> str:
    """Return the longer of two words; of two equally long ones, the first in the alphabet."""
    return min(one, other, key=lambda word: (-len(word), word))


def is_palindrome(word: str) -> bool:
    """Tell whether a word of some length reads the same backwards."""
    return len(word) > 3 and len(set(word)) > 1 and word == word[::-1]


def is_cased_palindrome(word: str) -> bool:
    """Tell whether a palindrome has a capital letter."""
    return is_palindrome(word) and word.lower() != word


def key_of(word: str) -> tuple[int, str]:
    """Sort by length and then by the alphabet."""
    return len(word), word


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Call something and return its result and the seconds that it took."""
    begin = time.perf_counter()
    result = call()
    return result, time.perf_counter() - begin


def main() -> int:
    """Do each thing serially and in parallel, compare, report."""
    parser = argparse.ArgumentParser(description="Cognates on a list of millions of words.")
    parser.add_argument("--servers", metavar="HOST:PORT,...", help="default: one of its own")
    parser.add_argument("--workers", type=int, metavar="N", help="default: as many as there are")
    parser.add_argument("--limit", type=int, metavar="N", help="take only so many words")
    options = parser.parse_args()
    words, seconds = timed(lambda: read_words(options.limit))
    different = list(dict.fromkeys(words))
    print(f"{len(words):,} words, {len(different):,} different ones, read in {seconds:.1f} s\n")

    both: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        (
            "pmap(pieces, words)",
            lambda: list(map(pieces, words)),
            lambda: p.pmap(pieces, words, progress=sys.stderr.isatty()),
        ),
        (
            "pmap(nearest_keyword, different)",
            lambda: list(map(nearest_keyword, different)),
            lambda: p.pmap(nearest_keyword, different),
        ),
        (
            "preduce(longer, words)",
            lambda: reduce(longer, words),
            lambda: p.preduce(longer, words),
        ),
        (
            "pcount_if(is_palindrome, words)",
            lambda: sum(map(is_palindrome, words)),
            lambda: p.pcount_if(is_palindrome, words),
        ),
        (
            "pfind_if(is_cased_palindrome, words)",
            lambda: next(filter(is_cased_palindrome, words), None),
            lambda: p.pfind_if(is_cased_palindrome, words),
        ),
        (
            "psort(different, key=key_of)",
            lambda: sorted(different, key=key_of),
            lambda: p.psort(different, key=key_of),
        ),
    ]
    answers = {}
    addresses = options.servers.split(",") if options.servers else options.workers
    with p.make_kernel(addresses):
        p.pmap(abs, range(100))  # the workers are there
        print(f"{'':38}  serial  parallel  with {p.kernel_worker_count()} workers")
        for name, serially, parallel in both:
            expected, serial_time = timed(serially)
            found, parallel_time = timed(parallel)
            if found != expected:
                print(f"{name} differs from the serial answer", file=sys.stderr)
                return 1
            answers[name] = found
            print(f"{name:38} {serial_time:6.2f} s  {parallel_time:6.2f} s")

    print("what takes a microsecond a word is done before the word has travelled")
    common = Counter(answers["pmap(pieces, words)"]).most_common(8)
    print("\nmost frequent once taken apart: " + ", ".join(name for name, _ in common))
    longest = answers["preduce(longer, words)"]
    print(f"longest word: {longest[:40]}... ({len(longest)} letters)")
    near = Counter(answers["pmap(nearest_keyword, different)"]).most_common(3)
    print("keywords that most look like: " + ", ".join(f"{word} ({n:,})" for word, n in near))
    print(f"palindromes: {answers['pcount_if(is_palindrome, words)']:,}", end="")
    print(f", the first with a capital: {answers['pfind_if(is_cased_palindrome, words)']}")
    middle = answers["psort(different, key=key_of)"][len(different) // 2]
    print(f"the one in the middle, by length: {middle}")
    print("all answers are those of the serial way")
    return 0


if __name__ == "__main__":
    sys.exit(main())
