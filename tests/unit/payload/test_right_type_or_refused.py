"""What arrives is of the type that was sent and means the same, or nothing is sent."""

from __future__ import annotations

import abc
import array
import collections
import contextvars
import copyreg
import datetime
import decimal
import enum
import functools
import io
import itertools
import logging
import mmap
import operator
import pathlib
import pickle
import queue
import re
import sys
import tempfile
import threading
import types
import uuid
import weakref

import numpy as np
import pytest

from remote_executor.errors import PayloadError
from remote_executor.payload.pickles import dump, dump_result, load
from tests.support.tools import require_module


def beside_code(obj):
    """Send an object with a lambda, so that it goes the slower way, as code of a script does."""
    return load(*dump((obj, lambda: 0)))[0]


def alone(obj):
    return load(*dump(obj))


def back(obj):
    return load(*dump_result((obj, lambda: 0)))[0]


WAYS = [alone, beside_code, back]
LARGE = 100_000


class Text(str):
    __slots__ = ("note",)


class Number(int):
    pass


class Kept(collections.deque):
    pass


class Call(functools.partial):
    pass


class Failure(Exception):
    pass


def with_attributes(obj, **attributes):
    for name, value in attributes.items():
        setattr(obj, name, value)
    return obj


def state(obj):
    """Return all that tells an object from a like one."""
    kind = type(obj)
    found = [kind.__module__, kind.__qualname__]
    if isinstance(obj, np.ndarray):
        flags = obj.flags
        found += [obj.dtype, obj.shape, flags.writeable, obj.tolist()]
        found += [flags.f_contiguous] if obj.ndim > 1 else []
    elif isinstance(obj, (dict, collections.OrderedDict)):
        found += [[(state(key), state(value)) for key, value in obj.items()]]
        found += [getattr(obj, "default_factory", None)]
    elif isinstance(obj, (list, tuple, collections.deque)):
        found += [[state(each) for each in obj], getattr(obj, "maxlen", None)]
    elif isinstance(obj, functools.partial):
        found += [obj.func, state(obj.args), state(obj.keywords)]
    elif isinstance(obj, BaseException):
        found += [state(obj.args)]
    elif isinstance(obj, (np.generic, memoryview)):
        found += [obj.tobytes()]
    else:
        found += [repr(obj)]
    found += [sorted(vars(obj).items())] if hasattr(obj, "__dict__") and vars(obj) else []
    found += [getattr(obj, "note", None)]
    return found


