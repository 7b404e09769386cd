"""What makes classes where a pickle is loaded."""

from __future__ import annotations

import abc
import enum

from remote_executor.payload.code import rebuild


def make(bases=(object,), names=(), hook=None, meta=type, tracker="tracker of a test", **given):
    given = {"__module__": "m", "__qualname__": "Outer.Made", **given}
    return rebuild.make_class(meta, bases, given, names, hook, tracker)


def test_names_keep_their_order():
    made = make(names=["b", "__eq__", "a"], tracker="1")

    rebuild.fill_part(made, {"a": 1, "b": 2, "__eq__": lambda self, other: True})

    assert [name for name in vars(made) if name in ("a", "b", "__eq__")] == ["b", "__eq__", "a"]
    assert made() == 5
    assert (made.__name__, made.__qualname__, made.__module__) == ("Made", "Outer.Made", "m")


def test_a_class_of_another_name_than_its_statement_had():
    assert make(__name__="Renamed", tracker="2").__name__ == "Renamed"


def test_the_same_tracker_gives_the_class_that_was_made_before():
    made = make(tracker="3")

    assert make(tracker="3") is made


def test_what_is_no_more_there_goes_and_what_was_registered_is():
    made = make(meta=abc.ABCMeta, names=["old", "new"], tracker="4")
    rebuild.fill_part(made, {"old": 1, "new": 2})

    rebuild.fill_class(made, ((), ["new", *vars(object)], True, [int]))

    assert "old" not in vars(made)
    assert made.new == 2
    assert issubclass(int, made)
    assert "_abc_impl" in vars(made)


def test_the_hook_of_a_base_runs_for_others_that_are_made_meanwhile():
    seen = []

    class Base:
        def __init_subclass__(cls, **options):
            seen.append((cls.__name__, options))

    class Meta(type):
        def mro(cls):
            if cls.__name__ == "Made":
                type("Meanwhile", (Base,), {}, a=1)
            return super().mro()

    make((Base,), hook=Base, meta=Meta, tracker="5")

    assert seen == [("Meanwhile", {"a": 1})]


def test_members_that_code_of_the_program_makes():
    given = {"__module__": "m", "__qualname__": "Made"}
    members = [("A", rebuild.Member(1, int, (1,))), ("B", rebuild.Member(1, int, (1,)))]
    made = rebuild.make_enum(enum.EnumMeta, (int, enum.Enum), given, members, True, "", None, "6")

    rebuild.fill_enum(made, ((), None, False, {"A": {"label": "a"}}, [("one", "A")], frozenset()))

    assert made.A is made.B is made(1) is made("one")
    assert (made.A.label, made.A + 1, made.A.name) == ("a", 2, "A")
    assert not [name for name in vars(made) if name in ("__init__", "__new_member__")]
