"""
Text of others, made fit to be shown: in a log, an error, a terminal, a table.

A name, a label or a reason may come from a task, another user or a hostile peer. Printed raw, it
may move the cursor, change the title of a window, colour what follows, or look like a line of the
log.
"""

from __future__ import annotations

__all__ = ["printable", "printable_lines"]


def printable(text: object, most: int | None = None) -> str:
    """
    Return a text on one line, without anything that a terminal would act upon.

    Args:
        text: What is to be shown.
        most: Characters after which it is cut.

    Returns:
        The same text, with "?" for each control character, line end, mark of direction or other
        sign that has no shape.
    """
    words = text if type(text) is str else str(text)
    if most is not None:
        words = words[:most]
    # The usual case, at the price of a look.
    if words.isprintable():
        return words
    return "".join(c if c.isprintable() else "?" for c in words)


def printable_lines(text: object) -> str:
    """
    Return a text of several lines, such as a traceback, without anything else of that kind.

    Args:
        text: What is to be shown. Tabs and line ends stay.
    """
    words = str(text)
    if words.isprintable():
        return words
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in words)
