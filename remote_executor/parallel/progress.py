"""A progress bar: tqdm's where it is installed, else a line of text on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

from remote_executor.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["watched"]

T = TypeVar("T")

LINE_SECONDS = 0.2
"""How often the line of text is written anew."""


def watched(items: Iterable[T], total: int | None, name: str) -> Iterator[T]:
    """
    Yield items and show how many there were.

    Args:
        items: What to yield.
        total: How many there will be, if that is known.
        name: What to call the work.
    """
    return iter(_bar()(items, total=total, desc=name))


def _bar() -> Callable[..., Iterable[Any]]:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _text
    return tqdm  # type: ignore[no-any-return]


def _text(items: Iterable[T], total: int | None, desc: str) -> Iterator[T]:
    count = 0
    begun = shown = time.monotonic()
    try:
        for item in items:
            yield item
            count += 1
            now = time.monotonic()
            if now - shown >= LINE_SECONDS:
                shown = now
                _write(f"\r{_line(desc, count, total, now - begun)}")
    finally:
        _write(f"\r{_line(desc, count, total, time.monotonic() - begun)}\n")


def _line(name: str, count: int, total: int | None, seconds: float) -> str:
    of = f" of {total:,} ({count / total:.0%})" if total else ""
    rate = f", {count / seconds:,.0f}/s" if seconds > 0 else ""
    return f"{printable(name)}: {count:,}{of}, {seconds:.1f} s{rate}".ljust(60)


def _write(text: str) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
    except (OSError, ValueError):
        pass  # closed, or full: the work goes on
