"""
Programs with classes of all kinds: ``check()`` of each gives in a worker what it gives at home.

Run as a program by whatever Python: ``client FILE`` pickles all of them, ``worker FILE`` loads them
and calls what came. Texts are programs of their own, with a ``__main__`` of their own.
"""

# What people write, each expression on a line.
# ruff: noqa: E501

from __future__ import annotations

import importlib.util
import pickle
import sys
import tempfile
from pathlib import Path
from typing import Any

PROGRAMS: dict[str, str] = {}
NEEDS: dict[str, tuple[str, ...]] = {}
"""Libraries that a program imports."""
NEWER: dict[str, tuple[int, int]] = {}
"""Programs whose syntax or library older Pythons lack."""
ALIKE_ONLY = {"exec_and_type_call"}
"""Programs that another Python cannot have, since their code has no source."""
REFUSES = {"statement_that_means_another_thing_now": "class User"}
"""Programs that are refused, and by what name."""


def program(name: str, text: str, needs: str = "", newer: tuple[int, int] = (3, 10)) -> None:
    """Register a program."""
    assert name not in PROGRAMS
    PROGRAMS[name] = text
    NEEDS[name] = tuple(needs.split())
    NEWER[name] = newer


program(
    "slots",
    """
class Slotted:
    __slots__ = ("a", "__b")
    def __init__(self, a, b):
        self.a = a
        self.__b = b
    def both(self):
        return self.a, self.__b
class Derived(Slotted):
    __slots__ = ("c", "__dict__", "__weakref__")
class Single:
    __slots__ = "only"
class Documented:
    __slots__ = {"x": "the x"}
def check():
    import inspect, weakref
    one = Derived(1, 2)
    one.c = one.d = 3
    weakref.ref(one)
    single = Single()
    single.only = 1
    found = []
    for obj in (Slotted(1, 2), single, Documented()):
        try:
            obj.other = 1
        except AttributeError as error:
            found.append(type(error).__name__)
    return one.both(), one.c, vars(one), found, Single.__slots__, Documented.__slots__, Slotted.__slots__
""",
)
program(
    "slots_from_an_iterator",
    """
class Slotted:
    __slots__ = [name for name in ("a", "b")]
    def __init__(self):
        self.a = self.b = 1
def check():
    return Slotted().a, hasattr(Slotted(), "__dict__")
""",
)
program(
    "dataclass_with_slots",
    """
import dataclasses
@dataclasses.dataclass(slots=True, frozen=True, order=True)
class Point:
    x: int
    y: int = 5
    tags: list = dataclasses.field(default_factory=list, compare=False, metadata={"a": 1})
@dataclasses.dataclass(slots=True)
class Far(Point.__mro__[1]):
    z: float = 1.5
@dataclasses.dataclass
class Base:
    a: int = 1
    b: "int" = dataclasses.field(default=2, kw_only=True)
    def __post_init__(self):
        self.c = self.a + self.b
@dataclasses.dataclass(eq=False)
class Child(Base):
    d: int = 4
def check():
    import copy, pickle
    p = Point(1)
    found = []
    for change in ("x", "other"):
        try:
            setattr(p, change, 2)
        except Exception as error:
            found.append(type(error).__name__)
    q = dataclasses.replace(p, y=6)
    child = dataclasses.replace(Child(5, b=3), d=9)
    return (
        repr(p), p == Point(1), p < q, hash(p) == hash(Point(1)), found, dataclasses.asdict(q),
        [f.name for f in dataclasses.fields(Point)], dataclasses.fields(Point)[0].default is dataclasses.MISSING,
        Point.__match_args__, hasattr(p, "__dict__"), repr(copy.copy(p)), Far().z, repr(child), child.c,
        child == Child(5, b=3), dataclasses.is_dataclass(Child),
    )
""",
)
program(
    "dataclass_made_in_the_worker_from_one_of_ours",
    """
import dataclasses
@dataclasses.dataclass
class Base:
    a: int
    b: list = dataclasses.field(default_factory=list)
def check():
    @dataclasses.dataclass
    class Child(Base):
        c: int = 3
    return repr(Child(1)), Child(1).b is Child(1).b
""",
)
program(
    "enum_with_init",
    """
from enum import Enum
class Planet(Enum):
    MERCURY = (3.303e+23, 2.4397e6)
    EARTH = (5.976e+24, 6.37814e6)
    TERRA = EARTH
    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius
    @property
    def gravity(self):
        return round(6.67e-11 * self.mass / (self.radius * self.radius), 3)
def check():
    return [p.gravity for p in Planet], Planet.TERRA is Planet.EARTH, Planet.TERRA.name, list(Planet.__members__), Planet((3.303e+23, 2.4397e6)).name, Planet.EARTH.value
""",
)
program(
    "enum_with_new",
    """
from enum import Enum, IntEnum
class Code(Enum):
    def __new__(cls, value, label):
        obj = object.__new__(cls)
        obj._value_ = value
        obj.label = label
        return obj
    OK = 200, "fine"
    GONE = 410, "gone"
class Number(int, Enum):
    def __new__(cls, value, text=""):
        obj = int.__new__(cls, value)
        obj._value_ = value
        obj.text = text
        return obj
    ONE = 1, "one"
    TWO = 2
class Text(str, Enum):
    def __new__(cls, value, number):
        obj = str.__new__(cls, value)
        obj._value_ = value
        obj.number = number
        return obj
    A = "a", 1
    B = "b", 2
    def __str__(self):
        return self.value
class Auto(Enum):
    def __new__(cls):
        obj = object.__new__(cls)
        obj._value_ = len(cls.__members__) + 1
        return obj
    X = ()
    Y = ()
def check():
    return (
        Code(200).label, Code.GONE.value, [c.name for c in Code], Number.ONE + 1, Number.ONE.text, Number(2).name,
        Text("a").number, str(Text.B), Text.A == "a", f"{Text.A}", Text.A.upper(), [a.value for a in Auto], Auto(2).name,
        isinstance(Number.ONE, int), Text.A in {"a": 1},
    )
""",
)
program(
    "enum_with_new_in_a_base",
    """
from enum import Enum
class Labelled(Enum):
    def __new__(cls, value, label):
        obj = object.__new__(cls)
        obj._value_ = value
        obj.label = label
        return obj
    @classmethod
    def labels(cls):
        return [each.label for each in cls]
    @classmethod
    def _missing_(cls, value):
        return cls(str(value)[:1])
class Fruit(Labelled):
    APPLE = "a", "an apple"
    PEAR = "p", "a pear"
def check():
    class Local(Labelled):
        X = 1, "x"
    return Fruit.labels(), Fruit("ples"[0]).name, Fruit("apricot").name, Local.X.label, Local(1) is Local.X
""",
)
program(
    "enums_of_python",
    """
import enum, datetime
class Colour(enum.Enum):
    RED = 1
    GREEN = enum.auto()
    ROUGE = RED
    def describe(self):
        return self.name.lower()
class Access(enum.IntFlag):
    R = 4
    W = 2
    RW = R | W
class Perm(enum.Flag):
    A = enum.auto()
    B = enum.auto()
Animal = enum.Enum("Animal", "ANT BEE", type=int)
Named = enum.Enum("Named", {"X": "x", "Y": "y"}, type=str)
Level = enum.IntEnum("Level", "LOW HIGH")
class Lower(str, enum.Enum):
    @staticmethod
    def _generate_next_value_(name, start, count, last):
        return name.lower()
    A = enum.auto()
class Day(datetime.date, enum.Enum):
    FIRST = 2020, 1, 1
class Pair(tuple, enum.Enum):
    P = (1, 2)
class Callable_(enum.Enum):
    @classmethod
    def make(cls):
        return cls.ONE
    ONE = [1]
    _ignore_ = ["n"]
def check():
    return (
        Colour.GREEN.value, Colour.ROUGE is Colour.RED, Colour.RED.describe(), Colour["GREEN"].name, [c.name for c in Colour],
        Access.R | Access.W == Access.RW, (Access.R | Access.W).name, int(Access.RW), Access(6) is Access.RW, int(Access.R & Access.W), Perm.A | Perm.B in (Perm(3),),
        (Perm.A | Perm.B).value, ~Perm.A == Perm.B, Animal.BEE + 1, isinstance(Animal.ANT, int), Named("y").upper(), Level.HIGH > Level.LOW,
        Lower.A.value, Lower("a").name, Day.FIRST.year, [d.name for d in Day], Pair.P[1], Callable_.make().value,
        Colour.__module__, Colour.__qualname__, len(Colour), Colour.RED in Colour, str(Colour.RED), repr(Colour.RED), hash(Colour.RED) == hash("RED"),
        bool(Perm(0)), [n for n in Colour.__members__],
    )
""",
)
program(
    "enum_patched_later",
    """
import enum
class Colour(enum.Enum):
    RED = 1
    BLUE = 2
Colour.describe = lambda self: "is " + self.name
Colour.RED.weight = 5
Colour.default = classmethod(lambda cls: cls.BLUE)
Colour._value2member_map_["rouge"] = Colour.RED
def check():
    return Colour.BLUE.describe(), Colour.RED.weight, Colour.default().name, Colour("rouge").name
""",
)
program(
    "enum_with_a_metaclass_and_mixins",
    """
import enum
LOG = []
class Meta(enum.EnumMeta):
    def __new__(meta, name, bases, space, **more):
        LOG.append(name)
        return super().__new__(meta, name, bases, space, **more)
    def names(cls):
        return [each.name for each in cls]
class Mixin:
    def twice(self):
        return self.value * 2
class Kind(Mixin, enum.Enum, metaclass=Meta):
    A = 1
    B = 2
@enum.unique
class Operation(enum.Enum):
    ADD = "+"
    def __call__(self, a, b):
        return eval(f"{a}{self.value}{b}")
def check():
    return Kind.names(), Kind.B.twice(), LOG, Operation.ADD(1, 2), Operation("+").name
""",
)
program(
    "cached_property",
    """
import functools
class Circle:
    def __init__(self, r):
        self.r = r
    @functools.cached_property
    def area(self):
        "The area."
        return [3 * self.r ** 2]
def check():
    c = Circle(2)
    return c.area, c.area is c.area, vars(c), Circle.area.__doc__, Circle.area.attrname
""",
)
program(
    "init_subclass_that_reads_an_attribute",
    """
REGISTRY = []
class Base:
    known = {}
    def __init_subclass__(cls, prefix="p", **more):
        super().__init_subclass__(**more)
        cls.key = prefix + cls.name
        Base.known[cls.key] = cls
        REGISTRY.append(cls.__name__)
class One(Base):
    name = "one"
class Two(Base, prefix="q"):
    name = "two"
class Three(Two):
    name = "three"
def check():
    class Four(Two):
        name = "four"
    return One.key, Two.key, Three.key, Four.key, sorted(Base.known), REGISTRY, Base.known["pone"] is One
""",
)
program(
    "metaclass_that_registers",
    """
PLUGINS = {}
ORDER = []
class Meta(type):
    count = 0
    def __new__(meta, name, bases, space, **options):
        cls = super().__new__(meta, name, bases, space)
        Meta.count += 1
        cls.options = options
        return cls
    def __init__(cls, name, bases, space, **options):
        super().__init__(name, bases, space)
        ORDER.append(name)
        PLUGINS[name] = cls
    def __call__(cls, *args):
        made = super().__call__(*args)
        made.made_by = cls.__name__
        return made
    @property
    def label(cls):
        return cls.__name__.lower()
    def __getitem__(cls, key):
        return cls, key
class Plugin(metaclass=Meta, answer=42):
    pass
class Sub(Plugin):
    def __init__(self, x):
        self.x = x
def check():
    return Meta.count, sorted(PLUGINS), ORDER, Plugin.options, Sub(3).made_by, Sub.label, Sub[1] == (Sub, 1), PLUGINS["Sub"] is Sub
""",
)
program(
    "metaclass_that_forbids_setattr",
    """
class Frozen(type):
    def __setattr__(cls, name, value):
        raise AttributeError("frozen")
    def __delattr__(cls, name):
        raise AttributeError("frozen")
class Constants(metaclass=Frozen):
    A = 1
    B = [2]
    def get(self):
        return self.A
def check():
    try:
        Constants.A = 2
    except AttributeError as error:
        return str(error), Constants.A, Constants.B, Constants().get()
""",
)
program(
    "same_value_as_the_base",
    """
LIMIT = 10
class Base:
    limit = LIMIT
    name = "x"
    def hello(self):
        return "hello"
class Child(Base):
    limit = LIMIT
    hello = Base.hello
def check():
    Base.limit = 99
    Base.hello = lambda self: "changed"
    return Child.limit, "limit" in vars(Child), Child().hello(), "name" in vars(Child)
""",
)
program(
    "typed_dicts",
    """
import typing
A = typing.TypedDict("A", {"x": int, "y": str}, total=False)
class B(typing.TypedDict):
    level: int
class C(B, total=False):
    more: str
def check():
    return A(x=1), A.__total__, sorted(A.__optional_keys__), B(level=1), sorted(C.__required_keys__), sorted(C.__optional_keys__), typing.is_typeddict(C), typing.get_type_hints(B), A.__name__
""",
)
program(
    "named_tuples",
    """
import collections, typing
A = collections.namedtuple("A", "x y", defaults=[5])
B = typing.NamedTuple("B", [("x", int), ("y", str)])
class C(typing.NamedTuple):
    "A documented one."
    a: int
    b: str = "b"
    def both(self):
        return f"{self.a}{self.b}"
    @property
    def twice(self):
        return self.a * 2
class D(collections.namedtuple("D", "left right")):
    __slots__ = ()
    def __new__(cls, left, right=None):
        return super().__new__(cls, left, right)
    def total(self):
        return self.left + (self.right or 0)
E = collections.namedtuple("E", "def x", rename=True)
A.extra = lambda self: self.x + self.y
def check():
    import copy, pickle
    return (
        A(1), A(1).extra(), A(1)._replace(y=2), A._fields, A._field_defaults, B(1, "a"), C(1), C(1).both(), C(2).twice, C.__doc__,
        D(1).total(), D(1, 2), E(1, 2), C._make([1, 2])._asdict(), [*A(3)], typing.get_type_hints(C), A(1) == (1, 5), C.__annotations__["a"] in (int, "int"),
    )
""",
)
program(
    "ctypes_structures",
    """
import ctypes
class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]
    def total(self):
        return self.x + self.y
class Packed(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("a", ctypes.c_char), ("b", ctypes.c_int), ("p", Point), ("many", ctypes.c_short * 3)]
class Node(ctypes.Structure):
    pass
Node._fields_ = [("value", ctypes.c_int), ("next", ctypes.POINTER(Node))]
class Either(ctypes.Union):
    _fields_ = [("i", ctypes.c_int), ("f", ctypes.c_float)]
class Anonymous(ctypes.Structure):
    _anonymous_ = ["u"]
    _fields_ = [("u", Either), ("bits", ctypes.c_int, 3)]
class Big(ctypes.BigEndianStructure):
    _fields_ = [("v", ctypes.c_uint32)]
class Derived(Point):
    _fields_ = [("z", ctypes.c_int)]
Triple = ctypes.c_int * 3
def check():
    p = Point(1, 2.5)
    packed = Packed(b"a", 2, p)
    packed.many[1] = 7
    tail = Node(2)
    head = Node(1, ctypes.pointer(tail))
    one = Anonymous()
    one.i = 5
    one.bits = 3
    return (
        p.total(), ctypes.sizeof(Packed), packed.p.y, packed.many[1], head.next.contents.value, one.u.i, one.bits,
        bytes(Big(1)), Derived(1, 2, 3).z, ctypes.sizeof(Derived), list(Triple(1, 2, 3)), Point.x.offset, Point.y.offset,
    )
""",
)
program(
    "ctypes_libraries_and_callbacks",
    """
import ctypes
lib = ctypes.CDLL(None)
lib.labs.restype = ctypes.c_long
lib.labs.argtypes = [ctypes.c_long]
lib.atof.restype = ctypes.c_double
Compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)
def check():
    compare = Compare(lambda a, b: a - b)
    return lib.labs(-2**40), lib.atof(b"1.5"), compare(5, 3), lib.labs.argtypes == [ctypes.c_long], lib.abs(-1)
""",
)
program(
    "descriptors_with_set_name",
    """
CALLS = []
class Field:
    def __init__(self, kind):
        self.kind = kind
    def __set_name__(self, owner, name):
        CALLS.append(name)
        self.name = name
        owner.fields = [*getattr(owner, "fields", []), name]
    def __get__(self, obj, owner=None):
        return self if obj is None else vars(obj).get(self.name, 0)
    def __set__(self, obj, value):
        vars(obj)[self.name] = self.kind(value)
class Model:
    a = Field(int)
    b = Field(str)
def check():
    m = Model()
    m.a = "5"
    m.b = 6
    return m.a, m.b, Model.fields, CALLS, Model.a.name
""",
)
program(
    "properties_and_their_kin",
    """
import abc, functools
class lazy(property):
    "A property of our own."
    def __init__(self, *args):
        super().__init__(*args)
        self.note = "made"
class shouting(classmethod):
    pass
class fixed(staticmethod):
    pass
class A:
    def __init__(self):
        self._x = 1
    @property
    def x(self):
        "The x."
        return self._x
    @x.setter
    def x(self, value):
        self._x = value * 2
    @x.deleter
    def x(self):
        self._x = None
    @lazy
    def y(self):
        return 7
    @shouting
    def name(cls):
        return cls.__name__
    @fixed
    def plus(a, b=2):
        return a + b
    @classmethod
    @functools.lru_cache
    def cached(cls, n):
        return n * 2
    add = functools.partialmethod(plus, 5)
    alias = x
def check():
    a = A()
    a.x = 4
    first = a.x
    del a.x
    return first, a.x, A.x.__doc__, a.y, type(vars(A)["y"]).__name__, vars(A)["y"].note, A.name(), A.plus(1), type(vars(A)["plus"]).__name__, A.cached(4), A.alias is A.x
""",
)
program(
    "abstract_classes",
    """
import abc, collections.abc
class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...
    @property
    @abc.abstractmethod
    def name(self): ...
    @classmethod
    def __subclasshook__(cls, other):
        return True if hasattr(other, "quack") else NotImplemented
class Square(Shape):
    name = "square"
    def area(self):
        return 4
@Shape.register
class Alien:
    pass
Shape.register(complex)
class Duck:
    def quack(self): ...
class Items(collections.abc.Sequence):
    def __init__(self, *items):
        self.items = items
    def __getitem__(self, i):
        return self.items[i]
    def __len__(self):
        return len(self.items)
def check():
    found = []
    try:
        Shape()
    except TypeError:
        found.append("abstract")
    match Items(1, 2):
        case [a, b]:
            found.append(a + b)
    return found, Square().area(), issubclass(Alien, Shape), isinstance(1j, Shape), isinstance(Duck(), Shape), isinstance(3, Shape), sorted(Shape.__abstractmethods__), list(reversed(Items(1, 2))), Items(1, 2).index(2)
""",
)
program(
    "patched_after_the_statement",
    """
import abc
class A:
    level = 1
    gone = 2
    def __len__(self):
        return 1
    @property
    def p(self):
        return "old"
    @staticmethod
    def s():
        return "old"
    def m(self, x=1, *, y=2):
        return x, y
def new_len(self):
    return 7
A.__len__ = new_len
A.p = property(lambda self: "new")
A.s = staticmethod(lambda: "new")
A.m.__defaults__ = (10,)
A.m.__kwdefaults__ = {"y": 20}
A.m.note = "noted"
A.level = 5
A.added = [1]
A.__call__ = lambda self: "called"
A.__doc__ = "documented"
A.__name__ = "Renamed"
del A.gone
def check():
    a = A()
    return len(a), a.p, A.s(), a.m(), A.m.note, A.level, A.added, a(), A.__doc__, A.__name__, hasattr(A, "gone")
""",
)
program(
    "globals_changed_since_the_statement",
    """
RATE = 1
def make():
    return "then"
class A:
    rate = RATE
    table = {"rate": RATE}
    made = make()
    def get(self, rate=RATE):
        return rate
    @(lambda rate: lambda f: lambda self: (rate, f(self)))(RATE)
    def decorated(self):
        return RATE
RATE = 2
def make():
    return "now"
def check():
    return A.rate, A.table, A.made, A().get(), A().decorated()
""",
)
program(
    "annotations_that_are_made_late",
    """
import abc, annotationlib, typing
if typing.TYPE_CHECKING:
    from decimal import Decimal
class Base(abc.ABC):
    size = int
    count: size
    price: Decimal
    def get(self, other: Later, price: Decimal) -> size: ...
class Later:
    known: "Later"
    other: Base
Base.register(dict)
def plain(price: Decimal, when: int = 3) -> Later: return when
def check():
    as_text = annotationlib.Format.STRING
    return (
        annotationlib.get_annotations(Base, format=as_text), annotationlib.get_annotations(plain, format=as_text),
        annotationlib.get_annotations(Base.get, format=as_text), Later.__annotations__["other"] is Base, plain(1),
        isinstance({}, Base), typing.get_type_hints(Later)["known"] is Later,
    )
""",
    newer=(3, 14),
)
program(
    "partial_methods",
    """
import functools
class Bound(functools.partialmethod):
    note = "noted"
class Cell:
    def set(self, *args, **options):
        return args, options
    on = functools.partialmethod(set, 1, 2, a=3)
    off = Bound(set, 0)
    further = functools.partialmethod(on, 4)
    made = functools.partialmethod(classmethod(lambda cls, x: (cls.__name__, x)), 5)
Cell.off_itself = vars(Cell)["off"]
vars(Cell)["off"].more = [1]
def check():
    cell = Cell()
    off = vars(Cell)["off"]
    return cell.on(9, b=1), cell.off(), cell.further(), cell.made(), Cell.made(), off.note, off.more, off is vars(Cell)["off_itself"], type(off).__name__
""",
)
program(
    "names_deleted_since_the_statement",
    """
import dataclasses, functools
Alias = int
def decorator(f):
    @functools.wraps(f)
    def wrapper(*args):
        return "decorated", f(*args)
    return wrapper
class Base:
    pass
class A(Base):
    kind: Alias = Alias(3)
    @decorator
    def get(self, cls=Alias):
        return cls("4"), self.kind
del Alias, decorator, Base, functools, dataclasses
def check():
    return A().get(), A.__mro__[1].__name__
""",
)
program(
    "branches",
    """
import enum
if True:
    class Mode(enum.Enum):
        D = "fast"
    class Job:
        def run(self):
            return "fast"
else:
    class Mode(enum.Enum):
        D = "slow"
    class Job:
        def run(self):
            return "slow"
try:
    import nothing_of_that_name
    class Plain:
        x = "with"
except ImportError:
    class Plain:
        x = "without"
for number in range(3):
    class Looped:
        n = number
        def get(self):
            return self.n
def check():
    return Mode.D.value, Job().run(), Plain.x, Looped().get()
""",
)
program(
    "decorators_that_register",
    """
SEEN = []
HANDLERS = {}
def register(name):
    SEEN.append(name)
    def keep(cls):
        HANDLERS[name] = cls
        cls.registered = name
        return cls
    return keep
@register("one")
class One:
    def get(self):
        return 1
@register("two")
class Two(One):
    pass
def with_repr(cls):
    class Wrapped(cls):
        def __repr__(self):
            return "wrapped"
    Wrapped.__name__ = cls.__name__
    Wrapped.__qualname__ = cls.__qualname__
    return Wrapped
@with_repr
class Three:
    def get(self):
        return 3
class CallCount:
    def __init__(self, cls):
        self.cls = cls
        self.calls = 0
    def __call__(self, *args):
        self.calls += 1
        return self.cls(*args)
@CallCount
class Four:
    x = 4
def check():
    return SEEN, sorted(HANDLERS), HANDLERS["one"] is One, Two.registered, repr(Three()), Three().get(), Four().x, Four.calls
""",
)
program(
    "generic_classes",
    """
from typing import Generic, TypeVar, Protocol, runtime_checkable, get_type_hints
T = TypeVar("T")
K = TypeVar("K", bound=int)
class Stack(Generic[T]):
    limit = 3
    def __init__(self):
        self.items: list[T] = []
    def push(self, item: T) -> "Stack[T]":
        self.items.append(item)
        return self
class Table(Stack[K], Generic[K]):
    pass
class IntStack(Stack[int]):
    pass
@runtime_checkable
class Sized(Protocol):
    size: int
    def get(self) -> int: ...
class Impl(Sized):
    size = 1
    def get(self):
        return 5
class Structural:
    size = 3
    def get(self):
        return 6
class GP(Protocol[T]):
    def take(self, x: T) -> T: ...
def check():
    found = []
    try:
        Sized()
    except TypeError:
        found.append("protocol")
    return Stack[int]().push(1).items, IntStack().push(2).items, Stack.limit, Stack.__parameters__ == (T,), IntStack.__orig_bases__ == (Stack[int],), isinstance(Structural(), Sized), isinstance(3, Sized), Impl().get(), found, Table.__parameters__ == (K,), GP[int] is not None, repr(Stack[int])[-12:]
""",
)
program(
    "generic_syntax",
    """
class Box[T, *Ts, **P]:
    def __init__(self, x: T):
        self.x = x
    def get[S](self, y: S) -> T | S:
        return self.x, y
class Sub[T: int](Box[T, int, [str]]):
    pass
type Alias[T] = list[T]
def check():
    return Sub(3).get(4), [p.__name__ for p in Box.__type_params__], Sub.__type_params__[0].__bound__, Box[int, str, [int]] is not None, len(Box.__parameters__)
""",
    newer=(3, 12),
)
program(
    "nested_and_local_classes",
    """
class Outer:
    class Inner:
        class Deep:
            def get(self):
                return Outer.Inner.Deep, RATE
        def up(self):
            return Outer
    def make(self):
        return self.Inner()
RATE = 3
def factory(factor):
    count = 0
    class Local:
        level = factor
        def __init__(self, value):
            nonlocal count
            count += 1
            self.value = value
        def scaled(self):
            return self.value * factor, type(self) is Local, count
        @classmethod
        def made(cls):
            return cls(1)
    class Child(Local):
        def scaled(self):
            return super().scaled(), __class__.__name__
    return Local, Child
Five, Child = factory(5)
def check():
    five = Five(2)
    return Outer.Inner.Deep().get()[0] is Outer.Inner.Deep, Outer().make().up() is Outer, five.scaled(), Child(1).scaled(), Five.made().value, Five.__qualname__, Outer.Inner.__qualname__
""",
)
program(
    "super_and_class_cells",
    """
class A:
    def hello(self):
        return ["A"]
    def __init_subclass__(cls):
        super().__init_subclass__()
    @staticmethod
    def static():
        return __class__
class B(A):
    def hello(self):
        return [*super().hello(), "B"]
    @classmethod
    def make(cls):
        return super().__new__(cls)
    @property
    def up(self):
        return super().hello()
class C(A):
    def hello(self):
        return [*super().hello(), "C"]
class D(B, C):
    def hello(self):
        return [*super(D, self).hello(), "D"]
def check():
    return D().hello(), B.make().up, A.static() is A, [c.__name__ for c in D.__mro__]
""",
)
program(
    "instances_among_the_attributes",
    """
class Colour:
    def __new__(cls, name):
        made = super().__new__(cls)
        made.name = name
        return made
    def __init__(self, name):
        self.count = 1
    def __eq__(self, other):
        return self.name == other.name
    def __hash__(self):
        return hash(self.name)
    def __getnewargs__(self):
        return (self.name,)
    def mix(self, other=None):
        return self.name + (other or Colour.WHITE).name
class Singleton:
    instance = None
    def __new__(cls):
        if cls.instance is None:
            cls.instance = super().__new__(cls)
        return cls.instance
class Node:
    __slots__ = ("next", "value")
    def __init__(self, value, next=None):
        self.value, self.next = value, next
    def __setstate__(self, state):
        self.value, self.next = state
    def __reduce__(self):
        return object.__new__, (Node,), (self.value, self.next)
Colour.WHITE = Colour("white")
Colour.BLACK = Colour("black")
Colour.mix.__defaults__ = (Colour.BLACK,)
Colour.all = {Colour.WHITE: 1, Colour.BLACK: 2}
Singleton()
Node.empty = Node(0)
Node.empty.next = Node(1, Node.empty)
def check():
    return Colour.WHITE.mix(), Colour.all[Colour("black")], type(Colour.WHITE) is Colour, Singleton() is Singleton.instance, Node.empty.next.next is Node.empty
""",
)
program(
    "exceptions",
    """
class Own(Exception):
    code = 5
    def __init__(self, code, *more):
        super().__init__(code, *more)
        self.more = more
class Slotted(Own):
    __slots__ = ("extra",)
class Group(ValueError, KeyError):
    def __str__(self):
        return "both"
def check():
    try:
        raise Slotted(3, 4)
    except Own as error:
        return error.code, error.more, error.args, str(Group(1)), type(error).__name__
""",
)
program(
    "subclasses_of_builtin_types",
    """
import collections, datetime, decimal, pathlib, threading, io, json
class L(list):
    def first(self):
        return self[0]
class Dd(collections.defaultdict):
    pass
class N(int):
    __slots__ = ()
    def __add__(self, other):
        return N(int(self) * 10 + other)
class T(tuple):
    def __new__(cls, *items):
        return super().__new__(cls, items)
class S(str):
    tag = "t"
class Date(datetime.datetime):
    @classmethod
    def now(cls):
        return cls(2020, 1, 1)
class P(type(pathlib.Path())):
    def up(self):
        return self.parent
class Th(threading.Thread):
    def run(self):
        self.result = 5
class Enc(json.JSONEncoder):
    def default(self, o):
        return "?"
class D(dict):
    __getattr__ = dict.__getitem__
class C(collections.UserDict):
    pass
class O(collections.OrderedDict):
    pass
def check():
    t = Th()
    t.start()
    t.join()
    d = Dd(list)
    d["a"].append(1)
    return L([4]).first(), dict(d), N(3) + 4, T(1, 2), S("x").upper(), S.tag, Date.now().year, str(P("a/b").up()), t.result, json.dumps({"a": {1}}, cls=Enc), D(a=1).a, dict(C(b=2)), list(O(z=1, a=2))
""",
)
program(
    "order_of_names_and_annotations",
    """
class A:
    z: int = 1
    a: "str" = "a"
    def method(self): ...
    m = 5
    b: float
class B(A):
    "Documented."
    __hash__ = None
class C:
    def __eq__(self, other):
        return True
def check():
    import inspect
    return list(A.__annotations__), [n for n in vars(A) if n[:2] != "__"], B.__doc__, B.__hash__, C.__hash__, A.__doc__, A.__module__, str(inspect.signature(A.method)), A.method.__qualname__
""",
)
program(
    "operators_and_protocols_of_python",
    """
class V:
    def __init__(self, *v):
        self.v = v
    def __add__(self, o): return V(*(a + b for a, b in zip(self.v, o.v)))
    def __radd__(self, o): return self
    def __iter__(self): return iter(self.v)
    def __contains__(self, x): return x in self.v
    def __len__(self): return len(self.v)
    def __bool__(self): return bool(self.v)
    def __repr__(self): return f"V{self.v}"
    def __getitem__(self, i): return self.v[i]
    def __enter__(self): return self
    def __exit__(self, *a): return True
    def __lt__(self, o): return self.v < o.v
    def __call__(self, x): return x
    def __getattr__(self, name): return name + "?"
    def __class_getitem__(cls, item): return cls, item
    def __format__(self, spec): return spec
    def __del__(self): pass
    def __matmul__(self, o): return "@"
    async def __aenter__(self): return 1
    async def __aexit__(self, *a): return None
    __match_args__ = ("first",)
    @property
    def first(self): return self.v[0]
def check():
    v = V(1, 2)
    with v:
        raise KeyError
    match v:
        case V(x):
            pass
    import asyncio
    async def use():
        async with v as one:
            return one
    return repr(v + v), sum([v]) is v, 1 in v, len(v), list(v), v(3), v.other, V[1] == (V, 1), f"{v:abc}", v @ v, x, sorted([V(2), V(1)])[0].v, asyncio.run(use())
""",
)
program(
    "total_ordering_and_dispatch",
    """
import functools, contextlib
@functools.total_ordering
class Ordered:
    def __init__(self, n):
        self.n = n
    def __eq__(self, other):
        return self.n == other.n
    def __lt__(self, other):
        return self.n < other.n
    @functools.singledispatchmethod
    def show(self, x):
        return "any"
    @show.register
    def _(self, x: int):
        return "int"
    @contextlib.contextmanager
    def opened(self):
        yield self.n
def check():
    with Ordered(4).opened() as n:
        pass
    return Ordered(1) >= Ordered(1), Ordered(2) > Ordered(1), Ordered(1).show(2), Ordered(1).show("x"), n
""",
)
program(
    "mutual_references",
    """
class A:
    pass
class B(A):
    def get(self):
        return A.b is B, C
A.b = B
A.all = [A, B]
class C:
    first = A
    def make(self):
        return D(), self
class D:
    owner = C
C.second = D
def check():
    return B().get()[0], A.all[1] is B, C.second is D, D.owner is C, type(C().make()[0]) is D
""",
)
program(
    "exec_and_type_call",
    """
space = {}
exec('''
class Made:
    __slots__ = ("x",)
    rate = 3
    def __init__(self, x):
        self.x = x
    def get(self):
        return self.x * self.rate
''')
import enum
exec('''
class Mode(enum.Enum):
    A = 1, 2
    def __init__(self, a, b):
        self.total = a + b
''')
Dynamic = type("Dynamic", (Made,), {"get": lambda self: ("dynamic", super(Dynamic, self).get()), "__doc__": "d"})
def check():
    return Made(2).get(), Dynamic(3).get(), Dynamic.__doc__, Mode.A.total, hasattr(Made(1), "__dict__")
""",
)
program(
    "attrs_classes",
    """
import attr, attrs
@attrs.define
class Point:
    x: int
    y: int = attrs.field(default=2, validator=attrs.validators.instance_of(int))
    tags: list = attrs.field(factory=list)
@attrs.frozen(order=True)
class Cold:
    a: int = attrs.field(converter=int)
    @a.validator
    def check_it(self, attribute, value):
        if value < 0:
            raise ValueError("negative")
@attr.s(auto_attribs=True)
class Old:
    z: int = 1
@attrs.define
class Child(Point):
    z: int = 3
    def __attrs_post_init__(self):
        self.tags.append(self.z)
    def up(self):
        return super().__repr__()
def check():
    found = []
    for make in (lambda: Point(1, "a"), lambda: Cold(-1), lambda: setattr(Cold(1), "a", 2), lambda: setattr(Point(1), "q", 2)):
        try:
            make()
        except Exception as error:
            found.append(type(error).__name__)
    return found, repr(Point(1)), Point(1) == Point(1), Cold("3").a, Cold(1) < Cold(2), hash(Cold(1)) == hash(Cold(1)), repr(Old()), attrs.asdict(Child(1)), repr(attrs.evolve(Point(1), y=9)), [f.name for f in attrs.fields(Child)], attrs.fields(Point).x.default is attrs.NOTHING, hasattr(Point(1), "__dict__")
""",
    needs="attrs",
)


