"""Bound methods travel as what they are, also where their name leads to another or to none."""

from __future__ import annotations

import functools
import pickle
from types import MethodType

import pytest

from remote_executor.payload.code.methods import reduce_method
from remote_executor.payload.pickles import dump, dump_result, load


class Base:
    def run(self):
        return "base"

    @classmethod
    def make(cls):
        return f"base of {cls.__name__}"


def renamed(function):
    def wrapper(self):
        return f"wrapped {function(self)}"

    return wrapper


class Own(Base):
    def run(self):
        return "own"

    @classmethod
    def make(cls):
        return f"own of {cls.__name__}"

    @renamed
    def first(self):
        return 1

    @renamed
    def second(self):
        return 2

    def __secret(self):
        return "secret"

    def secret(self):
        return self.__secret

    @functools.partialmethod
    def partly(self):
        return "partly"

    alias = run


class Meta(type):
    def of_the_class(cls):
        return cls.__name__


class Made(metaclass=Meta):
    __slots__ = ("x",)

    def get(self):
        return self.x


def run(self):
    return f"by hand of {type(self).__name__}"


def shadowed():
    obj = Own()
    obj.run = "shadow"
    return MethodType(Own.run, obj)


@pytest.mark.parametrize(
    "method",
    [Own().run, Own.make, Base().run, Own().alias, Made.of_the_class, Made().get, [].append],
)
def test_one_that_its_name_leads_to_goes_by_that(method):
    if isinstance(method, MethodType):
        assert reduce_method(method) is NotImplemented
    assert pickle.loads(pickle.dumps(method)).__name__ == method.__name__


ODD = {
    "of a base": lambda: super(Own, Own()).run,
    "of a base's class": lambda: super(Own, Own).make,
    "by hand": lambda: MethodType(run, Own()),
    "by hand, of the name of another": lambda: MethodType(Base.run, Own()),
    "that its decorator has renamed": lambda: Own().second,
    "private": lambda: Own().secret(),
    "shadowed by an attribute": shadowed,
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("way", [dump, dump_result])
def test_one_that_its_name_does_not_lead_to_is_itself(name, way):
    method = ODD[name]()

    found = load(*way([method]))[0]

    assert found() == method()
    assert type(found.__self__) is type(method.__self__)


def test_one_whose_function_is_none_of_python_is_left_alone():
    assert reduce_method(MethodType(len, [1])) is NotImplemented


def test_what_a_library_makes_of_it_is_trusted():
    class Odd:
        def __get__(self, obj, owner=None):
            return MethodType(run, obj)

    class Has:
        run = Odd()

    assert reduce_method(Has().run) is NotImplemented
