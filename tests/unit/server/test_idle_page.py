"""How many slots nobody uses, in a page that others see."""

from __future__ import annotations

import mmap

import pytest

from remote_executor.server.idle_page import IdlePage


@pytest.fixture
def page():
    page = IdlePage()
    yield page
    page.close()


def test_nothing_is_there_until_somebody_wants_to_see_it(page):
    page.say(3)
    assert not page.is_open


def test_who_has_the_descriptor_sees_what_is_said(page):
    fd = page.open()
    assert page.open() == fd
    with mmap.mmap(fd, mmap.PAGESIZE, prot=mmap.PROT_READ) as seen:
        for said, found in ((3, 3), (0, 0), (-2, 0), (1000, 255)):
            page.say(said)
            assert seen[0] == found


def test_it_can_be_closed_twice_and_opened_again(page):
    page.open()
    page.close()
    page.close()
    assert not page.is_open
    assert page.open() >= 0
