"""Why an executor does without a server."""

from __future__ import annotations

import pytest

from remote_executor.client.refusals import anew, of_broken
from remote_executor.payload.failures import encode_failure
from remote_executor.task_errors import InitializerFailed, NoServerError
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind, encode_fields


def broken(error=None, **fields):
    if error is not None:
        summary, pickled = encode_failure(error)
        return make_frame(Kind.BROKEN, 0, summary, (pickled,))
    return make_frame(Kind.BROKEN, 0, encode_fields(fields), (b"",))


def test_an_initializer_that_raised_is_told_with_its_exception():
    found = of_broken("a:1", "node1", broken(ValueError("no licence")), initializer=True)

    assert isinstance(found, InitializerFailed)
    assert found.host == "node1"
    assert isinstance(found.__cause__, ValueError)


def test_without_an_initializer_none_has_failed_whatever_the_server_says():
    found = of_broken("a:1", "node1", broken(ValueError("no licence")), initializer=False)

    assert isinstance(found, NoServerError)
    assert found.addresses == ("a:1",)
    assert "there is none: no licence" in str(found)


@pytest.mark.parametrize("initializer", [True, False])
def test_workers_that_cannot_be_started_are_no_initializers_fault(initializer):
    frame = broken(stage="start", message="EAGAIN 8 times")
    found = of_broken("a:1", "node1", frame, initializer)

    assert isinstance(found, NoServerError)
    assert str(found) == "no server (a:1): node1 can start no worker: EAGAIN 8 times"


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1]", b"[" * 100_000, b"\xff\xfe"])
def test_words_that_cannot_be_read_are_an_error_all_the_same(body):
    frame = make_frame(Kind.BROKEN, 0, body)
    assert isinstance(of_broken("a:1", "node1", frame, initializer=False), NoServerError)
    assert isinstance(of_broken("a:1", "node1", frame, initializer=True), InitializerFailed)


def test_a_copy_of_an_error_has_its_words_and_cause_and_notes_and_no_frames():
    error = InitializerFailed("node1", "it raised")
    error.__cause__ = ValueError(1)
    error.__dict__["__notes__"] = ["a note"]
    try:
        raise error
    except InitializerFailed:
        pass

    fresh = anew(error)
    fresh.__notes__.append("another")

    assert fresh is not error
    assert str(fresh) == str(error)
    assert fresh.__cause__ is error.__cause__
    assert fresh.__traceback__ is None
    assert error.__notes__ == ["a note"]


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def test_what_cannot_be_copied_is_given_as_it_is():
    error = Odd(1, 2)
    assert anew(error) is error
