"""
What an exception on the way to a server means, in the core's words: does it last, or may it pass?

The only place where that is decided. What follows from it (another try, or the end) is decided by
:mod:`remote_executor.core.connection`, which also knows whether the server has served before.

::

    step         may pass by itself             nobody knows the name   lasts
    ----------   ----------------------------   ---------------------   ------------------------
    CONNECT      any OSError but those that     gaierror but those of   what is no OSError: a host
                 say "such a socket cannot be"  a resolver in trouble   name that cannot be one
    AUTH         OSError of shortage, of time                           files that are missing or
                 and of networks                                        forbidden; all the rest
    LAUNCH       the same, and LaunchFailed                             other LaunchFailed, and
                 that says so itself                                    all the rest
    LINK         OSError                                                refusals, mismatches, words
                                                                        that are not ours
    WRAP                                                                all: this end cannot go on
"""

from __future__ import annotations

import enum
import errno
import socket

from remote_executor.core.connection import Failure, Lasts
from remote_executor.errors import AuthenticationFailed, ConnectionFailed, FarmError, LaunchFailed

__all__ = ["RESOLVER_AWAY", "SHORTAGES", "Step", "may_pass", "trouble_of"]


class Step(enum.Enum):
    """What was being done when it happened."""

    CONNECT = "cannot connect"
    AUTH = "cannot prove who we are"
    LAUNCH = "no server can be started"
    LINK = "the connection broke"
    WRAP = "what is to be sent cannot be wrapped"


RESOLVER_AWAY = (socket.EAI_AGAIN, socket.EAI_MEMORY, socket.EAI_SYSTEM)
"""The resolver has not asked, or got no answer: that says nothing about the name."""

SHORTAGES = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ESTALE,
    }
)
NETWORK = frozenset(
    {
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ENOTCONN,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)
MAY_PASS = SHORTAGES | NETWORK

NO_SUCH_SOCKET = frozenset(
    {
        errno.EAFNOSUPPORT,
        errno.EINVAL,
        errno.ENAMETOOLONG,
        errno.EPFNOSUPPORT,
        errno.EPROTONOSUPPORT,
        errno.ESOCKTNOSUPPORT,
    }
)
"""This system has no sockets of that kind, or no socket can have that address."""


def trouble_of(exc: BaseException, step: Step, server: str) -> Failure:
    """
    Say what an exception means for the connection to a server.

    Args:
        exc: What was raised.
        step: What was being done.
        server: The server's name, for the error.

    Returns:
        Whether it lasts, the words, and the error to raise if it is final. The exception is that
        error's ``__cause__``, or the error itself.
    """
    if step is Step.WRAP and isinstance(exc, FarmError):
        return Failure(Lasts.OURS, str(exc), exc)
    if isinstance(exc, FarmError):
        return _ours(exc, server)
    words = f"{exc}" or type(exc).__name__
    if isinstance(exc, socket.gaierror):
        return _of_resolver(exc, server)
    lasts = Lasts.NO if may_pass(exc, step) else Lasts.YES
    if not isinstance(exc, (OSError, ValueError)):
        words = f"{type(exc).__name__}: {exc}"
    kind = AuthenticationFailed if step is Step.AUTH else ConnectionFailed
    error = kind(server, words)
    error.__cause__ = exc
    return Failure(lasts, f"{step.value}: {words}", error)


def _ours(exc: FarmError, server: str) -> Failure:
    """An error of our own: a peer has been understood, or a launch says why it failed."""
    if isinstance(exc, LaunchFailed):
        lasts = Lasts.NO if exc.may_pass else Lasts.YES
        return Failure(lasts, str(exc), exc)
    if isinstance(exc, ConnectionFailed):
        return Failure(Lasts.YES, str(exc), exc)
    error = ConnectionFailed(server, str(exc))
    error.__cause__ = exc
    return Failure(Lasts.YES, str(exc), error)


def _of_resolver(exc: socket.gaierror, server: str) -> Failure:
    if exc.errno in RESOLVER_AWAY:
        words, lasts = f"its name cannot be looked up: {exc.strerror}", Lasts.NO
    else:
        words, lasts = f"there is no host of that name ({exc.strerror})", Lasts.NAME
    error = ConnectionFailed(server, words)
    error.__cause__ = exc
    return Failure(lasts, words, error)


def may_pass(exc: BaseException, step: Step) -> bool:
    """
    Whether the same may go well a moment later, if nobody changes anything.

    Args:
        exc: What was raised, and is no error of ours.
        step: What was being done.
    """
    if isinstance(exc, (MemoryError, ConnectionError, TimeoutError)):
        return True
    if isinstance(exc, OSError):
        if step is Step.LINK:
            return True
        if step is Step.CONNECT:
            # Without a number: a path that is too long for a Unix socket.
            return exc.errno is not None and exc.errno not in NO_SUCH_SOCKET
        return exc.errno in MAY_PASS
    # There are too many threads now.
    return type(exc) is RuntimeError and "thread" in str(exc)
