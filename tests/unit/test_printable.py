"""Text of others, made fit to be shown."""

from __future__ import annotations

import pytest

from remote_executor.printable import printable, printable_lines

HOSTILE = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "a\rb",
    "a\nb",
    "\x00",
    "\x7f",
    "\x9b31m",
    "\u202eevil",  # what follows is shown from right to left
    "\u2028",
    "\ud800",  # half of a pair, which cannot even be encoded
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_terminal_acts_upon_is_left(text):
    shown = printable(f"before {text} after")

    assert shown.isprintable()
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert len(shown) == len(f"before {text} after")
    shown.encode()


def test_all_that_has_a_shape_stays():
    for text in ("", "plain", "Zürich", "日本", "a  b", "😀", "[task 1]"):
        assert printable(text) is text
        assert printable_lines(text) is text


def test_it_may_be_cut_and_need_not_be_text():
    assert printable("a" * 100, 3) == "aaa"
    assert printable(ValueError("a\x1bb")) == "a?b"


def test_lines_stay_lines():
    text = "Traceback:\n\tx\x1b[31m\r\n"
    assert printable_lines(text) == "Traceback:\n\tx?[31m?\n"