program(
    "pydantic_models",
    """
from typing import Generic, Optional, TypeVar
import pydantic
T = TypeVar("T")
SEEN = []
class Base(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    x: int = 1
    @pydantic.field_validator("x")
    @classmethod
    def positive(cls, value):
        if value < 0:
            raise ValueError("negative")
        return value
    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs):
        SEEN.append(cls.__name__)
class Item(Base):
    name: str
    tags: list[str] = pydantic.Field(default_factory=list, max_length=3)
    parent: Optional["Item"] = None
    _secret: int = pydantic.PrivateAttr(default=5)
    @pydantic.computed_field
    @property
    def double(self) -> int:
        return self.x * 2
    def shout(self):
        return self.name.upper()
class Box(pydantic.BaseModel, Generic[T]):
    content: T
class Root(pydantic.RootModel[list[int]]):
    pass
@pydantic.validate_call
def validated(x: int, y: Item) -> int:
    return x
@pydantic.dataclasses.dataclass
class Data:
    a: int
    b: str = "b"
def check():
    found = []
    for make in (lambda: Item(name="a", x=-1), lambda: Item(x=1), lambda: setattr(Item(name="a"), "x", 2), lambda: Data(a="z")):
        try:
            make()
        except Exception as error:
            found.append(type(error).__name__)
    item = Item(name="a", x="7", parent=Item(name="b"))
    return found, repr(item), item.shout(), item.model_dump(), item._secret, Item.model_validate_json('{"name": "z"}').name, Item.model_json_schema()["$defs"].keys(), repr(Box[int](content="3")), repr(Root([1])), validated("3", item), repr(Data(a="3")), SEEN, sorted(Item.model_fields), item == Item(name="a", x=7, parent=Item(name="b"))
""",
    needs="pydantic",
)
program(
    "msgspec_structs",
    """
import msgspec
LIMIT = 5
class User(msgspec.Struct, frozen=True, order=True, tag="user"):
    name: str
    limit: int = LIMIT
    groups: set[str] = msgspec.field(default_factory=set)
    def shout(self):
        return self.name.upper()
class Admin(User, kw_only=True, frozen=True):
    level: int = 1
    def __init_subclass__(cls):
        super().__init_subclass__()
        DERIVED.append(cls.__name__)
DERIVED = []
class Root(Admin, kw_only=True, frozen=True):
    key: int = 3
Made = msgspec.defstruct("Made", [("x", int), ("y", int, 3)])
def check():
    user = User("a")
    return repr(user), user.shout(), msgspec.json.encode(user), msgspec.json.decode(b'{"type":"user","name":"b"}', type=User) == User("b"), User("a") < User("b"), hash(User("a", 1, ()) if False else 1), repr(Admin("x", level=3)), User.__struct_config__.frozen, User.__struct_fields__, User.__struct_defaults__[0], DERIVED, Root("r").key
""",
    needs="msgspec",
)
program(
    "sqlalchemy_models",
    """
from typing import Optional
from sqlalchemy import ForeignKey, String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
class Base(DeclarativeBase):
    pass
class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30))
    nick: Mapped[Optional[str]]
    items: Mapped[list["Item"]] = relationship(back_populates="user")
    def shout(self):
        return self.name.upper()
class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    user: Mapped[User] = relationship(back_populates="items")
def check():
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        user = User(name="ann", nick=None)
        user.items.append(Item())
        session.add(user)
        session.commit()
        found = session.scalars(select(User)).one()
        return found.shout(), len(found.items), found.items[0].user is found, sorted(Base.metadata.tables), User.__table__.c.keys()
""",
    needs="sqlalchemy",
)
program(
    "statement_that_means_another_thing_now",
    """
import msgspec
LIMIT = 5
class User(msgspec.Struct):
    limit: int = LIMIT
LIMIT = 6
def check():
    return User().limit
""",
    needs="msgspec",
)
program(
    "library_classes_patched_since",
    """
import msgspec, pydantic
class User(msgspec.Struct):
    name: str
    def get(self, x=1):
        return x
class Item(pydantic.BaseModel):
    name: str
    def get(self, x=1, *, y=2):
        return x, y
    def old(self):
        return "old"
    @property
    def text(self):
        return "old"
Item.get.__defaults__ = (10,)
Item.get.__kwdefaults__ = {"y": 20}
Item.get.note = "noted"
Item.old = lambda self: "new"
Item.text = property(lambda self: "new " + self.name)
User.get.__defaults__ = (11,)
def check():
    item = Item(name="a")
    return item.get(), Item.get.note, item.old(), item.text, User("b").get()
""",
    needs="msgspec pydantic",
)


