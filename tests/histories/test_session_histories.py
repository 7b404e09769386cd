"""
Histories of a session: two ends, and links between them that are cut at any byte.

The machine plays both shells: it carries bytes from outboxes through pipes in memory to readers,
notices cuts early or late, connects anew, and asks after each step whether what arrived is what was
sent, each frame once and in order.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from remote_executor.errors import LocalProtocolError
from remote_executor.net.memory import Pipe
from remote_executor.wire.frames import LARGE, FrameReader, make_frame
from remote_executor.wire.messages import Kind
from remote_executor.wire.outbox import Outbox
from remote_executor.wire.session import ACK_SECONDS, Session, SessionState
from tests.support.scale import tries
from tests.support.wires import plain

GRACE = 10.0
BYTES = b"0123456789abcdef" * 8192
roles = st.sampled_from(["client", "server"])
counts = st.one_of(st.integers(1, 40), st.integers(1, 200_000))


class Shell:
    """One end of one link: what a real shell has besides the session."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.outbox = Outbox()
        self.reader = FrameReader(1 << 30)
        self.reader.open_up(1 << 30)

    def write(self, most):
        """Write at most so many bytes; return how many."""
        written = 0
        while self.outbox.size and written < most:
            chunk = self.outbox.chunk()
            chunk[0] = memoryview(chunk[0])[: most - written]
            count = self.pipe.send(chunk[:1])
            if not count:
                break
            self.outbox.sent(count)
            written += count
        return written

    def read(self, most):
        """Read at most so many bytes; return the frames that are whole now."""
        frames = []
        while most > 0:
            count = self.pipe.receive(self.reader.get_buffer()[:most])
            if count < 0:
                break
            if count == 0:
                raise ConnectionResetError("the other end closed the stream")
            frames += self.reader.filled(count)
            most -= count
        return frames


class End:
    """The client's or the server's end of the session."""

    def __init__(self):
        self.session = Session(0.0, GRACE)
        self.shell = None  # the link in use
        self.sent = []
        self.delivered = []

    def lose_link(self, now):
        if self.shell is not None:
            self.shell.pipe.close()
            self.shell = None
        self.session.link_lost(now)

    def take(self, frames, now):
        """Do with frames of the link in use what a shell does."""
        numbered = []
        for frame in frames:
            if frame.kind == Kind.ACK:
                self.session.acknowledged(frame.id)
            else:
                numbered.append(frame)
        if numbered:
            self.session.received(len(numbered), sum(f.size for f in numbered), now)
            self.delivered += map(plain, numbered)


