"""Descriptors for other processes: who knows the secret gets them, again and again."""

from __future__ import annotations

import os
import pickle
import socket

import pytest

from remote_executor.net.descriptors import Descriptor, Descriptors


@pytest.fixture
def offered():
    reader, writer = os.pipe()
    served = Descriptors()
    made = served.offer(writer)
    os.close(writer)  # a copy is kept
    yield served, made, reader
    served.close()
    os.close(reader)


def test_a_descriptor_is_given_as_often_as_it_is_asked_for(offered):
    _, made, reader = offered
    for word in (b"one", b"two"):
        found = pickle.loads(pickle.dumps(made)).detach()
        os.write(found, word)
        os.close(found)

        assert os.read(reader, 10) == word


def test_it_is_not_inherited(offered):
    found = offered[1].detach()

    assert not os.get_inheritable(found)
    os.close(found)


@pytest.mark.parametrize("change", [{"secret": bytes(32)}, {"number": 7}])
def test_who_does_not_know_gets_nothing(offered, change):
    with pytest.raises(OSError, match="gives it no more"):
        offered[1]._replace(**change).detach()


def test_who_says_too_little_holds_up_nobody(offered):
    with socket.socket(socket.AF_UNIX) as babbling:
        babbling.connect(offered[1].path)
        babbling.send(b"?")

    os.close(offered[1].detach())


def test_after_the_end_nothing_is_given(offered):
    served, made, _ = offered
    served.close()
    served.close()

    with pytest.raises(OSError):  # noqa: PT011 - whatever the system says of the path
        made.detach()
    assert not os.path.exists(os.path.dirname(made.path))


def test_it_lies_in_a_folder_of_this_user_alone(offered):
    assert os.stat(os.path.dirname(offered[1].path)).st_mode & 0o777 == 0o700
    assert isinstance(offered[1], Descriptor)
