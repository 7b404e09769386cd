"""
Promises, delays, futures and chains, with lparallel's meaning of each.

=========  ======================================================================================
promise    a box for a value that somebody will put in; a ``concurrent.futures.Future``
future     a task on the kernel; the executor's own future
speculate  a future of low priority
delay      a call that is made by whoever forces it first, once
chain      a link: what is done to it is done to what it holds, and a value that is a chain is
           forced through
=========  ======================================================================================
"""

from __future__ import annotations

import time
from _thread import get_ident
from concurrent.futures import Future, InvalidStateError, TimeoutError
from concurrent.futures._base import FINISHED
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, overload

from remote_executor.client.current import direct_submit
from remote_executor.client.futures import SafeFuture
from remote_executor.client.waits import check_may_wait
from remote_executor.net.interruptible import Turns
from remote_executor.parallel.kernel import check_kernel, task_priority
from remote_executor.parallel.parts import deadline_of
from remote_executor.server.worker import worker_index
from remote_executor.task_errors import CycleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = [
    "Chain",
    "Delay",
    "Promise",
    "chain",
    "delay",
    "force",
    "fulfill",
    "fulfill_with",
    "fulfilled",
    "future",
    "promise",
    "speculate",
]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_waits: dict[int, Delay[Any]] = {}
"""Which delay a thread waits for."""


class Chain(Generic[T_co]):
    """
    A link to another object, made by :func:`chain`.

    ::

        import remote_executor.parallel as p

        box = p.promise()
        link = p.Chain(box)
        p.fulfill(link, 3)  # True
        p.force(box)  # 3

    Args:
        object: A promise, a delay, a future, another chain, or anything.
    """

    __slots__ = ("object",)

    def __init__(self, object: Any) -> None:
        self.object = object

    def __repr__(self) -> str:
        return f"<Chain to {self.object!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        target = _end_of(self)
        if isinstance(target, Promise) and target._link is not None and not target.done():
            return Chain, (Chain(target._link),)
        if isinstance(target, Delay):
            call = target._call
            if call is not None and not target.done():
                # Whoever forces it there makes the call there.
                return _chain_to_delay, call
            target = target._inner
        if not isinstance(target, Future):
            return Chain, (target,)
        # In a worker it is a task's result, chained to a task of its own: that is waited for.
        if not target.done() and (isinstance(target, Promise) or worker_index() is None):
            raise TypeError(
                "a chain to what has no value yet cannot be sent elsewhere: force it first"
            )
        try:
            error = target.exception()
        except BaseException as exc:
            if not target.done():
                raise  # a ^C
            error = exc  # cancelled
        return _chain_to_outcome, (None if error is not None else _plain_result(target), error)


def _chain_to_outcome(value: Any, error: BaseException | None) -> Chain[Any]:
    """Return a chain to something that is done, as it is rebuilt where it was sent to."""
    outcome: SafeFuture[Any] = SafeFuture()
    if error is None:
        outcome.set_result(value)
    else:
        outcome.set_exception(error)
    return Chain(outcome)