TRAVEL = {
    "subclass of str with an attribute": with_attributes(Text("a"), note=5),
    "subclass of int with an attribute": with_attributes(Number(3), note=[1]),
    "bounded deque": collections.deque([1, 2], maxlen=2),
    "subclass of deque": with_attributes(Kept([1], maxlen=4), note=1),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "defaultdict of a function": collections.defaultdict(operator.length_hint, a=1),
    "ordered dict": collections.OrderedDict(b=1, a=2),
    "counter": collections.Counter("abca"),
    "chain map": collections.ChainMap({"a": 1}, {"b": 2}),
    "partial with an attribute": with_attributes(functools.partial(int, base=2), note=7),
    "subclass of partial": Call(print, 1, sep=""),
    "exception with attributes": with_attributes(Failure(1, "x"), code=9),
    "os error": FileNotFoundError(2, "gone", "name"),
    "bytes": b"\0\xff" * LARGE,
    "bytearray": bytearray(b"\0\xff" * LARGE),
    "small bytearray": bytearray(b"ab"),
    "array": array.array("i", [1, 2, 300]),
    "large array": array.array("d", [1.5]) * LARGE,
    "big int": 10**4000 % (10**3999 + 7),
    "bool": True,
    "negative zero": -0.0,
    "complex": complex(-0.0, 2),
    "surrogates": "\udcff",
    "range": range(10, 0, -3),
    "slice": slice(1, None, 2),
    "frozen set": frozenset({1}),
    "numpy int8": np.int8(-3),
    "numpy float32": np.float32(0.1),
    "numpy date": np.datetime64("2020-01-02", "D"),
    "numpy bool": np.True_,
    "numpy text": np.str_("x"),
    "structured array": np.array([(1, 2.5)], dtype=[("a", "i2"), ("b", ">f4")]),
    "structured scalar": np.array([(1, 2.5)], dtype=[("a", "i2"), ("b", "f4")])[0],
    "array of no dimension": np.array(5),
    "empty array": np.empty((0, 3), "f4"),
    "fortran array": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "large fortran array": np.asfortranarray(np.arange(LARGE * 1.0).reshape(100, -1)),
    "read-only array": with_attributes(np.arange(5)),
    "strided array": np.arange(20)[::3],
    "large strided array": np.arange(LARGE)[::-2],
    "big-endian array": np.arange(5, dtype=">i4"),
    "object array": np.array([None, "a", 3], dtype=object),
    "text array": np.array(["a", "bcd"]),
    "date": datetime.datetime(2020, 1, 2, fold=1, tzinfo=datetime.timezone.utc),
    "decimal": decimal.Decimal("-1.10"),
    "path": pathlib.PurePosixPath("a/b"),
    "pattern": re.compile("a+", re.IGNORECASE),
    "uuid": uuid.UUID(int=5),
    "namespace": types.SimpleNamespace(b=1, a=[2]),
    "alias": list[int],
    "union": int | None,
    "builtin type": type(None),
    "bound builtin": [].append,
    "list iterator": iter([1, 2]),
    "string io": io.StringIO("ab"),
    "bytes io": io.BytesIO(b"ab"),
    "logger": logging.getLogger("tests.some"),
    "root logger": logging.getLogger(),
    "standard output": sys.stdout,
}
if sys.version_info < (3, 14):
    TRAVEL["count"] = itertools.count(3, 2)
TRAVEL["read-only array"].flags.writeable = False
large_read_only = np.arange(LARGE)
large_read_only.flags.writeable = False
TRAVEL["large read-only array"] = large_read_only
WITHOUT_STATE = {"bound builtin", "list iterator", "string io", "bytes io", "standard output"}


# Python 3.12 and 3.13 warn whoever pickles a count that 3.14 will not.
@pytest.mark.filterwarnings("ignore:Pickle, copy, and deepcopy support will be removed")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in TRAVEL if name != "standard output"])
def test_arrives_as_what_it_is(name, way):
    sent = TRAVEL[name]

    found = way(sent)

    assert type(found) is type(sent)
    if name not in WITHOUT_STATE:
        assert state(found) == state(sent)


def test_string_io_keeps_its_place():
    file = io.StringIO("abc")
    file.read(1)

    assert beside_code(file).read() == "bc"


def generate():
    yield 1


class Plain:
    pass


KEPT = Plain()

REFUSED = {
    "memory view": lambda: memoryview(array.array("i", [1, 2, 300])),
    "large memory view": lambda: memoryview(bytearray(LARGE)),
    "open text file": lambda: open(__file__),  # noqa: SIM115
    "open binary file": lambda: open(__file__, "rb"),  # noqa: SIM115
    "written file": lambda: tempfile.TemporaryFile("w+"),  # noqa: SIM115
    "closed file": lambda: with_close(open(__file__)),  # noqa: SIM115
    "generator": generate,
    "generator expression": lambda: (each for each in [1]),
    "coroutine frame": lambda: sys._getframe(),
    "weak reference": lambda: weakref.ref(KEPT),
    "weak proxy's kin": lambda: weakref.WeakKeyDictionary({KEPT: 1}),
    "lock": threading.Lock,
    "condition": threading.Condition,
    "thread": threading.current_thread,
    "queue": queue.Queue,
    "context variable": lambda: contextvars.ContextVar("x"),
    "context": contextvars.copy_context,
    "logger that nobody else knows": lambda: logging.Logger("tests.some"),
    "logger that hides another": lambda: logging.Logger("root"),
    "memory map": lambda: mmap.mmap(-1, 10),
}
if sys.version_info >= (3, 14):
    REFUSED["count"] = lambda: itertools.count(3, 2)


