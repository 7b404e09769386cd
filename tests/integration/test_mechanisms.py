"""Mechanisms of a site's own: hooks that change bytes, errors in them, names that they learn."""

from __future__ import annotations

import pytest

from remote_executor import (
    AuthenticationFailed,
    FarmExecutor,
    NoServerError,
    ServerLost,
    Token,
    ping,
    start_server,
)
from tests.support import tasks
from tests.support.faults import Proxy
from tests.support.mechanisms import MARK, Packed, Trusting
from tests.support.scale import scaled

LIMIT = scaled(20)


def test_A5_a_hook_on_both_sides_may_change_what_travels():
    """Here it compresses; what is large travels in pieces."""
    with start_server(workers=1, auth=Packed()) as server:
        with Proxy(str(server.address)) as proxy:
            with FarmExecutor(addresses=[proxy.address], auth=Packed()) as executor:
                data = bytes(20_000_000)
                assert executor.submit(tasks.same, data).result(LIMIT) == data
                assert list(executor.map(abs, range(-500, 0))) == list(range(500, 0, -1))
            assert len(proxy.sent[0]) < 1_000_000
            assert len(proxy.received[0]) < 1_000_000


def test_A6_an_error_in_the_servers_hook_is_the_tasks_error_and_the_server_lives():
    """The task is tried as often as one whose server is lost; the next one is served."""
    with start_server(workers=1, auth=Packed("server")) as server:
        with FarmExecutor(addresses=[server.address], auth=Packed(), retries=1) as executor:
            assert executor.submit(tasks.same, 1).result(LIMIT) == 1
            error = executor.submit(bytes.replace, MARK[:-1] + b"*", b"*", b"t").exception(LIMIT)
            assert isinstance(error, ServerLost)
            assert executor.submit(tasks.same, 2).result(LIMIT) == 2
        assert ping(server.address, auth=Packed())


def test_A6_an_error_in_the_clients_hook_ends_the_use_of_that_server():
    with start_server(workers=1, auth=Packed()) as server:
        with FarmExecutor(addresses=[server.address], auth=Packed("client")) as executor:
            assert executor.submit(tasks.same, 1).result(LIMIT) == 1
            error = executor.submit(tasks.same, MARK).exception(LIMIT)
        assert isinstance(error, (AuthenticationFailed, NoServerError))
        assert "cannot be wrapped: ValueError: there is something that cannot be sent" in str(error)
        assert ping(server.address, auth=Packed())


def test_A8_A10_a_mechanism_is_given_the_servers_name():
    with start_server("localhost", 0, workers=1, auth=Trusting()) as server:
        port = server.address.port
        assert ping(f"localhost:{port}", auth=Trusting())
        with FarmExecutor(addresses=[f"127.0.0.1:{port}"], auth=Trusting()) as executor:
            error = executor.submit(tasks.same, 1).exception(LIMIT)
        assert isinstance(error, AuthenticationFailed)
        assert "I am localhost, and not 127.0.0.1" in str(error)
        with FarmExecutor(addresses=[f"LOCALHOST:{port}"], auth=Trusting()) as executor:
            error = executor.submit(tasks.same, 1).exception(LIMIT)
        assert isinstance(error, AuthenticationFailed)
        assert "no key for that host" in str(error)


def test_A9_the_settings_of_an_executor_are_its_own():
    """What is given to one executor wins over the environment, and touches no other."""
    with start_server(
        workers=1, auth=["a new secret in words", "an old secret in words"]
    ) as server:
        for auth in (
            "a new secret in words",
            b"an old secret in words",
            Token("a new secret in words"),
            ["an old secret in words"],
        ):
            with FarmExecutor(addresses=[server.address], auth=auth) as executor:
                assert executor.submit(tasks.same, 1).result(LIMIT) == 1
        assert not ping(server.address, timeout=scaled(3))


@pytest.mark.parametrize("auth", [[], "", ["a", "b", "c"], [1], 5, object()])
def test_what_no_mechanism_can_be(auth):
    with pytest.raises((ValueError, TypeError)):
        FarmExecutor(addresses=["127.0.0.1:1"], auth=auth)
    with pytest.raises((ValueError, TypeError)):
        start_server(workers=1, auth=auth)


def test_nothing_secret_is_shown():
    assert "secret" not in repr(Token("a secret in words", "another secret in words"))
    assert "file" in repr(Token())