# ------------------------------------------------------------------------- running them


def _module(name: str, folder: str) -> Any:
    path = Path(folder) / f"{name}.py"
    path.write_text(PROGRAMS[name])
    spec = importlib.util.spec_from_file_location("__main__", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    spec.loader.exec_module(module)
    return module


def client(names: list[str], foreign: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, Any]:
    """Pickle programs. Returns the pickle of each or an error, and what is right."""
    from remote_executor.errors import PayloadError
    from remote_executor.payload.by_source import dump_abroad
    from remote_executor.payload.pickles import dump

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            module = _module(name, folder)
            sent: Any
            try:
                if foreign:
                    sent = dump_abroad(module.check, "function", foreign)
                else:
                    sent = dump(module.check, "function")
                sent = sent[0], [bytes(view) for view in sent[1]]
            except PayloadError as error:
                sent = f"refused: {error}"
            try:
                found[name] = sent, repr(module.check())
            except Exception as error:
                raise ValueError(f"{name} does not run here: {error!r}") from error
    return found


def worker(sent: dict[str, Any]) -> dict[str, str]:
    """Load programs and run them. Returns what came of each, in words."""
    from remote_executor.payload import mains
    from remote_executor.payload.pickles import load
    from remote_executor.payload.pythons import alias_renamed

    alias_renamed()
    found = {}
    for name, (pickled, _) in sent.items():
        if isinstance(pickled, str):
            found[name] = pickled
            continue
        mains.prepare_main()
        try:
            found[name] = repr(load(*pickled)())
        except BaseException as error:
            import traceback

            found[name] = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    return found


def main(what: str, file: str, *names: str) -> None:
    """Do the one half or the other."""
    path = Path(file)
    given = pickle.loads(path.read_bytes())
    given = client(*given) if what == "client" else worker(given)
    path.write_bytes(pickle.dumps(given))


if __name__ == "__main__":
    main(*sys.argv[1:])