INSIDE = {"weak proxy's kin": "ReferenceType", "queue": "_thread.lock"}
"""What an error names, where that is a part."""


def with_close(file):
    file.close()
    return file


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:coroutine")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_as_pickle_does(name, way):
    obj = REFUSED[name]()
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError, NotImplementedError)):
        pickle.dumps(obj)

    try:
        with pytest.raises(PayloadError) as caught:
            way(obj)
    finally:
        close = getattr(obj, "close", None)
        if close is not None:
            close()

    named = INSIDE.get(name, type(obj).__name__)
    assert named in str(caught.value)


@pytest.mark.parametrize("make", [dict, collections.OrderedDict, collections.defaultdict])
@pytest.mark.parametrize("view", ["keys", "values", "items"])
def test_views_show_what_becomes_of_their_dict(make, view):
    table = make(a=1, b=[2])

    found, again = beside_code((getattr(table, view)(), table))

    assert type(found) is type(getattr(table, view)())
    again["c"] = 3
    assert list(found) == list(getattr(again, view)())
    assert found.mapping == again


@pytest.mark.parametrize("make", [dict, collections.OrderedDict, collections.UserDict])
def test_proxies_show_what_becomes_of_their_mapping(make):
    mapping = make(a=1)

    proxy, again = beside_code((types.MappingProxyType(mapping), mapping))

    assert type(proxy) is types.MappingProxyType
    again["b"] = 2
    assert list(proxy.items()) == [("a", 1), ("b", 2)]
    assert (proxy | {"c": 3}).__class__ is make


def test_the_names_in_a_class_are_those_of_the_class():
    class Local:
        level = 1

    names, cls = beside_code((vars(Local), Local))

    cls.level = 2
    assert names["level"] == 2


def test_standard_streams_are_those_of_the_other_end(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO())
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
        assert beside_code(stream) is stream
        monkeypatch.undo()
    with pytest.raises(PayloadError, match="an open file"):
        beside_code(stream)


@pytest.mark.parametrize("way", [beside_code, back])
def test_what_is_on_a_function_under_lru_cache(way):
    @functools.lru_cache(4)
    def local(x):
        """Say so."""
        return x

    local.note = [1]

    found = way(local)

    assert (found.note, found.__doc__, found.__name__) == ([1], "Say so.", "local")
    assert (found(3), found.cache_info().maxsize) == (3, 4)


def test_a_decorator_of_wrapt_is_not_dropped():
    wrapt = require_module("wrapt")

    @wrapt.decorator
    def one_more(wrapped, instance, args, kwargs):
        return wrapped(*args, **kwargs) + 1

    @one_more
    def local(x):
        return x

    assert local(1) == 2
    for obj in (local, wrapt.ObjectProxy(local), wrapt.ObjectProxy(Plain)):
        try:
            found = beside_code(obj)
        except PayloadError:
            continue
        assert type(found) is type(obj)
        assert not callable(found) or obj.__class__ is type or found(1) == obj(1)


def test_abstract_classes_keep_who_is_registered():
    class Local(abc.ABC):  # noqa: B024
        pass

    Local.register(int)

    assert issubclass(int, beside_code(Local))


def test_reducers_that_the_program_registers_are_asked(monkeypatch):
    class Odd:
        pass

    monkeypatch.setitem(copyreg.dispatch_table, Odd, lambda odd: (int, ("7",)))
    assert beside_code(Odd()) == 7


class Level(enum.IntEnum):
    LOW = 1


def test_members_of_an_enum_are_themselves():
    assert beside_code(Level.LOW) is Level.LOW
