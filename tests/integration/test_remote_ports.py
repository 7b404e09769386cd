"""The ports here that lead to servers elsewhere: each end proves its own secret."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest

from remote_executor import AuthenticationFailed, FarmExecutor, ping, server_status, start_server
from remote_executor.launch.remote import MOST_COMING, _Door
from remote_executor.net.tokens import Token, make_token
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


class Way:
    """Leads to a server on this host, as one over SSH leads to one elsewhere."""

    name = "elsewhere"

    def __init__(self, address, secret):
        self.address, self.secret = address, secret
        self.opened = 0
        self.heard = []

    def another_stream(self):
        self.opened += 1
        if self.address is None:
            raise ConnectionError("there is no connection")
        return socket.create_connection((self.address.host, self.address.port))

    def mechanism(self):
        return Token(self.secret).client("")


@contextlib.contextmanager
def port_to(server, secret, token):
    way = Way(server and server.address, secret)
    door = _Door(way, Token(token).server())
    try:
        yield way, door
    finally:
        door.close()


@pytest.fixture(scope="module")
def there(_leak_baseline):
    """Return a server that knows a secret of its own, and that secret."""
    secret = make_token()
    with start_server(workers=2, auth=secret) as server:
        yield server, secret


def test_a_client_proves_the_users_token_and_reaches_the_server(there):
    token = make_token()
    with port_to(*there, token) as (_, door):
        assert ping(door.address, auth=token)
        with FarmExecutor(addresses=[door.address], auth=token) as executor:
            assert list(executor.map(tasks.square, range(200))) == [n * n for n in range(200)]
            block = os.urandom(3_000_000)
            assert executor.submit(tasks.same, block).result(LIMIT) == block


@pytest.mark.parametrize("wrong", ["the server's", "another"])
def test_who_does_not_know_the_users_token_does_not_even_reach_the_server(there, wrong):
    server, secret = there
    with port_to(server, secret, make_token()) as (way, door):
        with pytest.raises(AuthenticationFailed, match="token"):
            server_status(door.address, auth=secret if wrong == "the server's" else make_token())
        assert way.opened == 0


def test_a_server_that_does_not_know_its_secret_is_not_spoken_to(there):
    token = make_token()
    with port_to(there[0], make_token(), token) as (way, door):
        assert not ping(door.address, timeout=scaled(0.5), auth=token)
        assert way.opened


def test_the_token_before_is_let_in_too(there):
    new, old = make_token(), make_token()
    way = Way(there[0].address, there[1])
    door = _Door(way, Token(new, old).server())
    try:
        assert ping(door.address, auth=old)
        assert ping(door.address, auth=new)
    finally:
        door.close()


def test_a_link_that_is_cut_is_resumed_through_the_port(there):
    token = make_token()
    with port_to(*there, token) as (_, door):
        with FarmExecutor(1, addresses=[door.address], auth=token) as executor:
            before = executor.submit(os.getpid).result(LIMIT)
            with door._lock:
                pairs = list(door._pairs)
            for pair in pairs:
                for each in pair:
                    with contextlib.suppress(OSError):  # the first one's end ends the other
                        each.shutdown(socket.SHUT_RDWR)
            assert executor.submit(os.getpid).result(LIMIT) == before


def test_who_says_nothing_takes_no_more_than_so_many_places(there):
    token = make_token()
    with port_to(*there, token) as (_, door), contextlib.ExitStack() as silent:
        for _ in range(MOST_COMING + 5):
            place = (door.address.host, door.address.port)
            silent.enter_context(socket.create_connection(place))
        wait_until(lambda: len(door._coming) == MOST_COMING)
        silent.close()
        wait_until(lambda: not door._coming)
        assert ping(door.address, auth=token)


def test_at_its_end_nothing_is_left(there):
    token = make_token()
    before = threading.active_count()
    with port_to(*there, token) as (_, door):
        executor = FarmExecutor(1, addresses=[door.address], auth=token, session_grace=0.5)
        executor.submit(abs, -1).result(LIMIT)
    executor.shutdown(cancel_futures=True)
    wait_until(lambda: threading.active_count() <= before)
