"""Pickles for another Python: here client and worker are in one process, and pretend."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
import threading
import weakref
from pathlib import Path

import cloudpickle.cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_executor.client.foreign import Foreign
from remote_executor.errors import CannotShip, PayloadError
from remote_executor.payload import mains, pythons
from remote_executor.payload.by_source import dump_abroad
from remote_executor.payload.failures import decode_failure, encode_failure
from remote_executor.payload.functions import PURE, FunctionCache, FunctionTable
from remote_executor.payload.pickles import dump_result, load
from tests.support import payload_tasks as tasks

KINDS_FILE = Path(__file__).parents[2] / "support" / "kinds.py"
OLDER = [("cpython", (3, 9, 0))]


class Abroad:
    """A client with a ``__main__`` of its own, and a worker that takes it for another Python."""

    def __init__(self, monkeypatch, main):
        self.client = main
        for name in ("__main__", "__mp_main__"):
            monkeypatch.setitem(sys.modules, name, main)
        self.worker = mains.prepare_main()
        sys.modules["__main__"] = sys.modules["__mp_main__"] = main
        # Classes that are known by their trackers: each side has its own.
        self.trackers = [
            (weakref.WeakKeyDictionary(), weakref.WeakValueDictionary()) for _ in range(2)
        ]
        self.monkeypatch = monkeypatch
        self.cache = FunctionCache()
        self.table = FunctionTable()
        self.enter(0)

    def enter(self, side):
        sys.modules["__main__"] = (self.client, self.worker)[side]
        module = cloudpickle.cloudpickle
        trackers, classes = self.trackers[side]
        self.monkeypatch.setattr(module, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", trackers)
        self.monkeypatch.setattr(module, "_DYNAMIC_CLASS_TRACKER_BY_ID", classes)
        self.monkeypatch.setattr(pythons.abroad, "client", "PyPy 3.99.0" if side else "")

    @contextlib.contextmanager
    def there(self):
        self.enter(1)
        try:
            yield
        finally:
            self.enter(0)

    def call(self, function, *args, pythons=()):
        try:
            encoded = self.cache.encode_abroad(function, self.cache.encode(function), pythons)
        except CannotShip:
            raise
        except PayloadError:  # what cannot go by value may go as source
            encoded = Foreign(pythons, True).only(function, ())[0]
        assert b"_make_function" not in encoded.body
        assert b"CodeType" not in encoded.body
        call = dump_abroad(args, "call", pythons)
        buffers = [bytearray(buffer) for buffer in encoded.buffers]
        with self.there():
            self.table.define(1, PURE if encoded.pure else 0, encoded.body, buffers)
            answer = dump_result(self.table.get(1)(*load(*call)))
        return load(*answer)


def main_module(path):
    spec = importlib.util.spec_from_file_location("__main__", path)
    module = importlib.util.module_from_spec(spec)
    return spec, module


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Return a function that makes a program and its farm."""
    numbers = iter(range(100))

    def make(text):
        path = tmp_path / f"program{next(numbers)}.py"
        path.write_text(text)
        spec, module = main_module(path)
        abroad = Abroad(monkeypatch, module)
        spec.loader.exec_module(module)
        return abroad

    yield make
    mains.applied.clear()
    mains.arrived.clear()


def kinds():
    spec, module = main_module(KINDS_FILE)
    sys.modules["kinds"] = module
    before, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.modules["__main__"] = before
        del sys.modules["kinds"]
    return module


MODULE = kinds()


@pytest.fixture
def farm(monkeypatch):
    yield Abroad(monkeypatch, MODULE)
    mains.applied.clear()
    mains.arrived.clear()


@pytest.mark.parametrize("name", MODULE.KINDS)
def test_kinds_of_function(farm, name):
    """K6, K8, K10-K12, L1, L3-L8, L10, L11, L16: each is right, or is refused."""
    function, *args = MODULE.KINDS[name]()
    if name in MODULE.REFUSED:
        with pytest.raises(CannotShip):
            farm.call(function, *args)
        return
    after = MODULE.AFTER.get(name, lambda found: found)
    try:
        value = farm.call(function, *args)
    except CannotShip:
        assert name in MODULE.MAY_BE_REFUSED
        return

    wanted = MODULE.SHIPS[name] if name in MODULE.SHIPS else after(function(*args))
    assert after(value) == wanted
    assert type(after(value)) is type(wanted)


