"""What an executor has shared."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from remote_executor import PayloadError
from remote_executor.client import shares as module
from remote_executor.client.shares import Shares
from remote_executor.core.known import Functions
from remote_executor.net.segments import AVAILABLE
from remote_executor.payload.pickles import dump, load
from remote_executor.wire.messages import Flag, Kind
from tests.support.tools import require_module

np = require_module("numpy")
needs_segments = pytest.mark.skipif(not AVAILABLE, reason="needs memfd_create")


@pytest.fixture
def freed():
    return []


@pytest.fixture
def shares(freed):
    return Shares(Functions(), freed.append)


def contents(blob, segments=False):
    """Return the object in what goes to a server, and the frame."""
    frame = blob.frame(segments)
    body, *buffers = frame.buffers
    return load(body, [bytearray(buffer) for buffer in buffers]), frame


def encoded(function=len):
    return SimpleNamespace(body=dump(function)[0], tokens=None)


@pytest.mark.parametrize("size", [1000, 100_000])
def test_an_object_goes_as_it_was(shares, size):
    """L14."""
    array = np.zeros(size)
    handle = shares.share({"array": array})
    array += 1

    found, frame = contents(handle._blob)

    assert not found["array"].any()
    assert (frame.kind, frame.aux, frame.body) == (
        Kind.BLOB,
        handle._blob.number,
        handle._blob.token,
    )
    assert frame.flags == Flag.SHARED
    assert handle._blob.size >= array.nbytes


@needs_segments
def test_servers_of_this_host_are_sent_the_segment_itself(shares):
    small, large = shares.share(1), shares.share(np.ones(100_000))

    assert small._blob.frame(True).segment is None
    assert large._blob.frame(False).segment is None
    frame = large._blob.frame(True)
    assert frame.flags & Flag.SEGMENT
    assert os.fstat(frame.segment.fd).st_size >= 800_000


@pytest.mark.parametrize(
    ("obj", "pure"),
    [
        (1, True),
        ("text" * 1000, True),
        ((1, (b"x", None), frozenset({2.5})), True),
        ((1, [2]), False),
        ([], False),
        (len, False),
        (np.ones(3), False),
    ],
)
def test_what_cannot_change_is_marked(shares, obj, pure):
    assert shares.share(obj)._blob.pure is pure


def test_code_by_value_is_noticed(shares):
    assert shares.share(lambda: 1)._blob.code
    assert not shares.share(len)._blob.code


def test_what_a_task_refers_to_is_found_in_its_call_and_in_its_function(shares):
    one, two, three = (shares.share([n]) for n in range(3))
    both = shares.share({"of": [one, two]})
    function = encoded(lambda: three)

    assert shares.met_in(encoded(), dump(([1], {}))[0]) == ()
    assert shares.met_in(function, dump(((both,), {}))[0]) == (
        three._blob,
        one._blob,
        two._blob,
        both._blob,
    )
    assert function.tokens == [three._blob.token]
    assert shares.met_in(function, b"") == (three._blob,)


def test_what_another_executor_has_shared_is_not_ours(shares):
    other = Shares(Functions(), print)
    handle = other.share([1])

    assert shares.met_in(encoded(), dump(handle)[0]) == ()
    del handle


def test_the_last_reference_frees_it(shares, freed):
    inner = shares.share([1])
    outer = shares.share([inner])
    numbers = [outer._blob.number, inner._blob.number]
    needed = shares.met_in(encoded(), dump(outer)[0])
    del inner, outer
    assert freed == []

    del needed

    assert sorted(freed) == sorted(numbers)


@needs_segments
def test_only_so_many_hold_descriptors(shares, monkeypatch):
    monkeypatch.setattr(module, "MOST_SEGMENTS", 2)
    handles = [shares.share(np.full(100_000, n)) for n in range(4)]

    assert [handle._blob.frame(True).segment is None for handle in handles] == [
        False,
        False,
        True,
        True,
    ]
    assert [contents(handle._blob)[0][0] for handle in handles] == [0, 1, 2, 3]
    del handles[0]
    assert shares.share(np.ones(100_000))._blob.frame(True).segment is not None


def test_what_cannot_be_pickled_is_refused(shares, freed):
    with pytest.raises(PayloadError):
        shares.share(n for n in ())
    assert freed == []
