"""The thread that answers what servers ask for."""

from __future__ import annotations

import threading
from queue import Queue

import pytest

from remote_executor.modules.answering import Answering
from tests.support.scale import scaled

LIMIT = scaled(10)


@pytest.fixture
def posted():
    return Queue()


@pytest.fixture
def answering(posted):
    made = Answering(posted.put)
    yield made
    made.close()


def test_answers_are_made_elsewhere_and_sent_by_whoever_is_posted_to(answering, posted):
    sent = []
    answering.put(threading.get_ident, sent.append)
    call = posted.get(timeout=LIMIT)
    assert sent == []
    call()
    assert sent != [threading.get_ident()]


def test_answers_come_in_the_order_of_the_questions(answering, posted):
    sent = []
    for number in range(50):
        answering.put(lambda number=number: number, sent.append)
    for _ in range(50):
        posted.get(timeout=LIMIT)()
    assert sent == list(range(50))


def test_there_is_no_thread_before_the_first_question_and_none_after_the_end(posted):
    before = threading.active_count()
    answering = Answering(posted.put)
    assert (threading.active_count(), repr(answering)) == (
        before,
        "<Answering not started, 0 questions>",
    )
    answering.close()
    answering = Answering(posted.put)
    answering.put(int, print)
    posted.get(timeout=LIMIT)
    assert threading.active_count() == before + 1
    answering.close()
    answering.close()
    assert threading.active_count() == before


def test_what_was_asked_before_the_end_is_dropped(posted):
    answering = Answering(posted.put)
    entered, go = threading.Event(), threading.Event()
    made = []

    def work():
        entered.set()
        go.wait(LIMIT)

    answering.put(work, print)
    answering.put(lambda: made.append(1), print)
    assert entered.wait(LIMIT)
    ender = threading.Thread(target=answering.close)
    ender.start()
    while not answering._closed:
        entered.wait(0.001)
    go.set()
    ender.join(LIMIT)

    assert not ender.is_alive()
    assert made == []
    assert posted.empty()
