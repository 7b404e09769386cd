"""Each thing that can be raised on the way to a server has one class: it may pass, or it lasts."""

from __future__ import annotations

import errno
import socket

import pytest

from remote_executor.client.troubles import Step, may_pass, trouble_of
from remote_executor.core.connection import Lasts
from remote_executor.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    LaunchFailed,
    ProtocolMismatch,
    RemoteProtocolError,
)


def os_error(number):
    return OSError(number, "words")


def launch_failed(may_pass):
    error = LaunchFailed("node", "resolve", "cannot be looked up")
    error.may_pass = may_pass
    return error


@pytest.mark.parametrize(
    ("exc", "step", "lasts"),
    [
        # connecting
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Step.CONNECT, Lasts.NO),
        (os_error(errno.EHOSTUNREACH), Step.CONNECT, Lasts.NO),
        (os_error(errno.ENOENT), Step.CONNECT, Lasts.NO),  # no Unix socket there, yet
        (os_error(errno.EACCES), Step.CONNECT, Lasts.NO),
        (os_error(errno.EMFILE), Step.CONNECT, Lasts.NO),
        (TimeoutError("timed out"), Step.CONNECT, Lasts.NO),
        (MemoryError(), Step.CONNECT, Lasts.NO),
        (RuntimeError("can't start new thread"), Step.CONNECT, Lasts.NO),
        (os_error(errno.EAFNOSUPPORT), Step.CONNECT, Lasts.YES),
        (OSError("AF_UNIX path too long"), Step.CONNECT, Lasts.YES),
        (UnicodeError("label too long"), Step.CONNECT, Lasts.YES),
        (KeyError("x"), Step.CONNECT, Lasts.YES),
        (SystemExit(1), Step.CONNECT, Lasts.YES),
        # names
        (socket.gaierror(socket.EAI_AGAIN, "again"), Step.CONNECT, Lasts.NO),
        (socket.gaierror(socket.EAI_SYSTEM, "system"), Step.CONNECT, Lasts.NO),
        (socket.gaierror(socket.EAI_MEMORY, "memory"), Step.LAUNCH, Lasts.NO),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), Step.CONNECT, Lasts.NAME),
        (socket.gaierror(socket.EAI_FAIL, "failed"), Step.CONNECT, Lasts.NAME),
        (socket.gaierror(socket.EAI_FAMILY, "family"), Step.CONNECT, Lasts.NAME),
        # proofs
        (os_error(errno.EMFILE), Step.AUTH, Lasts.NO),
        (os_error(errno.ESTALE), Step.AUTH, Lasts.NO),
        (TimeoutError("no KDC"), Step.AUTH, Lasts.NO),
        (ConnectionError("the KDC is away"), Step.AUTH, Lasts.NO),
        (os_error(errno.ENOENT), Step.AUTH, Lasts.YES),
        (os_error(errno.EACCES), Step.AUTH, Lasts.YES),
        (ValueError("holds no token"), Step.AUTH, Lasts.YES),
        # launches
        (KeyError("getpwuid(): uid not found: 7"), Step.LAUNCH, Lasts.YES),
        (os_error(errno.EAFNOSUPPORT), Step.LAUNCH, Lasts.YES),
        (os_error(errno.ENOENT), Step.LAUNCH, Lasts.YES),  # no temporary folder
        (os_error(errno.ENOSPC), Step.LAUNCH, Lasts.NO),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Step.LAUNCH, Lasts.NO),
        (launch_failed(False), Step.LAUNCH, Lasts.YES),
        (launch_failed(True), Step.LAUNCH, Lasts.NO),
        # the link
        (ConnectionResetError(errno.ECONNRESET, "reset"), Step.LINK, Lasts.NO),
        (os_error(errno.EBADMSG), Step.LINK, Lasts.NO),
        (AuthenticationFailed("node", "wrong token"), Step.LINK, Lasts.YES),
        (ProtocolMismatch("node", "no TLS"), Step.LINK, Lasts.YES),
        (RemoteProtocolError("node is no server"), Step.LINK, Lasts.YES),
    ],
    ids=lambda each: f"{type(each).__name__}" if isinstance(each, BaseException) else each.name,
)
def test_it_lasts_or_it_may_pass(exc, step, lasts):
    failure = trouble_of(exc, step, "node")

    assert failure.lasts is lasts
    assert failure.reason
    assert isinstance(failure.error, ConnectionFailed)
    assert failure.error is exc or failure.error.__cause__ is exc


def test_a_proof_that_cannot_be_made_is_an_authentication_that_failed():
    failure = trouble_of(ValueError("the token file holds no token"), Step.AUTH, "node")

    assert str(failure.error) == "authentication with node failed: the token file holds no token"


def test_the_words_name_what_has_no_words():
    assert "KeyError: 'x'" in trouble_of(KeyError("x"), Step.LAUNCH, "node").reason
    assert "MemoryError" in trouble_of(MemoryError(), Step.CONNECT, "node").reason


def test_any_other_runtime_error_is_a_defect():
    assert may_pass(RuntimeError("can't start new thread"), Step.CONNECT)
    assert not may_pass(RuntimeError("out of luck"), Step.CONNECT)
