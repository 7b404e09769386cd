"""Shared objects: handles in pickles, and what they become in a worker."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

from remote_executor import PayloadError
from remote_executor.payload import shared
from remote_executor.payload.copies import PrivateCopies
from remote_executor.payload.pickles import dump

OWNER = b"an owner"
TOKEN = shared.make_token(OWNER, 7)


class Blob(SimpleNamespace):
    __hash__ = object.__hash__


@pytest.fixture
def blob():
    blob = Blob(token=TOKEN, what="list", size=12)
    shared.blobs[TOKEN] = blob
    return blob


@pytest.fixture
def table():
    table = shared.SharedTable()
    shared.use(table)
    yield table
    shared.use(None)


def copies(obj):
    body, buffers = dump(obj)
    return PrivateCopies([body, *buffers])


def test_a_handle_says_what_it_is(blob):
    assert repr(shared.Shared(blob)) == "<Shared list, 12 bytes>"


def test_where_it_was_shared_a_handle_stays_one(blob):
    again = pickle.loads(pickle.dumps(shared.Shared(blob)))

    assert type(again) is shared.Shared
    assert again._blob is blob


def test_tokens_are_found_wherever_they_are_in_a_pickle(blob):
    handle = shared.Shared(blob)
    other = shared.Shared(Blob(token=shared.make_token(OWNER, 8)))
    captured = dump(lambda: (handle, other))[0]
    nested = pickle.dumps([pickle.dumps({"a": [other]}), handle, handle])

    assert len(TOKEN) == shared.TOKEN_SIZE
    assert shared.find(captured) == [TOKEN, other._blob.token]
    assert shared.find(memoryview(nested)) == [other._blob.token, TOKEN]
    assert shared.find(bytearray(dump((1, 2))[0])) == []


def test_a_worker_finds_the_object_the_same_one_within_a_task(blob, table):
    call = pickle.dumps((shared.Shared(blob), [shared.Shared(blob)]))
    shared.blobs.clear()
    table.define(7, TOKEN, False, copies([1]))

    first, (second,) = pickle.loads(call)
    assert first is second
    first.append(2)
    table.end_task()

    assert pickle.loads(call)[0] == [1]
    assert first == [1, 2]


def test_what_cannot_change_is_made_once(table):
    table.define(7, TOKEN, True, copies(("a", "b")))

    first = shared.fetch(TOKEN)
    table.end_task()

    assert shared.fetch(TOKEN) is first


def test_what_was_forgotten_is_unknown(table):
    table.define(7, TOKEN, False, copies([1]))
    assert (len(table), repr(table)) == (1, "<SharedTable 1 objects>")

    table.forget(7)
    table.forget(7)

    assert len(table) == 0
    with pytest.raises(PayloadError, match="shared the object"):
        shared.fetch(TOKEN)


def test_a_handle_means_nothing_elsewhere():
    with pytest.raises(PayloadError, match="it is not known here"):
        shared.fetch(TOKEN)


def test_what_cannot_be_built_can_be_tried_again(table):
    table.define(7, TOKEN, False, PrivateCopies([b"cno_such_module\nf\n."]))

    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            shared.fetch(TOKEN)
        table.end_task()
