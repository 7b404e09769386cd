"""What a result becomes that cannot be rebuilt here: an error, whatever its pickle is."""

from __future__ import annotations

import os
import warnings

import pytest

from remote_executor.client.results import open_failure, pid_of, unloadable
from remote_executor.payload.failures import encode_failure
from remote_executor.task_errors import RemoteError
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind


class Driver:
    """Knows one server, whose libraries are others."""

    def libraries(self):
        return [("node1", {"numpy": "0.0.1"})]


@pytest.mark.parametrize(
    "body",
    [b"", b"\x80", b"nonsense", b"\x80\x05i\\K\nx\n.", b"\x80\x05cnumpy\n", bytes(range(256))],
)
def test_a_pickle_that_is_no_pickle_is_an_error_all_the_same(body):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what reads the names in it warns of odd escapes
        found = unloadable(ValueError("broken"), body, Driver())

    assert isinstance(found, RemoteError)
    assert "cannot be unpickled here: broken" in str(found)
    assert isinstance(found.__cause__, ValueError)


def test_a_failure_says_in_which_process_it_was():
    summary, pickled = encode_failure(KeyError("x"))
    frame = make_frame(Kind.FAILURE, 1, summary, (pickled,))

    assert pid_of(frame) == os.getpid()
    assert type(open_failure(frame)) is KeyError
    assert pid_of(make_frame(Kind.FAILURE, 1, b"{}")) is None
