"""Options are checked when they are given, not when a task runs."""

from __future__ import annotations

import pickle

import pytest

from remote_executor.options import PRIORITIES, Options, TaskOptions


class Index:
    """An int of another library."""

    def __index__(self):
        return 5


def test_an_option_not_given_is_the_usual():
    options = Options()

    assert (options.level, options.category, options.name) == (0, "default", None)
    assert (options.timeout, options.retries) == (None, None)


@pytest.mark.parametrize(("priority", "level"), [*PRIORITIES.items(), (-7, -7), (12, 12)])
def test_a_priority_is_a_word_or_a_number(priority, level):
    assert Options(priority=priority).level == level


def test_the_words_are_in_their_order():
    levels = [Options(priority=word).level for word in ("low", "normal", "high")]

    assert levels == sorted(set(levels))


def test_any_integer_will_do():
    options = Options(retries=Index(), priority=Index())

    assert type(options.level) is int
    assert options.level == 5


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"priority": "urgent"}, ValueError, "high, normal, low"),
        ({"priority": 1.5}, TypeError, "integer"),
        ({"priority": None}, TypeError, "integer"),
        ({"category": []}, TypeError, "unhashable"),
        ({"category": None}, ValueError, "None"),
        ({"timeout": 0}, ValueError, "above 0"),
        ({"timeout": -1.0}, ValueError, "above 0"),
        ({"timeout": float("nan")}, ValueError, "above 0"),
        ({"timeout": "soon"}, TypeError, "not supported"),
        ({"retries": -1}, ValueError, "from 0"),
        ({"retries": 0.5}, TypeError, "integer"),
        ({"color": "red"}, TypeError, "color"),
    ],
)
def test_what_cannot_be_meant_is_an_error_at_once(given, error, words):
    with pytest.raises(error, match=words):
        Options(**given)
    with pytest.raises(error, match=words):
        Options().but(**given)


def test_but_changes_what_is_named_and_nothing_else():
    options = Options(priority="high", category=("etl", 1), timeout=30, retries=0, name="load")

    assert options.but(timeout=None, priority=2) == Options(
        priority=2, category=("etl", 1), timeout=None, retries=0, name="load"
    )
    assert options.timeout == 30


def test_options_are_frozen_values():
    options = Options(priority="low")

    with pytest.raises(AttributeError):
        options.priority = "high"
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(options) == hash(Options(priority="low"))


@pytest.mark.parametrize(
    ("given", "meant"),
    [("prority", "priority"), ("time_out", "timeout"), ("retrie", "retries"), ("names", "name")],
)
def test_an_option_that_there_is_not_asks_what_was_meant(given, meant):
    with pytest.raises(TypeError, match=rf"no option {given} \(did you mean {meant}\?\)") as caught:
        Options().but(**{given: 1})

    assert "priority, category, timeout, grace, retries, name" in str(caught.value)


def test_the_options_that_type_checkers_know_are_those_that_there_are():
    assert tuple(TaskOptions.__annotations__) == (*Options._fields, "resume")


def test_resume_is_another_name_for_the_journal():
    assert Options().but(resume="run.db").journal == "run.db"
    with pytest.raises(TypeError, match=r"journal must be a remote_executor\.Journal or a path"):
        Options().but(resume=5)