def test_captured_values_are_those_of_the_submit(program):
    """L12, L13: and what the far side writes stays there, for that call."""
    main = program(
        """
items = [1]
def make():
    held = []
    def add(x):
        held.append(x)
        return list(held)
    return add, held
def scaled(x): return x * rate
rate = 1
"""
    )
    add, held = main.client.make()

    assert main.call(add, 1) == [1]
    assert main.call(add, 2) == [2]
    held.append(0)
    assert main.call(add, 3) == [0, 3]
    assert held == [0]
    assert main.call(main.client.scaled, 2) == 2
    main.client.rate = 5
    assert main.call(main.client.scaled, 2) == 10


def test_globals_of_main_are_one_namespace_there(program):
    """K15: and change when the client's do."""
    main = program(
        """
state = {}
def put(key, value): state[key] = value
def get(): return dict(state)
array = None
"""
    )
    main.call(main.client.put, "a", 1)

    assert main.call(main.client.get) == {"a": 1}
    assert main.client.state == {}
    main.client.state = {"b": 2}
    assert main.call(main.client.get) == {"b": 2}


def test_classes_keep_their_identity(program):
    """K21, K22: over messages, with their members, and back at the client."""
    main = program(
        """
import enum
class Colour(enum.Enum):
    RED = 1
class Base: pass
class Thing(Base):
    kind = Colour.RED
    def same(self, other): return type(self) is type(other), self.kind is Colour.RED
def again(thing): return thing, Thing, Colour.RED, thing.same(Thing())
"""
    )
    make = main.client.Thing
    thing, cls, red, same = main.call(main.client.again, make())

    assert type(thing) is cls is make
    assert red is main.client.Colour.RED
    assert same == (True, True)
    assert main.call(main.client.again, make())[3] == (True, True)


def test_attributes_of_a_class_are_those_of_the_submit(program):
    """L12."""
    main = program(
        """
import threading
import numpy as np
class Config:
    level = 1
    array = np.zeros(2)
    def get(self): return self.level, self.array.sum()
class Locked:
    lock = threading.Lock()
    def get(self): return self.lock.acquire(False)
def helper(self): return "late"
"""
    )
    config = main.client.Config()
    assert main.call(config.get) == (1, 0.0)
    main.client.Config.level = 2
    main.client.Config.array = np.ones(3)
    main.client.Config.late = main.client.helper

    assert main.call(config.get) == (2, 3.0)
    assert main.call(main.client.Config().late) == "late"
    body, _ = dump_abroad(main.client.Locked().get, "function", ())
    with main.there():
        assert load(body)() is True  # the class statement has made its own


def test_a_function_of_a_module_that_travels_has_globals_of_its_own(program):
    """L17: only what it names."""
    main = program("def apply(f, x): return f(x)\n")
    cloudpickle.register_pickle_by_value(tasks)
    try:
        function = main.cache.encode_abroad(tasks.add, main.cache.encode(tasks.add), ())
        with main.there():
            again = load(function.body)
        assert again is not tasks.add
        assert again(1, 2) == 3
        assert set(again.__globals__) == {"__builtins__", "__file__", "__name__"}
        assert main.call(main.client.apply, tasks.Plain(2).plus, 3) == tasks.Plain(2).plus(3)
    finally:
        cloudpickle.unregister_pickle_by_value(tasks)


def test_wrappers_of_the_standard_library_are_made_there_or_refused(program):
    main = program(
        """
import contextlib, functools
@contextlib.contextmanager
def managed(x):
    yield x
def use(x):
    with managed(x) as y: return y
class Both(contextlib.ContextDecorator):
    def __enter__(self): return self
    def __exit__(self, *_): return False
@Both()
def decorated(x): return x
@functools.wraps(use)
def wrapped(x): return "mine", x
"""
    )
    assert main.call(main.client.use, 3) == 3
    assert main.call(main.client.wrapped, 3) == ("mine", 3)
    with pytest.raises(CannotShip, match="made by a part of Python's own module contextlib"):
        main.call(main.client.decorated, 3)


