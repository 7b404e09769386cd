"""
How a client stands with one server: what is tried again, when, and what is final.

::

    IDLE -> CONNECTING -> SHAKING -> ATTACHING -> UP
              ^   |          |           |         |      cut, refused connection, silence
              |   v          v           v         v
            WAITING <------------------------------+      tried again, later and later
              |
              +-> REFUSED   it is final: the server is left out
              +-> CLOSED    nobody needs it any more

The one question "is this final?" is answered here, by :meth:`Connection._is_final`, for every
failure:

- What may pass by itself (nobody listens, no descriptors, the name service is away) is tried again
  without end.
- What lasts (a refusal, a mismatch, a wrong secret) is final at once from a server that has never
  served this client: it is a mistake in the program or its settings, and the user shall hear of it.
- The same from a server that *has* served this client is final only when the grace is over. Until
  then whoever answers at the address may be somebody else: a proxy that says 503, another program
  that has the port for a moment, a resolver that is away.
- What this end itself cannot do (its mechanism does not wrap what is to be sent) is final at once.
- A name that nobody knows counts as lasting; but where the user has said how long to wait for
  servers, the name is asked for that long, since it may be on its way into the name service.

A cut shows above only if the server no longer knows the session, or the grace is over: then the
session is lost. "I do not know your session" is believed from the server that had it, and from one
that was started anew in its place. A third one (behind a load balancer, or with the port for a
moment) says nothing about the session, and ours is tried again.

The machine has no socket and no clock. The shell, :mod:`remote_executor.client.peer`, tells what
happens and carries out, in order, the actions that each method returns.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from remote_executor.errors import FarmError

__all__ = [
    "MOST_NONSENSE",
    "MOST_STARTS",
    "Action",
    "Attach",
    "Connection",
    "ConnectionState",
    "ConnectionStatus",
    "Drop",
    "Failure",
    "Lasts",
    "Lose",
    "Open",
    "Refuse",
    "Use",
]

FIRST_PAUSE = 0.05
"""Seconds until the first new try: a server that is started anew is back soon."""

LAST_PAUSE = 3.0
"""The longest time in seconds between two tries."""

PAUSE_GROWTH = 1.6

MOST_STARTS = 6
"""How often in a row a server of our own is started that ends before it has done a task."""

MOST_NONSENSE = 3
"""How many messages without sense, each of which costs a session, make a server be left out. One
may be an accident of the line; a task survives three lost servers unless it is told otherwise."""

NONSENSE_SECONDS = 60.0
"""... if they come within so many seconds."""


class ConnectionState(enum.Enum):
    """How the client stands with a server."""

    IDLE = "idle"
    CONNECTING = "connecting"
    SHAKING = "shaking hands"
    ATTACHING = "attaching"
    UP = "up"
    WAITING = "waiting to try again"
    REFUSED = "refused"
    CLOSED = "closed"


IDLE = ConnectionState.IDLE
CONNECTING = ConnectionState.CONNECTING
SHAKING = ConnectionState.SHAKING
ATTACHING = ConnectionState.ATTACHING
UP = ConnectionState.UP
WAITING = ConnectionState.WAITING
REFUSED = ConnectionState.REFUSED
CLOSED = ConnectionState.CLOSED

MOVES = {
    IDLE: (CONNECTING, REFUSED, CLOSED),
    CONNECTING: (SHAKING, WAITING, REFUSED, CLOSED),
    SHAKING: (ATTACHING, WAITING, REFUSED, CLOSED),
    ATTACHING: (UP, WAITING, REFUSED, CLOSED),
    UP: (WAITING, REFUSED, CLOSED),
    WAITING: (CONNECTING, REFUSED, CLOSED),
    REFUSED: (CLOSED,),
    CLOSED: (),
}
UNDER_WAY = (CONNECTING, SHAKING, ATTACHING, UP)
"""In one of these states something can fail; afterwards news of a failure comes too late."""

OVER = (REFUSED, CLOSED)


class Lasts(enum.Enum):
    """Whether a failure can go away without anybody doing something."""

    NO = "it may pass by itself"
    NAME = "nobody knows the name, yet"
    YES = "it lasts"
    OURS = "we ourselves cannot go on"


class Failure(NamedTuple):
    """
    What went wrong on the way to a server, or with the link to it.

    Attributes:
        lasts: Whether it may pass by itself.
        reason: What happened, in words.
        error: What to raise if it is final; the first cause is its ``__cause__``.
    """

    lasts: Lasts
    reason: str
    error: FarmError | None = None


class _Value:
    """
    Equal to another of its class with the same fields.

    No dataclass, since to make each class of these takes half a millisecond at every import.
    """

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self.__slots__)))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class Open(_Value):
    """Begin to connect; then tell :meth:`Connection.opened` or :meth:`Connection.failed`."""

    __slots__ = ()


class Attach(_Value):
    """
    Ask the server for our session; then tell :meth:`Connection.attached`.

    Attributes:
        resume: Whether it is to go on with the one that there is, rather than begin one.
    """

    __slots__ = ("resume",)

    def __init__(self, resume: bool) -> None:
        self.resume = resume


class Use(_Value):
    """
    The session has a link: write what waits.

    Attributes:
        resumed: False if the session has begun just now.
    """

    __slots__ = ("resumed",)

    def __init__(self, resumed: bool) -> None:
        self.resumed = resumed


class Drop(_Value):
    """Let go of the link, or of what there is of it; the session stays."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Lose(_Value):
    """The session is gone, with all that was under way in it."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Refuse(_Value):
    """
    There is no use in trying again: the server is left out.

    Attributes:
        failure: Why.
    """

    __slots__ = ("failure",)

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


Action = Open | Attach | Use | Drop | Lose | Refuse


class ConnectionStatus(NamedTuple):
    """
    How a client stands with a server at one moment.

    Attributes:
        state: Where it stands.
        trouble: Why there is no link, in words; None while there is one.
        served: Whether a server has ever served this client here.
        has_session: Whether there is a session, with or without a link.
        failures: Failures in a row.
        grace_ends: When a session without a link is lost, in monotonic seconds.
    """

    state: ConnectionState
    trouble: str | None
    served: bool
    has_session: bool
    failures: int
    grace_ends: float | None


class Connection:
    """
    Decide how a client gets on with one server.

    Tell what happens by the methods; carry out what they return, in order; call :meth:`tick` when
    :meth:`deadline` has come.

    Args:
        grace: Seconds for which a server that has served is tried again before it is lost.
        patience: Seconds for which a name that nobody knows is asked; None to give up at once.
        own: Whether it is a server of our own at the other end of a socket pair: it ends with its
            link, and is started only so often in vain.
        launched: Whether whoever answers was started by us and for us, so that one that does not
            know the session can only have been started anew.
    """

    __slots__ = (
        "_first_try",
        "_grace",
        "_nonsense",
        "_patience",
        "_pause",
        "_place",
        "_server",
        "failures",
        "grace_ends",
        "has_session",
        "launched",
        "own",
        "retry_at",
        "served",
        "state",
        "trouble",
    )

    def __init__(
        self,
        grace: float,
        *,
        patience: float | None = None,
        own: bool = False,
        launched: bool = False,
    ) -> None:
        self.state = IDLE
        self.own = own
        self.launched = launched
        self.trouble: str | None = None
        """Why there is no link, in words."""
        self.served = False
        """Whether a session has ever begun here."""
        self.has_session = False
        """Whether there is a session that has begun and is not lost."""
        self.failures = 0
        """Failures in a row."""
        self.retry_at: float | None = None
        """When to try again, in monotonic seconds."""
        self.grace_ends: float | None = None
        """Until when failures of a server that has served are not final; None while it is up."""
        self._grace = grace
        self._patience = patience
        self._pause = FIRST_PAUSE
        self._first_try: float | None = None
        self._server = ""
        self._place = ""
        self._nonsense: tuple[float, ...] = ()

    def __repr__(self) -> str:
        trouble = f", {self.trouble}" if self.trouble else ""
        return f"<Connection {self.state.value}{trouble} failures={self.failures}>"

    # ------------------------------------------------------------------- the way up

    def start(self, now: float) -> list[Action]:
        """Begin."""
        self._first_try = now
        return self._open()

    def opened(self) -> list[Action]:
        """There is a stream: the handshake begins."""
        self._move(SHAKING)
        return []

    def proved(self) -> list[Action]:
        """Both ends have proved who they are."""
        self._move(ATTACHING)
        return [Attach(self.has_session)]

    def attached(self, resumed: bool, server: str, place: str, now: float) -> list[Action]:
        """
        The server has answered :class:`Attach`.

        Args:
            resumed: Whether it goes on with the session that we asked for.
            server: What names this server's process; empty if it does not say.
            place: Where it listens, the same when it is started anew; empty if it does not say.
            now: Monotonic time in seconds.
        """
        if self.has_session and not resumed:
            if self._is_another(server, place):
                where = f" ({place})" if place else ""
                reason = f"another server answers there{where}, which does not have our session"
                return self.failed(Failure(Lasts.NO, reason), now)
            words = "it does not know our session"
            if server != self._server or not server:
                words += ": it was started anew"
            return [self._lose(words), Attach(resume=False)]
        if resumed and not self.has_session:
            reason = "it resumes a session that has never begun"
            return self.failed(Failure(Lasts.YES, reason), now)
        self._move(UP)
        self.trouble = self.grace_ends = None
        self._server, self._place = server, place
        if not self.own:
            self.failures = 0  # one of our own has to do something first
        self.served = self.has_session = True
        return [Use(resumed)]

    def worked(self) -> None:
        """The server has done a task."""
        self.failures = 0

    def _is_another(self, server: str, place: str) -> bool:
        """Whether this is neither the server that had our session nor one in its place."""
        if self.launched or self.own or not (server and self._server):
            return False
        return server != self._server and (not place or place != self._place)

    # ---------------------------------------------------------------------- troubles

    def failed(self, failure: Failure, now: float) -> list[Action]:
        """
        The way to the server has failed, or the link to it; the session may go on over another.

        Args:
            failure: What it was.
            now: Monotonic time in seconds.
        """
        if self.state not in UNDER_WAY:
            return []
        actions = self._drop(failure.reason, now)
        final = self._is_final(failure, now)
        if self.has_session and (self.own or final):  # with our own, the pair was the only way
            actions.append(self._lose(failure.reason))
        if final:
            return actions + self._refuse(failure)
        self._wait(now)
        return actions

    def goodbye(self, now: float) -> list[Action]:
        """The server says that it ends, and the session with it."""
        if self.state not in UNDER_WAY:
            return []
        actions = self._drop("the server said goodbye", now)
        if self.has_session:
            actions.append(self._lose("the server was shut down"))
        self._wait(now)
        return actions

    def talked_nonsense(self, failure: Failure, now: float) -> list[Action]:
        """
        The server, which has proved who it is, has sent a message that makes no sense.

        Nothing that it has said can be trusted, so the session is lost. It may try again after a
        while, but not for ever.

        Args:
            failure: What it was.
            now: Monotonic time in seconds.
        """
        if self.state not in UNDER_WAY:
            return []
        recent = (when for when in self._nonsense if now - when < NONSENSE_SECONDS)
        self._nonsense = (*recent, now)
        actions = self._drop(failure.reason, now)
        if self.has_session:
            actions.append(self._lose(failure.reason))
        if len(self._nonsense) >= MOST_NONSENSE:
            return actions + self._refuse(failure)
        self._pause = LAST_PAUSE  # others may have its tasks meanwhile
        self._wait(now)
        return actions

    def leave_out(self, failure: Failure, now: float) -> list[Action]:
        """
        Do without this server, whatever it says. Who decides that sees to what was under way there.

        Args:
            failure: Why.
            now: Monotonic time in seconds.
        """
        if self.state in OVER:
            return []
        actions = self._drop(failure.reason, now) if self.state in UNDER_WAY else []
        self.has_session = False
        return actions + self._refuse(failure)

    def close(self) -> None:
        """Nobody needs it any more."""
        if self.state is not CLOSED:
            self._move(CLOSED)
        self.has_session = False
        self.retry_at = self.grace_ends = None

    def _is_final(self, failure: Failure, now: float) -> bool:
        """Whether there is no use in trying again."""
        if self.own:
            # Whoever waits for it would wait for ever.
            lasts = failure.lasts is Lasts.YES and not self.served
            return lasts or self.failures >= MOST_STARTS
        if failure.lasts is Lasts.NO:
            return False
        if failure.lasts is Lasts.OURS:
            return True  # no other server's words: the next try would end in the same way
        if self.grace_ends is not None:
            return now >= self.grace_ends
        if failure.lasts is Lasts.NAME and self._patience is not None:
            assert self._first_try is not None
            return now >= self._first_try + self._patience
        return True

    def _drop(self, reason: str, now: float) -> list[Action]:
        self.trouble = reason
        if not self.failures:
            self._pause = FIRST_PAUSE
        self.failures += 1
        if self.state is UP:
            self.grace_ends = now + self._grace
        return [Drop(reason)]

    def _lose(self, reason: str) -> Lose:
        self.has_session = False
        return Lose(reason)

    def _refuse(self, failure: Failure) -> list[Action]:
        self._move(REFUSED)
        self.trouble = failure.reason
        self.retry_at = self.grace_ends = None
        return [Refuse(failure)]

    def _wait(self, now: float) -> None:
        self._move(WAITING)
        self.retry_at = now + self._pause
        self._pause = min(LAST_PAUSE, self._pause * PAUSE_GROWTH)

    def _open(self) -> list[Action]:
        self._move(CONNECTING)
        self.retry_at = None
        return [Open()]

    def _move(self, state: ConnectionState) -> None:
        assert state in MOVES[self.state], f"{self.state.value} cannot become {state.value}"
        self.state = state

    # -------------------------------------------------------------------------- time

    def deadline(self) -> float | None:
        """When :meth:`tick` wants to be called next, in monotonic seconds."""
        when = self.retry_at
        if self.has_session and self.grace_ends is not None:
            when = self.grace_ends if when is None else min(when, self.grace_ends)
        return when

    def tick(self, now: float) -> list[Action]:
        """Do what is due: give up a session without a link, and try again."""
        actions: list[Action] = []
        if self.has_session and self.grace_ends is not None and now >= self.grace_ends:
            lost = self._lose(f"no link for {self._grace:g} s ({self.trouble})")
            if self.state in (SHAKING, ATTACHING):
                # It is under way with a session that is given up.
                actions += self._drop(lost.reason, now)
                self._wait(now)
            actions.append(lost)
        if self.retry_at is not None and now >= self.retry_at:
            actions += self._open()
        return actions

    def status(self) -> ConnectionStatus:
        """Return how it stands, as frozen values."""
        return ConnectionStatus(
            state=self.state,
            trouble=self.trouble,
            served=self.served,
            has_session=self.has_session,
            failures=self.failures,
            grace_ends=self.grace_ends,
        )

    def check(self) -> None:
        """State what must always hold."""
        assert (self.retry_at is not None) == (self.state is WAITING)
        assert FIRST_PAUSE <= self._pause <= LAST_PAUSE
        assert not self.has_session or self.served
        assert not (self.own and self.has_session and self.state is not UP)
        if self.state is UP:
            assert self.has_session
            assert self.trouble is None
            assert self.grace_ends is None
        elif self.has_session:
            assert self.grace_ends is not None
        if self.state in OVER:
            assert not self.has_session
            assert self.deadline() is None
