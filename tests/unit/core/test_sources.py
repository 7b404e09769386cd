"""Contents of modules: what goes along with an answer, and what a server keeps."""

from __future__ import annotations

import pytest

from remote_executor.core.sources import Sources, to_send
from remote_executor.errors import RemoteProtocolError


def test_a_content_goes_along_once():
    held = {}

    fields, sent = to_send({"a": b"1", "b": b"22"}, held)
    assert (fields, sent) == (
        {"contents": ["a", "b"], "sent": ["a", "b"], "drop": []},
        [b"1", b"22"],
    )
    fields, sent = to_send({"c": b"3", "a": b"1"}, held)
    assert (fields, sent) == ({"contents": ["c", "a"], "sent": ["c"], "drop": []}, [b"3"])
    assert held == {"b": 2, "c": 1, "a": 1}


def test_the_oldest_is_dropped():
    held = {"a": 1, "b": 2, "c": 3}

    fields, _ = to_send({"a": b"1", "d": b"4444"}, held, limit=8)

    assert fields["drop"] == ["b"]
    assert held == {"c": 3, "a": 1, "d": 4}
    fields, _ = to_send({"e": bytes(20)}, held, limit=8)
    assert fields["drop"] == ["c", "a", "d"]
    assert held == {"e": 20}, "what the answer needs stays"
    fields, _ = to_send({}, held, limit=8)
    assert (fields["drop"], held) == (["e"], {})


def test_answers_find_who_asked():
    sources = Sources()
    first, second = sources.asked("one", 1), sources.asked("two", 1)
    fields, sent = to_send({"a": b"1"}, held := {})

    assert sources.answered(second, fields, sent) == ("two", 1, [b"1"])
    fields, sent = to_send({"a": b"1"}, held)
    assert sources.answered(first, fields, sent) == ("one", 1, [b"1"])
    assert sources.questions == 0
    assert repr(sources) == "<Sources 1 contents, 0 questions>"


def test_who_is_gone_needs_no_answer_but_what_came_is_kept():
    sources = Sources()
    first, second = sources.asked("one", 1), sources.asked("two", 7)
    sources.gone("one")

    assert sources.answered(first, *to_send({"a": b"1"}, held := {})) is None
    assert sources.answered(second, *to_send({"a": b"1"}, held)) == ("two", 7, [b"1"])
    assert sources.answered(99, *to_send({}, held)) is None


def test_what_is_dropped_or_never_came_is_an_error():
    sources = Sources()
    sources.answered(0, {"contents": [], "sent": ["a"], "drop": []}, [b"1"])
    sources.answered(0, {"contents": [], "sent": [], "drop": ["a", "b"]}, [])
    for contents in (["a"], [["a"]]):
        id = sources.asked("one", 1)
        with pytest.raises(RemoteProtocolError, match="never came"):
            sources.answered(id, {"contents": contents, "sent": [], "drop": []}, [])


def test_nothing_is_left_after_the_end():
    sources = Sources()
    sources.asked("one", 1)
    sources.answered(0, {"contents": [], "sent": ["a"], "drop": []}, [b"1"])

    sources.clear()

    assert repr(sources) == "<Sources 0 contents, 0 questions>"