def test_wrappers_that_no_function_of_a_module_makes_go_as_source(program, tmp_path, monkeypatch):
    path = tmp_path / "made_of_two.py"
    path.write_text(
        """
def keep():
    def decorate(f):
        def wrapper(x): return "kept", f(x)
        return wrapper
    return decorate
def simple(f):
    def wrapper(x): return "simple", f(x)
    return wrapper
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    main = program(
        """
import made_of_two
@made_of_two.keep()
def kept(x): return x
@made_of_two.simple
def simple(x): return x
"""
    )

    assert main.call(main.client.kept, 1) == ("kept", 1)
    assert main.call(main.client.simple, 1) == ("simple", 1)
    body = main.cache.encode(main.client.simple).abroad[1].body
    assert b"def wrapper" not in body
    assert b"def wrapper" in main.cache.encode(main.client.kept).abroad[1].body
    del sys.modules["made_of_two"]


def test_functions_that_a_task_makes_come_back_as_source(program):
    main = program(
        """
import sys
def make(n):
    class Made:
        shared = [lambda: 5]
        def get(self): return n
    def add(x, y=2):
        return x + y + n + offset
    return add, Made
offset = 1
def fail():
    class Own(Exception): pass
    raise Own("text")
def code(): return sys._getframe().f_code
"""
    )
    add, made = main.call(main.client.make, 10)

    assert add(1) == 14
    assert made().get() == 10
    assert made.shared[0]() == 5
    with pytest.raises(
        CannotShip, match=r"bytecode .*|code object 'code' cannot be sent"
    ) as caught:
        main.call(main.client.code)
    assert (caught.value.ours, caught.value.theirs) == (pythons.python_words(), "PyPy 3.99.0")
    with main.there(), pytest.raises(PayloadError, match="lock"):
        dump_result((add, threading.Lock()))
    with main.there():
        try:
            load(*dump_abroad(main.client.fail, "function", ()))()
        except Exception as error:
            failure = encode_failure(error)
    assert type(decode_failure(*failure)).__name__ == "Own"


def test_newer_syntax_is_refused_where_the_other_python_is_known(program):
    """K68: at submit."""
    main = program(
        """
def matched(x):
    match x:
        case 1: return 2
class C:
    def f(self):
        match self:
            case _: return 1
"""
    )

    with pytest.raises(CannotShip, match=r"CPython 3.9.0 does not know the syntax .*line [34]"):
        main.call(main.client.matched, 1, pythons=OLDER)
    with pytest.raises(CannotShip, match=r"CPython 3.9.0 does not know the syntax .*line [78]"):
        main.call(main.client.C, pythons=OLDER)
    assert main.call(main.client.matched, 1, pythons=[("cpython", (3, 99, 0))]) == 2


def test_what_cannot_be_pickled_is_named(program):
    main = program("def f(x): return x\n")

    with pytest.raises(PayloadError, match="argument 2"):
        dump_abroad(((1, iter_of_locks()), {}), "call", ())
    with pytest.raises(CannotShip, match=r"class Made .*no class statement"):
        dump_abroad(type("Made", (), {"get": eval("lambda self: 1")}), "object", ())
    assert main.call(main.client.f, 1) == 1


def iter_of_locks():
    return (lock for lock in [threading.Lock()])


def test_a_function_is_made_ready_once_and_an_error_is_kept(program):
    main = program("exec('def f(): pass')\ndef g(): return 1\n")
    cache = main.cache
    for function in (main.client.f, main.client.f):
        with pytest.raises(CannotShip):
            cache.encode_abroad(function, cache.encode(function), ())
    encoded = cache.encode(main.client.g)

    assert cache.encode_abroad(main.client.g, encoded, ()) is encoded.abroad[1]
    assert cache.encode_abroad(main.client.g, cache.encode(main.client.g), ()) is encoded.abroad[1]
    assert cache.encode_abroad(len, cache.encode(len), ()) is cache.encode(len)


def test_empty_cells_and_odd_attributes(program):
    main = program(
        """
def make():
    def early(): return later
    early.note = ["kept"]
    return early, lambda: (early.note, early.__name__)
    later = 1
class Odd:
    class Inner:
        class Deep:
            def get(self): return 1
"""
    )
    early, noted = main.client.make()

    with pytest.raises(NameError):
        main.call(early)
    assert main.call(noted) == (["kept"], "early")
    assert main.call(main.client.Odd.Inner.Deep().get) == 1
    assert main.call(main.client.Odd.Inner.Deep) is not None


@pytest.mark.parametrize("way", ["by value", "by source"])
@settings(max_examples=50)
@given(data=st.data())
def test_random_nests_of_code(way, data, tmp_path_factory):
    """L1, L3, L5, L7, L8, L16: what is answered there is what is answered here."""
    text = data.draw(nests())
    folder = tmp_path_factory.mktemp("nest")
    path = folder / "nest.py"
    path.write_text(text)
    with pytest.MonkeyPatch.context() as monkeypatch:
        spec, module = main_module(path)
        farm = Abroad(monkeypatch, module)
        spec.loader.exec_module(module)
        function = module.build()
        wanted = function(3)
        if way == "by source":
            found = farm.call(function, 3)
        else:
            encoded = farm.cache.encode(function)
            farm.enter(1)
            try:
                monkeypatch.setattr(pythons.abroad, "client", "")
                found = load(encoded.body, encoded.buffers)(3)
            finally:
                farm.enter(0)
        assert found == wanted, text
    mains.applied.clear()
    mains.arrived.clear()


NAMES = st.sampled_from("abcd")
PARAMETERS = functools.partial(st.lists, NAMES, unique=True, max_size=2)


@st.composite
def expressions(draw, names):
    one, other = (draw(st.sampled_from([*names, "1", "2", "G", "H[0]"])) for _ in range(2))
    return draw(
        st.sampled_from(
            [
                f"({one} + {other})",
                f"({one} * 2 - {other})",
                f"sum([{one} for i in range(2) if i < {other} or True])",
                f"(lambda y={one}: y + {other})()",
                f"helper({one})",
                f"Holder({one}).get({other})",
                f"int(f'{{{one}:d}}')",
                f"[{one}, {other}][{other} % 2]",
            ]
        )
    )


@st.composite
def bodies(draw, names, depth, indent):
    """Statements of a function: they end in a return."""
    space = "    " * indent
    lines = []
    known = list(names)
    for _ in range(draw(st.integers(0, 2))):
        # A variable that is assigned anywhere is local everywhere, hence names by depth.
        name = f"{draw(NAMES)}{indent}"
        lines.append(f"{space}{name} = {draw(expressions(known))}")
        known.append(name)
    if depth and draw(st.booleans()):
        default = draw(expressions(known))
        inner = draw(bodies([*known, "p", "q"], depth - 1, indent + 1))
        kind = draw(st.sampled_from(["def", "class", "lambda", "generator"]))
        if kind == "def":
            lines += [f"{space}def inner(p, q={default}, *, r=1):", *inner]
            lines.append(f"{space}return inner(x) + r0(inner)")
        elif kind == "class":
            lines += [f"{space}class Inner:", f"{space}    value = {draw(expressions(['1']))}"]
            deeper = draw(bodies([*known, "p", "q"], depth - 1, indent + 2))
            lines += [f"{space}    def call(self, p, q={default}):", *deeper]
            lines.append(f"{space}return Inner().call(x) + Inner.value")
        elif kind == "lambda":
            lines.append(
                f"{space}inner = lambda p, q={default}: {draw(expressions([*known, 'p']))}"
            )
            lines.append(f"{space}return inner(x)")
        else:
            lines += [f"{space}def inner(p, q={default}):", *inner[:-1]]
            lines.append(f"{space}    yield {inner[-1].split('return ', 1)[1]}")
            lines.append(f"{space}return list(inner(x))[0]")
    else:
        lines.append(f"{space}return {draw(expressions(known))}")
    return lines


@st.composite
def nests(draw):
    """A program whose build() makes a function of one argument."""
    captured = draw(PARAMETERS())
    values = "".join(f"    {name}_ = {draw(st.integers(0, 9))}\n" for name in captured)
    body = draw(bodies(["x", *[f"{name}_" for name in captured]], 3, 2))
    return (
        "G = 4\nH = [5, 6]\n"
        "def helper(n): return n + G\n"
        "def r0(f): return len(f.__kwdefaults__ or ())\n"
        "class Holder:\n"
        "    def __init__(self, held): self.held = held\n"
        "    def get(self, n): return self.held - n\n"
        f"def build():\n{values}    def made(x, d0={draw(st.integers(0, 9))}):\n"
        + "\n".join(body)
        + "\n    return made\n"
    )