class SessionHistory(RuleBasedStateMachine):
    """Two sessions, at most one link in use, and one that is being made."""

    @initialize()
    def begin(self):
        self.now = 0.0
        self.client, self.server = End(), End()
        self.ends = {"client": self.client, "server": self.server}
        self.knocking = None  # a link whose ATTACH the server has not read yet
        self.attaching = None  # the same, while the client waits for ATTACHED
        self.connect()

    # -------------------------------------------------------------------------- traffic

    @rule(role=roles, size=st.sampled_from([0, 9, 3000, LARGE + 1]), extra=st.integers(0, 2))
    def send(self, role, size, extra):
        self.ends[role].session.send(self.make(role, size, extra))

    @rule(role=roles, count=st.integers(100, 300), large=st.integers(0, 299))
    def send_many(self, role, count, large):
        frames = [
            self.make(role, 3000, 1) if number == large else self.make(role, 0, 0)
            for number in range(count)
        ]
        self.ends[role].session.send_all(frames)

    def make(self, role, size, extra):
        end = self.ends[role]
        number = len(end.sent)
        buffers = [BYTES[number % 7 :][: 50_000 * part] for part in range(extra)]
        frame = make_frame(Kind.TASK, number, BYTES[number % 5 :][:size], buffers)
        if end.session.state is not SessionState.EXPIRED:
            end.sent.append(plain(frame))
        return frame

    @rule(role=roles, most=counts)
    def write(self, role, most):
        self.do(role, "write", most)

    @rule(role=roles, most=counts)
    def read(self, role, most):
        self.do(role, "read", most)

    @rule(turns=st.integers(1, 4), most=counts)
    def carry(self, turns, most):
        """Bring bytes from either end to the other, a few times."""
        for _ in range(turns):
            self.do_carry(most)

    def do_carry(self, most):
        moved = self.do("client", "write", most) + self.do("server", "write", most)
        if self.knocking is not None:
            moved += self.do_answer(most)
        return moved + self.do("client", "read", most) + self.do("server", "read", most)

    def do(self, role, what, most):
        """Write or read at one end; return the bytes or frames moved, and act upon frames."""
        end = self.ends[role]
        shell = self.attaching if role == "client" and self.attaching else end.shell
        if shell is None:
            return 0
        try:
            result = getattr(shell, what)(most)
        except OSError:
            if shell is self.attaching:
                self.attaching = None
                shell.pipe.close()
            else:
                end.lose_link(self.now)
            return 1
        if what == "write":
            return result
        if shell is self.attaching and result:
            assert result[0].kind == Kind.ATTACHED
            self.attaching, end.shell = None, shell
            end.session.attach(shell.outbox, result[0].id)
            end.take(result[1:], self.now)
        else:
            end.take(result, self.now)
        return len(result)

    # ---------------------------------------------------------------------------- links

    @precondition(lambda self: self.client.shell is None and self.attaching is None)
    @rule()
    def connect(self):
        """The client makes a link; the server may think still that it has one."""
        if self.client.session.state is SessionState.EXPIRED:
            return
        if self.knocking is not None:
            self.knocking.pipe.close()
        ours, theirs = map(Shell, Pipe.pair())
        ours.outbox.put(make_frame(Kind.ATTACH, self.client.session.received_count))
        self.attaching, self.knocking = ours, theirs

    @precondition(lambda self: self.knocking is not None)
    @rule(most=counts)
    def answer(self, most):
        """The server reads from a link that is new."""
        self.do_answer(most)

    def do_answer(self, most):
        shell, server = self.knocking, self.server
        try:
            frames = shell.read(most)
        except OSError:
            self.knocking = None
            shell.pipe.close()
            return 1
        if not frames:
            return 0
        self.knocking = None
        (attach,) = frames
        if server.session.state is SessionState.EXPIRED:
            shell.pipe.close()
            with pytest.raises(LocalProtocolError):
                server.session.attach(shell.outbox, attach.id)
            return 1
        if server.shell is not None:
            server.shell.pipe.close()
        server.shell = shell
        shell.outbox.put(make_frame(Kind.ATTACHED, server.session.received_count))
        server.session.attach(shell.outbox, attach.id)
        return 1

    @precondition(lambda self: self.ends["client"].shell or self.attaching)
    @rule(role=roles, after=st.one_of(st.just(0), st.integers(0, 100), st.integers(0, 100_000)))
    def cut(self, role, after):
        """Cut the client's link, at once or so many bytes later; nobody need notice yet."""
        ours = self.attaching or self.client.shell
        theirs = self.knocking or self.server.shell
        shell = ours if role == "client" or theirs is None else theirs
        shell.pipe.cut(after)

    @rule(role=roles)
    def give_up_the_link(self, role):
        """One end thinks that the link is dead, rightly or not."""
        if role == "client" and self.attaching is not None:
            self.attaching.pipe.close()
            self.attaching = None
        self.ends[role].lose_link(self.now)

    # ----------------------------------------------------------------------------- time

    @rule(seconds=st.sampled_from([0.01, ACK_SECONDS, 1.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.tick()

    @precondition(lambda self: self.client.shell is None or self.server.shell is None)
    @rule()
    def the_grace_passes(self):
        self.now += GRACE
        self.tick()

    def tick(self):
        for end in self.ends.values():
            when = end.session.deadline()
            if when is not None and when <= self.now:
                end.session.tick(self.now)
                after = end.session.deadline()
                assert after is None or after > self.now, "a tick must settle what was due"
        if self.attaching is not None and self.client.session.state is SessionState.EXPIRED:
            self.attaching.pipe.close()
            self.attaching = None

    # ----------------------------------------------------------------- what always holds

    @invariant()
    def what_arrives_is_what_was_sent_once_and_in_order(self):
        for here, there in ((self.client, self.server), (self.server, self.client)):
            assert there.delivered == here.sent[: len(there.delivered)]
            assert there.session.received_count == len(there.delivered)

    @invariant()
    def the_sessions_are_sound(self):
        for end in self.ends.values():
            end.session.check()
            assert end.session.unacked_bytes >= 0
            assert (end.shell is None) == (end.session.outbox is None)
            if end.session.state is SessionState.EXPIRED:
                assert end.session.deadline() is None

    def teardown(self):
        """In the end, with a link that holds, all that was sent is there and acknowledged."""
        if any(end.session.state is SessionState.EXPIRED for end in self.ends.values()):
            return
        for end in self.ends.values():
            end.lose_link(self.now)
        self.attaching = self.knocking = None
        self.connect()
        moved = 1
        while moved:  # as long as anything does
            moved = self.do_carry(1 << 30)
            if not moved and any(end.session.deadline() for end in self.ends.values()):
                self.now += ACK_SECONDS
                self.tick()
                moved = 1
        for here, there in ((self.client, self.server), (self.server, self.client)):
            assert there.delivered == here.sent
            assert here.session.unacked_bytes == 0
            assert here.session.state is SessionState.ATTACHED


TestSessionHistory = SessionHistory.TestCase
TestSessionHistory.settings = settings(max_examples=tries(50), stateful_step_count=50)
