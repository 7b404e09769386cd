"""What can be said of a task beside what it is: priority, category, time limit, retries, name."""

from __future__ import annotations

import operator
import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from remote_executor.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["ERRORS", "PRIORITIES", "Options", "TaskOptions", "check_errors", "check_grace"]

PRIORITIES = {"high": 1, "normal": 0, "low": -1}

ERRORS = ("raise", "return", "skip")
"""What a map does with the error of an item: raise it at its turn, which ends the map; return it in
the place of the result; leave the item out."""


class TaskOptions(TypedDict, total=False):
    """
    What ``executor.options(...)`` takes, for type checkers and editors.

    Attributes: see :class:`Options`.
    """

    priority: int | str
    category: Hashable
    timeout: float | None
    grace: float | None
    retries: int | None
    name: str | None
    kill_on_cancel: bool
    retry: Retry | None
    errors: str
    journal: Any
    resume: Any


class _Fields(NamedTuple):
    priority: int | str = 0
    category: Any = "default"
    timeout: float | None = None
    grace: float | None = None
    retries: int | None = None
    name: str | None = None
    kill_on_cancel: bool = False
    retry: Retry | None = None
    errors: str = "raise"
    journal: Any = None


class Options(_Fields):
    """
    The options of tasks that are submitted through one view.

    Attributes:
        priority: "high", "normal", "low", or any int; higher goes first.
        category: Any hashable value; see ``FarmExecutor.kill_tasks``.
        timeout: Seconds a task may run on its worker before it is stopped; None for no limit.
        grace: Seconds that a task has to end by itself, once it was killed or its timeout is over,
            before its worker is ended; 0 for none, None for half a second.
        retries: How many more times a task is tried after a server was lost with it; None means
            what the executor was made with. For tasks that fail otherwise see ``retry``.
        name: What to call the tasks in errors and output.
        kill_on_cancel: In asyncio: whether a task that runs is stopped, as ``kill`` does it, when
            the coroutine that awaits it is cancelled. Otherwise it runs to its end.
        retry: A :class:`~remote_executor.Retry`: when tasks that raised, died or timed out are
            tried again; None for never.
        errors: What a map does with the error of an item, see :data:`ERRORS`.
        journal: A :class:`~remote_executor.Journal`, or the path of one: results are kept there,
            and what is there is not computed again. ``resume`` is another name for it.
    """

    # No dataclass: that module imports inspect, ast and dis, a tenth of the start of a program.
    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Options:  # noqa: PYI034 - Self is of 3.11
        """
        Make options.

        Raises:
            ValueError: If one has a value that it cannot have.
            TypeError: If a number is none, or the category has no hash.
        """
        self = super().__new__(cls, *args, **kwargs)
        if isinstance(self.priority, str):
            if self.priority not in PRIORITIES:
                raise ValueError(
                    f"priority must be an int or one of {', '.join(PRIORITIES)}, "
                    f"not {self.priority!r}"
                )
        else:
            operator.index(self.priority)  # a TypeError if it is neither
        hash(self.category)
        if self.category is None:
            raise ValueError("category must not be None")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, not {self.timeout!r}")
        if self.grace is not None:
            check_grace(self.grace)
        if self.retries is not None and operator.index(self.retries) < 0:
            raise ValueError(f"retries must be an int from 0, not {self.retries!r}")
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise TypeError(f"retry must be a remote_executor.Retry, not {self.retry!r}")
        check_errors(self.errors)
        journal = self.journal
        if journal is not None and not hasattr(journal, "present"):
            try:
                os.fspath(journal)
            except TypeError:
                raise TypeError(
                    f"journal must be a remote_executor.Journal or a path, not {journal!r}"
                ) from None
        return self

    @property
    def level(self) -> int:
        """The priority as a number."""
        if isinstance(self.priority, str):
            return PRIORITIES[self.priority]
        return operator.index(self.priority)

    def but(self, **changes: Any) -> Options:
        """
        Return the same options with some changed.

        Args:
            changes: Attributes and their new values.

        Raises:
            TypeError: If there is no such option: it says which there are, and which was meant.
        """
        for name in changes:
            if name not in TaskOptions.__annotations__:
                raise TypeError(_unknown(name))
        if "resume" in changes:
            changes["journal"] = changes.pop("resume")
        return Options(**{**self._asdict(), **changes})


def check_grace(grace: float) -> None:
    """
    Check a number of seconds that a task has to end by itself.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is below 0.
    """
    if isinstance(grace, bool) or not isinstance(grace, (int, float)):
        raise TypeError(f"grace must be a number of seconds, not {grace!r}")
    if not grace >= 0:
        raise ValueError(f"grace must be from 0 seconds, not {grace!r}")


def check_errors(errors: object) -> None:
    """
    Check what a map is to do with errors.

    Raises:
        ValueError: If there is no such word.
    """
    if errors not in ERRORS:
        raise ValueError(f"errors must be one of {', '.join(ERRORS)}, not {errors!r}")


def _unknown(name: str) -> str:
    import difflib

    known = list(TaskOptions.__annotations__)
    close = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"there is no option {name}{hint}; there are {', '.join(known)}"