def _chain_to_delay(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Chain[Any]:
    return Chain(Delay(fn, args, kwargs))


class Promise(SafeFuture[T]):
    """
    A box for one value, made by :func:`promise`.

    ::

        import remote_executor.parallel as p

        box = p.Promise()
        p.fulfill(box, 3)  # True
        box.result()  # 3

    ``wait``, ``as_completed`` and ``asyncio.wrap_future`` take it as any future. It is done when
    :func:`force` would not wait: one that was fulfilled with a chain, when that is done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns()
        """Had by who fulfils it."""
        self._link: Any = None
        """What it is chained to."""

    def result(self, timeout: float | None = None) -> T:
        """
        Return its value, as :func:`force` does.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            TimeoutError: It is not fulfilled in time.
            Exception: If it failed.
        """
        value: T = force(self, timeout)
        return value

    def check_may_wait(self) -> None:
        """
        Check that this is no done-callback that an I/O thread runs.

        Raises:
            RuntimeError: If it is.
        """
        check_may_wait()

    def fulfil(self, fn: Callable[[], Any]) -> bool:
        """Fulfil it with what a call gives, for who has the turn; False if it is fulfilled."""
        return not (self.is_settled() or self._link is not None) and self._settle(fn())

    def _settle(self, value: Any) -> bool:
        """Take a value, or follow a chain to one; False if it was cancelled meanwhile."""
        if not isinstance(value, Chain):
            return self._finish(FINISHED, value, None)
        target = _end_of(value)
        source = target._inner if isinstance(target, Delay) else target
        if not isinstance(source, Future):
            return self._settle(target)
        self._refuse_ring(target)
        follows = False
        try:
            # Who forces it follows the link.
            self.watchers().gates.open(partial(setattr, self, "_link", target))
            source.add_done_callback(self._resolve)
            follows = True
        finally:
            if not follows and self._link is target:
                source.add_done_callback(self._resolve)  # a ^C has come between
        self._refuse_ring(target)  # once more: others may have chained theirs meanwhile
        return True

    def _refuse_ring(self, target: Any) -> None:
        ring = _ring(self, target)
        if ring is not None:
            self._link = None
            raise CycleError(ring)

    def _await(self, until: float | None) -> Any:
        """Wait until it is done or chained to something; return what it is chained to."""
        if not self.watchers().gates.wait(
            lambda: self.is_settled() or self._link is not None, until
        ):
            raise TimeoutError("the promise was not fulfilled in time")
        return self._link

    def _resolve(self, source: Future[Any]) -> None:
        """Take over what became of what it is chained to. A done-callback."""
        try:
            error = source.exception()
        except BaseException as exc:  # cancelled
            error = exc
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self._settle(_plain_result(source))
        except CycleError as exc:
            self.set_exception(exc)
        except InvalidStateError:
            pass  # cancelled, or set from outside

    def __reduce__(self) -> NoReturn:
        raise TypeError("a promise cannot be sent to a server: force it, and send its value")


class Delay(Future[T]):
    """
    A call that is made once, by whoever forces it first. Made by :func:`delay`.

    ::

        import remote_executor.parallel as p

        later = p.Delay(pow, (2, 5))
        later.done()  # False
        p.force(later)  # 32

    Nobody else would make it, so ``wait``, ``as_completed`` and ``asyncio.wrap_future`` refuse it.

    Args:
        fn: What to call.
        args: With which positional arguments.
        kwargs: With which keyword arguments.
    """

    def __init__(
        self, fn: Callable[..., T], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> None:
        self._call: tuple[Any, tuple[Any, ...], dict[str, Any]] | None = (fn, args, kwargs or {})
        self._inner: SafeFuture[T] = SafeFuture()
        self.turns = Turns()
        """Had by who makes the call, or fulfils it."""

    def __repr__(self) -> str:
        state = "forced" if self.done() else "running" if self.running() else "not forced"
        return f"<Delay {state}>"

    @property
    def _condition(self) -> NoReturn:  # type: ignore[override]
        raise TypeError(
            "a delay is computed by whoever forces it, so there is nothing to wait for: "
            "force() it, or use future()"
        )

    def done(self) -> bool:
        """Return whether it was forced."""
        return self._inner.done()

    def running(self) -> bool:
        """Return whether somebody forces it now."""
        return self.turns.holder() is not None

    def cancelled(self) -> bool:
        """Return False: a delay cannot be cancelled; not forcing it is enough."""
        return False

    def cancel(self) -> bool:
        """Return False: a delay cannot be cancelled; not forcing it is enough."""
        return False

    def result(self, timeout: float | None = None) -> T:
        """
        Return its value, as :func:`force` does.

        Args:
            timeout: Seconds to wait for another thread that forces it; None for any time.

        Raises:
            TimeoutError: If that is not over in time.
            Exception: What the call raised.
        """
        value: T = force(self, timeout)
        return value

    def fulfil(self, fn: Callable[[], T]) -> bool:
        """Fulfil it with what a call gives, for who has the turn; False if it has a value."""
        if self.done():
            return False
        self._inner.set_result(fn())
        self._call = None
        return True

    def _compute(self, until: float | None) -> None:
        """Make the call, or wait for the thread that does."""
        while not self.done():
            if self.turns.attempt(self._run) is None:
                self._wait(until)

    def _run(self) -> None:
        call = self._call
        if self.done() or call is None:
            return
        try:
            # A ^C is the caller's; another may force it again.
            value = call[0](*call[1], **call[2])
        except Exception as exc:
            self._inner.set_exception(exc)
        else:
            self._inner.set_result(value)
        self._call = None

    def _wait(self, until: float | None) -> None:
        me = get_ident()
        delay: Delay[Any] | None = self
        while delay is not None:
            runner = delay.turns.holder()
            if runner == me:
                raise CycleError("a delay is forced by its own computation")
            delay = None if runner is None else _waits.get(runner)
        if until is not None and time.monotonic() >= until:
            raise TimeoutError("the delay was not computed in time")
        check_may_wait()
        _waits[me] = self
        try:
            self.turns.wait(until)
        finally:
            _waits.pop(me, None)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a delay cannot be sent to a server: force it, and send its value")


def _end_of(value: Any) -> Any:
    """Return what chains of chains lead to."""
    while isinstance(value, Chain):
        value = value.object
    return value


def _ring(start: Promise[Any], target: Any) -> str | None:
    """Say how a promise would come to wait for itself, if it would."""
    steps = 1
    while isinstance(target, Promise):
        if target is start:
            return f"a ring of {steps} promise{'s' if steps > 1 else ''} chained to each other"
        target = target._link
        steps += 1
    return None


# ------------------------------------------------------------------------- making them


@overload
def promise() -> Promise[Any]: ...
@overload
def promise(of: type[T], /) -> Promise[T]: ...
def promise(of: type[Any] = object, /) -> Promise[Any]:  # noqa: ARG001 - for type checkers
    """
    Return a promise: a box that :func:`fulfill` puts a value in, and :func:`force` takes it from.

    ::

        import remote_executor.parallel as p

        box = p.promise()
        p.fulfill(box, 3)  # True
        p.force(box)  # 3

    It never leaves this process.

    Args:
        of: Which type its value will have, for type checkers: ``promise(int)``. Nothing checks it.
    """
    return Promise()


def future(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """
    Run ``fn(*args, **kwargs)`` on the current kernel.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            answer = p.future(pow, 2, 5)
            p.force(answer)  # 32

    Args:
        fn: What to call.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        The executor's own future, a ``concurrent.futures.Future``.

    Raises:
        NoKernelError: If there is no kernel.
        TypeError: If ``fn`` is not callable.
    """
    submit = direct_submit() or check_kernel().submitter()
    return submit(fn, *args, **kwargs)


def speculate(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """
    Run ``fn(*args, **kwargs)`` on the current kernel, with low priority where there is such.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            perhaps = p.speculate(pow, 2, 5)
            p.force(perhaps)  # 32

    Args:
        fn: What to call.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Raises:
        NoKernelError: If there is no kernel.
        TypeError: If ``fn`` is not callable.
    """
    with task_priority("low"):
        return check_kernel().submit(fn, *args, **kwargs)


def delay(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Delay[T]:
    """
    Return a call that is made when it is forced, in the thread that forces it, once.

    ::

        import remote_executor.parallel as p

        later = p.delay(pow, 2, 5)
        p.force(later)  # 32

    Args:
        fn: What to call.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Raises:
        TypeError: If ``fn`` is not callable.
    """
    if not callable(fn):
        raise TypeError(f"a delay must be of something callable, not {fn!r}")
    return Delay(fn, args, kwargs)


@overload
def chain(object: Chain[T] | Future[Chain[T]] | Future[T]) -> Chain[T]: ...
@overload
def chain(object: T) -> Chain[T]: ...
def chain(object: Any) -> Chain[Any]:
    """
    Return a link: forcing it forces the object, fulfilling it fulfils the object.

    ::

        import remote_executor.parallel as p

        box, other = p.promise(), p.promise()
        p.fulfill(box, p.chain(other))  # True
        p.fulfill(other, 3)  # True
        p.force(box)  # 3

    A promise, delay or future whose value is a chain is forced through it. A task may return a
    chain: with it travels the value, or the error, of a future or promise that is done, and the
    call of a delay that nobody has forced.

    Args:
        object: A promise, a delay, a future, another chain, or anything.
    """
    return Chain(object)


# ------------------------------------------------------------------------- using them


@overload
def force(object: Future[Chain[T]], timeout: float | None = None) -> T: ...
@overload
def force(object: Future[T], timeout: float | None = None) -> T: ...
@overload
def force(object: Chain[T], timeout: float | None = None) -> T: ...
@overload
def force(object: T, timeout: float | None = None) -> T: ...
def force(object: Any, timeout: float | None = None) -> Any:
    """
    Return the value of a promise, delay, future or chain; anything else is its own value.

    ::

        import remote_executor.parallel as p

        with p.make_kernel(2):
            p.force(p.future(pow, 2, 5), timeout=60)  # 32
            p.force(42)  # 42

    Args:
        object: What to force.
        timeout: Seconds to wait at most; None for as long as it takes.

    Raises:
        TimeoutError: It does not come in time.
        CycleError: It would wait for itself.
        Exception: If it failed; the same one each time.
    """
    until = deadline_of(timeout)
    seen: set[int] = set()
    while True:
        if isinstance(object, Chain):
            object = _end_of(object)
            linked = True
        else:
            linked = False
        if not isinstance(object, Future):
            return object
        if linked and id(object) in seen:
            raise CycleError("chains that lead back to where they began")
        seen.add(id(object))
        link = object._link if isinstance(object, Promise) else None
        if link is not None and not object.done():
            object = Chain(link)
            continue
        value = _value(object, until)
        if not isinstance(value, Chain):
            return value
        object = value


def _value(object: Future[Any], until: float | None) -> Any:
    """Return the value of one future, which may be a chain."""
    if isinstance(object, Delay):
        object._compute(until)
        object = object._inner
    left = None if until is None else max(0.0, until - time.monotonic())
    if not object.done():
        check_may_wait()
        link = object._await(until) if isinstance(object, Promise) else None
        if link is not None and not object.done():
            return Chain(link)  # it may be a delay, which must be forced
        left = None if until is None else max(0.0, until - time.monotonic())
    error = object.exception(left)
    if error is None:
        return _plain_result(object)
    first = object.__dict__.setdefault("_first_traceback", error.__traceback__)
    try:
        raise_kept(error, first)
    finally:
        del error, first, object  # else the exception would hold on to this frame


def _plain_result(future: Future[T]) -> T:
    """Return the value of a future that has one, also if that is a chain."""
    value: T = (SafeFuture if isinstance(future, SafeFuture) else Future).result(future)
    return value


def raise_kept(error: BaseException, first: TracebackType | None) -> NoReturn:
    """
    Raise an error that is kept to be raised again; each plain raise would lengthen its traceback.

    Args:
        error: The error.
        first: The traceback that it came with.

    Raises:
        Exception: That error.
    """
    try:
        raise error.with_traceback(first)
    finally:
        del error, first


def fulfill(object: Any, value: Any) -> bool:
    """
    Give a promise or an unforced delay its value.

    ::

        import remote_executor.parallel as p

        box = p.promise()
        p.fulfill(box, "first")  # True
        p.fulfill(box, "second")  # False
        p.force(box)  # 'first'

    Args:
        object: What to fulfil; of a chain, what it holds.
        value: The value, or a chain to where it will come from.

    Returns:
        True if it counts. False if it has a value, or somebody is about to give it one, and for
        futures (see their ``cancel``) and whatever else is not a promise.

    Raises:
        CycleError: If it would be chained to itself. It is not fulfilled then.
    """
    return fulfill_with(object, lambda: value)


def fulfill_with(object: Any, fn: Callable[[], Any]) -> bool:
    """
    Give a promise or an unforced delay a value that is computed only if it counts.

    ::

        import remote_executor.parallel as p

        box = p.promise()
        p.fulfill_with(box, lambda: 6 * 7)  # True
        p.force(box)  # 42

    While ``fn`` runs, here, others that try to fulfil the promise get False. If it raises, that
    goes to the caller and the promise is as before.

    Args:
        object: What to fulfil.
        fn: Called with no argument.

    Raises:
        CycleError: If it would be chained to itself.
        Exception: What ``fn`` raised.
    """
    object = _end_of(object)
    if not isinstance(object, (Promise, Delay)):
        return False
    box = object
    done = box.turns.attempt(lambda: box.fulfil(fn))
    return done is not None and done[0]


def fulfilled(object: Any) -> bool:
    """
    Return whether something has a value, or has failed. Never waits, raises or takes anything.

    ::

        import remote_executor.parallel as p

        box = p.promise()
        p.fulfilled(box)  # False
        p.fulfilled(42)  # True

    Args:
        object: A promise, delay, future or chain; True for anything else.
    """
    object = _end_of(object)
    if isinstance(object, Promise):
        return object.done() or object._link is not None
    return object.done() if isinstance(object, Future) else True
