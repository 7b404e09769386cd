"""Subclasses, and who is registered with an abstract class: programs in two interpreters."""

from __future__ import annotations

import collections.abc
import importlib
import sys
import types
from textwrap import dedent

import pytest

from remote_executor.payload.code import families
from tests.support.payload_tasks import run_main

PROGRAMS = {
    "subclasses, and those of a later time": """
        class Base: pass
        class Two(Base): pass
        class One(Base): pass
        class Inner(One): pass
        def below(cls): return [(each.__name__, below(each)) for each in cls.__subclasses__()]
        def task(): return below(Base)
        with {worker}() as worker:
            assert worker.call(task) == [("Two", []), ("One", [("Inner", [])])]
            class Three(Base): pass
            assert worker.call(task) == below(Base)
            assert worker.call(lambda: Base.__subclasses__()[-1].__name__) == "Three"
        """,
    "they are in the order in which they were made": """
        class Base: pass
        class A(Base): pass
        class B(Base): pass
        class C(Base): pass
        def first(): return C.__name__
        def task(): return [each.__name__ for each in Base.__subclasses__()]
        with {worker}() as worker:
            assert worker.call(first) == "C"
            assert worker.call(task) == ["A", "B", "C"]
        """,
    "one that no name binds": """
        class Base: pass
        def make():
            class Local(Base):
                x = 3
            return Local
        kept = [make()]
        def task(): return [each.x for each in Base.__subclasses__()]
        with {worker}() as worker: assert worker.call(task) == [3]
        """,
    "of a base that is a module's": """
        from collections import UserDict
        class Mine(UserDict): pass
        def task(): return "Mine" in [each.__name__ for each in UserDict.__subclasses__()]
        with {worker}() as worker: assert worker.call(task)
        """,
    "registered with an abstract class of a library, later, too": """
        import numbers
        from collections.abc import Sequence, Sized
        class Bag:
            def __len__(self): return 0
        class Number: pass
        Sequence.register(Bag)
        def task():
            bag = isinstance(Bag(), Sequence), issubclass(Bag, Sized)
            return *bag, isinstance(Number(), numbers.Number)
        with {worker}() as worker:
            assert worker.call(task) == (True, True, False)
            numbers.Complex.register(Number)
            assert worker.call(task) == (True, True, True)
        """,
    "registered with one of the program's, later, too": """
        import abc
        class Shape(abc.ABC): pass
        class Square: pass
        def task(): return isinstance(Square(), Shape)
        with {worker}() as worker:
            assert not worker.call(task)
            Shape.register(Square)
            assert worker.call(task)
        """,
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("worker", ["Worker", "OtherWorker"])
def test_in_two_processes(name, worker, tmp_path):
    assert run_main(dedent(PROGRAMS[name]).replace("{worker}", worker), tmp_path) == ""


def test_who_is_registered_is_found_again_when_that_has_changed():
    class Mine:
        pass

    assert families.virtual_bases(Mine) == ()
    collections.abc.Sequence.register(Mine)
    assert families.virtual_bases(Mine) == (collections.abc.Sequence,)
    assert families.virtual_bases(int) == ()  # its module does that


def test_classes_are_put_in_order_if_that_can_be_done():
    class Base:
        pass

    class One(Base):
        pass

    class Two(Base):
        __slots__ = ("x",)

    families.settle(((Base, (Two, One)),))
    assert set(Base.__subclasses__()) == {Two, One}
    families.settle(((Base, (One, Two)),))
    assert Base.__subclasses__() == [One, Two]


def test_classes_are_told_apart_by_nothing_that_a_metaclass_says():
    class Odd(type):
        __hash__ = None

        def __eq__(cls, other):
            raise TypeError("it compares with nothing")

    class Made(metaclass=Odd):
        pass

    class Registered:
        pass

    collections.abc.Sized.register(Registered)  # so that all are looked at anew

    assert families.virtual_bases(Registered) == (collections.abc.Sized,)
    assert type(Made) is Odd


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Give a module of the user's own, and a program with a class that has a base in it."""
    monkeypatch.setattr(families, "_own", set())
    monkeypatch.setattr(families, "_asking", [])
    own = ("own_plugins", "own_finder")
    others = {name: id(each) for name, each in sys.modules.items() if name not in own}
    monkeypatch.setattr(families, "_looked_at", others)
    monkeypatch.syspath_prepend(tmp_path)
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    def make(text):
        (tmp_path / "own_plugins.py").write_text(text, encoding="utf-8")
        found = importlib.import_module("own_plugins")
        exec("class Plain: pass", vars(main))
        main.Derived = type("Derived", (found.Base,), {"__module__": "__main__"})

    yield make
    for name in own:
        sys.modules.pop(name, None)


def test_where_an_own_module_asks_for_subclasses_those_of_its_classes_go_along(module):
    module("class Base: pass\ndef all_of(): return Base.__subclasses__()\n")

    assert families.derived() == ("Derived",)


def test_where_no_own_module_asks_nothing_goes_along(module):
    module("class Base: pass\n")

    assert families.derived() == ()


def test_a_module_that_is_imported_later_is_looked_at(module, tmp_path):
    module("class Base: pass\n")
    assert families.derived() == ()
    (tmp_path / "own_finder.py").write_text("def below(cls): return cls.__subclasses__()\n")
    importlib.import_module("own_finder")

    assert families.derived() == ("Derived",)
