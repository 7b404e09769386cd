"""Records on their way to the client."""

from __future__ import annotations

import json
import logging
import os
import sys

import pytest

from remote_executor.server.logs import MOST_CHARACTERS, ToClient, install


def make_record(message="text", *args, **more):
    return logging.makeLogRecord(
        {"name": "n", "levelno": 30, "levelname": "WARNING", "msg": message, "args": args, **more}
    )


def test_a_record_becomes_fields():
    bodies = []
    handler = ToClient(20, lambda body: bodies.append(body) or True, None)
    handler.handle(make_record("%d", 7, process=None))
    (fields,) = map(json.loads, bodies)
    assert fields["msg"] == "7"
    assert fields["name"] == "n"
    assert fields["process"] == os.getpid()
    assert "exc_text" not in fields


def test_long_texts_are_cut():
    bodies = []
    handler = ToClient(20, lambda body: bodies.append(body) or True, None)
    try:
        raise ValueError("y" * 2 * MOST_CHARACTERS + "end")
    except ValueError:
        handler.handle(make_record("x" * 2 * MOST_CHARACTERS, exc_info=sys.exc_info()))
    (fields,) = map(json.loads, bodies)
    assert len(fields["msg"]) == len(fields["exc_text"]) == MOST_CHARACTERS
    assert fields["exc_text"].endswith("end")


def test_what_cannot_be_sent_goes_elsewhere(capsys):
    taken = []

    class Other(logging.Handler):
        def emit(self, record):
            taken.append(record)

    record = make_record()
    ToClient(20, lambda body: False, Other()).handle(record)
    assert taken == [record]
    ToClient(20, lambda body: False, None).handle(record)

    def fail(body):
        raise BrokenPipeError

    ToClient(20, fail, Other()).handle(record)
    assert taken == [record]
    assert "BrokenPipeError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after"), [(logging.WARNING, logging.INFO), (logging.DEBUG, logging.DEBUG)]
)
def test_it_is_the_last_resort(monkeypatch, before, after):
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.setattr(logging.root, "level", before)
    install(logging.INFO, lambda body: True)
    assert isinstance(logging.lastResort, ToClient)
    assert logging.lastResort.level == logging.INFO
    assert logging.root.level == after
