"""Questions to several servers: when all have answered, and when one is lost."""

from __future__ import annotations

from remote_executor.client.inquiries import Inquiries, Inquiry
from remote_executor.core.tasks import Server, Task


def two():
    one, other = Server("one", "one"), Server("other", "other")
    inquiries, inquiry = Inquiries(), Inquiry()
    inquiries.ask(inquiry, 1, one)
    inquiries.ask(inquiry, 2, other)
    return inquiries, inquiry, one


def test_it_is_over_once_all_have_answered():
    inquiries, inquiry, _ = two()
    first, second = Task(1, None, None, b""), Task(2, None, None, b"")

    assert inquiries.answer(1, [first]) is None
    assert inquiries.answer(2, [second]) is inquiry
    assert set(inquiry.begun) == {first, second}
    assert not len(inquiries)


def test_a_lost_server_owes_no_answer():
    inquiries, inquiry, one = two()

    assert inquiries.give_up(one) == []
    assert inquiries.give_up(one) == []
    assert inquiries.answer(2, []) is inquiry


def test_at_the_end_nobody_does():
    inquiries, inquiry, _ = two()

    assert inquiries.give_up() == [inquiry]


def test_an_answer_that_comes_too_late_is_for_nobody():
    inquiries, inquiry, _ = two()

    inquiries.forget(inquiry)
    assert inquiries.answer(1, [Task(1, None, None, b"")]) is None
    assert not inquiry.begun
