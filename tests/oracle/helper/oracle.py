"""
What the oracle's programs use: ``from oracle import executor, outcome, run, show``.

A program is run in several ways, and cannot tell which. What it shows must be the same in all.
"""

from __future__ import annotations

import re
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pickle import PicklingError

LIMIT = 30.0
MODE = "home"
ADDRESS = ""
SHOWN: list[str] = []
_usual: list[Executor] = []


class AtHome(Executor):
    """Calls what is submitted, here and at once."""

    def __init__(self, initializer=None, initargs=()):
        self._prepare = initializer, initargs

    def submit(self, fn, /, *args, **kwargs):
        """Call it."""
        (initializer, initargs), self._prepare = self._prepare, (None, ())
        if initializer is not None:
            initializer(*initargs)
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def executor(**settings):
    """
    Return an executor with one worker, to be used in a ``with`` statement.

    Args:
        settings: ``initializer=`` and ``initargs=``.
    """
    if MODE == "home":
        return AtHome(**settings)
    if MODE == "fork":
        return ProcessPoolExecutor(1, get_context("fork"), **settings)
    from remote_executor import FarmExecutor

    if MODE == "embedded":
        return FarmExecutor(1, **settings)
    return FarmExecutor(1, addresses=[ADDRESS], **settings)


def the_executor():
    """Return the program's usual executor, which is made at its first use."""
    if not _usual:
        _usual.append(executor())
    return _usual[0]


def run(fn, /, *args, **kwargs):
    """Return what a task returns, on the program's usual executor."""
    return the_executor().submit(fn, *args, **kwargs).result(LIMIT)


def outcome(fn, /, *args, **kwargs):
    """Return what a task returns, or the name of the error that it raises and its text."""
    try:
        return run(fn, *args, **kwargs)
    except Exception as error:
        if is_refusal(error):
            raise
        return f"{type(error).__name__}: {error}"


def show(*values):
    """Note values, of which the text is compared."""
    SHOWN.extend(re.sub(r"\b0x[0-9a-f]{6,}\b", "0x", repr(value)) for value in values)


@contextmanager
def showing_errors():
    """Show the type of an error that the block raises, unless something is refused by it."""
    try:
        yield
    except Exception as error:
        if is_refusal(error):
            raise
        show(type(error).__name__)


def is_refusal(error: BaseException) -> bool:
    """Tell whether an error says that something cannot travel."""
    if isinstance(error, PicklingError):
        return True
    if MODE != "fork":
        return False
    if type(error).__name__ == "BrokenProcessPool" or isinstance(
        error, (NotImplementedError, RecursionError)
    ):
        return True
    text = str(error)
    return isinstance(error, (AttributeError, TypeError)) and bool(
        re.search(r"(?i)\bpickle\b|Can't get (local|attribute)", text)
    )


def close():
    """End the usual executor."""
    while _usual:
        _usual.pop().shutdown()
