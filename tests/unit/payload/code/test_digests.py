"""Names of content, and snapshots."""

from __future__ import annotations

from remote_executor.payload.code.digests import Frozen, digest, frozen, key_of


def test_a_digest_names_content_and_its_parts():
    names = {
        digest(b"ab"),
        digest(b"a", [b"b"]),
        digest(b"", [b"ab"]),
        digest(b"", [b"a", b"b"]),
        digest(b"ac"),
    }

    assert len(names) == 5
    assert digest(b"ab", [bytearray(b"c")]) == digest(b"ab", [memoryview(b"c")])
    assert digest(b"ab", short=2) == b"ab"
    assert digest(b"abc", short=2) == digest(b"abc")
    assert digest(b"ab", [b""], short=2) != b"ab"


def test_snapshots_are_copies_unless_nobody_can_write():
    live = bytearray(b"abc")
    first = frozen([memoryview(live), memoryview(b"xyz"), memoryview(b"wxyz")[1:]])
    live[0] = 0

    assert [bytes(view) for view in first] == [b"abc", b"xyz", b"xyz"]
    assert [type(view.obj) for view in first] == [Frozen, bytes, Frozen]
    assert frozen(first) == first
    again = frozen([memoryview(live), memoryview(bytearray(b"abc"))], first)
    assert again[0] is not first[0]
    assert again[1] is first[0]


def test_the_key_of_a_snapshot_is_that_of_its_content():
    first, again = frozen([memoryview(bytearray(b"abc"))]), [memoryview(b"abc")]

    assert key_of(first[0]) == key_of(first[0]) == key_of(again[0]) == digest(b"", [b"abc"])
