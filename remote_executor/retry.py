"""
When a task that failed is tried again: the words of ``options(retry=)``.

::

    patient = ex.options(retry=Retry(times=3, on=(OSError, WorkerDied), wait=wait_exponential()))
    future = patient.submit(fetch, url)

They mean what tenacity's mean, whose waits and conditions may be given as well.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Condition = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Any], object]

__all__ = ["Retry", "RetryState", "wait_exponential", "wait_fixed", "wait_random"]

MAX_WAIT = 10 * 365 * 24 * 3600.0
"""Seconds; a longer wait is one for ever."""


class RetryState:
    """
    What a wait or a condition may look at: the failed try. tenacity's ``RetryCallState`` in short.

    Attributes:
        attempt_number: How often the task was tried by now; 1 after the first try.
        outcome: The failed try: ``outcome.exception()`` is what was raised.
        seconds_since_start: Since the first try failed, in seconds.
        fn: None, here for tenacity's sake; so are the others.
    """

    __slots__ = (
        "args",
        "attempt_number",
        "fn",
        "idle_for",
        "kwargs",
        "next_action",
        "outcome",
        "retry_object",
        "seconds_since_start",
        "upcoming_sleep",
    )

    def __init__(
        self, error: BaseException, attempt_number: int, seconds_since_start: float = 0.0
    ) -> None:
        self.attempt_number = attempt_number
        self.outcome = _Outcome(error)
        self.seconds_since_start = seconds_since_start
        self.idle_for = 0.0
        self.fn = self.next_action = self.retry_object = None
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.upcoming_sleep = 0.0

    def __repr__(self) -> str:
        return f"<RetryState attempt={self.attempt_number} {self.outcome.exception()!r}>"


class _Outcome:
    """A failed try, as a future that is done."""

    __slots__ = ("_error",)

    failed = True

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def exception(self, timeout: float | None = None) -> BaseException:
        return self._error

    def result(self, timeout: float | None = None) -> Any:
        raise self._error


class wait_fixed:  # noqa: N801 - tenacity's names
    """
    Wait for the same time before each try.

    Args:
        seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = _seconds(seconds, "wait")

    def __call__(self, state: RetryState) -> float:
        """Return how long to wait, in seconds."""
        return self.seconds

    def __repr__(self) -> str:
        return f"wait_fixed({self.seconds:g})"


class wait_random:  # noqa: N801
    """
    Wait for a random time before each try.

    Args:
        min: At least so many seconds.
        max: At most so many.
    """

    def __init__(self, min: float = 0.0, max: float = 1.0) -> None:
        self.min = _seconds(min, "min")
        self.max = _seconds(max, "max")

    def __call__(self, state: RetryState) -> float:
        """Return how long to wait, in seconds."""
        return _uniform(self.min, self.max)

    def __repr__(self) -> str:
        return f"wait_random({self.min:g}, {self.max:g})"


class wait_exponential:  # noqa: N801
    """
    Wait longer before each try, and not as long as the others do.

    Args:
        multiplier: Seconds before the second try.
        max: At most so many seconds.
        exp_base: How many times longer each wait is than the one before.
        min: At least so many seconds.
        jitter: From 0 to 1: a random part of each wait, up to this one, is left out, so that tasks
            that have failed together do not all come back at the same moment.
    """

    def __init__(
        self,
        multiplier: float = 1.0,
        max: float = 3600.0,
        exp_base: float = 2.0,
        min: float = 0.0,
        *,
        jitter: float = 0.5,
    ) -> None:
        self.multiplier = _seconds(multiplier, "multiplier")
        self.max = _seconds(max, "max")
        self.min = _seconds(min, "min")
        self.exp_base = _seconds(exp_base, "exp_base")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1, not {jitter!r}")
        self.jitter = jitter

    def __call__(self, state: RetryState) -> float:
        """Return how long to wait, in seconds."""
        try:
            seconds = self.multiplier * self.exp_base ** (state.attempt_number - 1)
        except OverflowError:
            seconds = self.max
        seconds = min(seconds, self.max) * _uniform(1 - self.jitter, 1)
        return max(self.min, seconds)

    def __repr__(self) -> str:
        return f"wait_exponential({self.multiplier:g}, max={self.max:g}, jitter={self.jitter:g})"


class Retry:
    """
    When a task that failed is tried again, and how often. Give it to ``options(retry=...)``.

    ::

        patient = ex.options(retry=Retry(times=3, on=(OSError, WorkerDied)))
        pages = list(patient.map(fetch, urls))

    It is for tasks that raised, whose worker died, or whose time was over. (``retries`` is another
    thing: how often a task is sent again whose *server* was lost.) Of a map's batch only the items
    that failed are tried again. While a task waits it takes no slot and no thread, and it can be
    cancelled. The next try is on another server, if one has room. After the last one its error is
    raised, with the earlier ones as notes. Tasks that are killed or cancelled are not tried again,
    nor those that cannot travel.

    Args:
        times: How many more times it is tried after the first failure, at most.
        on: After which errors: a class or several, or a callable that is given the error and says
            whether; tenacity's conditions (``retry_if_exception_type``) too.
        wait: Seconds between two tries: a number, one of :class:`wait_exponential`,
            :class:`wait_fixed`, :class:`wait_random` and tenacity's waits, or a callable that is
            given a :class:`RetryState`. By default 0.1 s and twice as long each time, up to a
            minute.

    Raises:
        TypeError: If one of them is nothing of that kind.
        ValueError: If a number is below 0.
    """

    __slots__ = ("on", "times", "wait")

    def __init__(
        self,
        times: int = 3,
        on: Condition = Exception,
        wait: float | Callable[[RetryState], float] | None = None,
    ) -> None:
        self.times = operator.index(times)
        if self.times < 0:
            raise ValueError(f"times must be an int from 0, not {times!r}")
        classes = on if isinstance(on, tuple) else (on,)
        are_classes = all(
            isinstance(each, type) and issubclass(each, BaseException) for each in classes
        )
        if not are_classes and (isinstance(on, (tuple, type)) or not callable(on)):
            raise TypeError(f"on must be exception classes or a callable, not {on!r}")
        self.on = on
        if wait is None:
            wait = wait_exponential(0.1, max=60.0)
        elif not callable(wait):
            wait = wait_fixed(wait)
        self.wait = wait

    def __repr__(self) -> str:
        return f"Retry(times={self.times}, on={self.on!r}, wait={self.wait!r})"

    def seconds(self, state: RetryState) -> float | None:
        """
        Return after how many seconds to try again.

        Args:
            state: The try that failed.

        Returns:
            Seconds; None if it is not to be tried again.

        Raises:
            Exception: What a callable of the user's raises, or TypeError if a wait is no number.
        """
        if state.attempt_number > self.times or not self._is_meant(state):
            return None
        return min(_seconds(self.wait(state), "wait"), MAX_WAIT)

    def _is_meant(self, state: RetryState) -> bool:
        on: Any = self.on
        error = state.outcome.exception()
        if isinstance(on, (tuple, type)):
            return isinstance(error, on)
        of_tenacity = any(each.__module__.startswith("tenacity.") for each in type(on).__mro__)
        return bool(on(state if of_tenacity else error))


def _seconds(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not value >= 0:
        raise ValueError(f"{name} must be from 0 seconds, not {value!r}")
    return float(value)


def _uniform(low: float, high: float) -> float:
    import random  # late: it is a fifth of the start of a program, and few wait

    return random.uniform(low, high)
